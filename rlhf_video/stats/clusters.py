"""Check scores and their cluster labels, and sum them per cluster."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf_video.errors import DataError


def cluster_sums(values: ArrayLike, clusters: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum of the values and the number of values of every cluster.

    Args:
        values: Finite scores, shape (n,).
        clusters: Label of each score's cluster (any sortable type, for clips the prompt), shape (n,).

    Returns:
        Sums and sizes, each of shape (num_clusters,), in the order of the sorted labels.

    Raises:
        DataError: The shapes differ, nothing is given, or a score is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    labels = np.asarray(clusters)
    if array.ndim != 1 or labels.shape != array.shape:
        raise DataError(f"Scores of shape {array.shape} and clusters of shape {labels.shape} must both be (n,).")
    if array.size == 0:
        raise DataError("There is no score to average: every clip was masked or none was given.")
    if not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise DataError(
            f"{count} of {array.size} scores are not finite: drop masked clips before asking for an interval."
        )
    _, index = np.unique(labels, return_inverse=True)
    sizes = np.bincount(index).astype(np.float64)
    return np.bincount(index, weights=array).astype(np.float64), sizes
