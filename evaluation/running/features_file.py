"""The features of one clip as an .npy file that is whole or not there."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlhf_video.data import write_atomic
from rlhf_video.errors import DataError


def write_features(path: Path, features: NDArray[np.float32]) -> None:
    """Write features, shape (items, width), finite.

    Raises:
        DataError: They have another shape, or are not finite.
        OSError: The disk is full.
    """
    features = np.asarray(features, dtype=np.float32)
    if features.ndim != 2 or not features.size or not np.isfinite(features).all():
        raise DataError(f"Features of shape {features.shape} are no finite table of (items, width).")
    buffer = io.BytesIO()
    np.save(buffer, features, allow_pickle=False)
    write_atomic(path, buffer.getvalue())


def read_features(path: Path) -> NDArray[np.float32]:
    """Return the features, shape (items, width).

    Raises:
        DataError: The file is missing or damaged.
    """
    try:
        features: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"The features '{path}' are missing or damaged: delete the results beside them.") from error
    return features
