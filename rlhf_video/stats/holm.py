"""Holm's correction for many tests at once (Holm 1979, Scandinavian Journal of Statistics 6)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf_video.errors import DataError


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return adjusted p-values: calling those below 0.05 significant makes any false call in at most 5% of the tables.

    The smallest of m p-values is multiplied by m, the next by m - 1, and so on, never falling below one before it. It
    holds whatever the tests have in common, as scores of the same clips do.

    Args:
        p_values: In [0, 1], shape (m,); none is allowed.

    Returns:
        Adjusted p-values in the same order, in [0, 1], shape (m,).

    Raises:
        DataError: Another shape, or a number that is no probability.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0.0) & (p <= 1.0)).all():
        raise DataError(f"p-values {p.tolist()} must be a list of numbers between 0 and 1.")
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(raised, 1.0)
    return adjusted
