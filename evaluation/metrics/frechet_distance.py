"""FID- and FVD-type distances: how far two sets of features lie apart if both are Gaussian."""

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.set_distance import SetDistance, check_sets
from rlhf_video.errors import DataError


class FrechetDistance(SetDistance):
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), means and covariances of two sets of features, float64.

    Heusel et al. 2017 (FID, arXiv:1706.08500) and Unterthiner et al. 2018 (FVD, arXiv:1812.01717) with another network,
    which the name tells: numbers of two networks cannot be compared, nor with published FID or FVD. Unit: squared
    feature units. Range [0, inf), 0 for sets of equal mean and covariance. Lower is better. The estimate is biased
    upwards, the more the smaller the sets, so compare sets of equal size only, or use `kernel_distance`. It has no
    interval: the bias is larger than the spread, so that a 95% jackknife interval around it held the truth in 0 to 68
    of 100 simulated sets of 40 to 144 items.
    """

    kind = "frechet"
    paper = "arXiv:1706.08500, arXiv:1812.01717"

    @staticmethod
    def distance(features: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
        """Return the distance of two sets, see `SetMetric`.

        Raises:
            DataError: See `frechet_distance`.
        """
        return frechet_distance(features, reference)


def frechet_distance(features: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Return the Frechet distance of the Gaussians fitted to two sets (Dowson and Landau 1982).

    The trace of the root is the sum of the roots of the eigenvalues of C1^(1/2) C2 C1^(1/2), which is symmetric: no
    complex parts as from a general matrix root, and rank-deficient covariances are fine.

    Args:
        features: (n, width).
        reference: (m, width).

    Raises:
        DataError: Different widths, values that are not finite, or a set too small for a covariance of full rank.
    """
    first, second = check_sets(features, reference)
    width = first.shape[1]
    if min(len(first), len(second)) <= width:
        raise DataError(
            f"A Frechet distance on {width} features needs at least {width + 1} items in each set (ten times as many "
            f"are usual), got {len(first)} and {len(second)}: generate more clips, or use kernel_distance, which is "
            "unbiased for small sets too."
        )
    gap = first.mean(axis=0) - second.mean(axis=0)
    one, other = (np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (first, second))
    root = _root(one)
    middle = root @ other @ root
    shared = np.sqrt(np.linalg.eigvalsh((middle + middle.T) / 2).clip(min=0)).sum()
    return max(0.0, float(gap @ gap + np.trace(one) + np.trace(other) - 2 * shared))


def _root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the symmetric root of a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(values.clip(min=0))) @ vectors.T)
