"""KID- and KVD-type distances: unbiased for sets of any size, with intervals."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.metrics.feature_backbones import Backbone, Frames
from evaluation.metrics.set_distance import SetDistance, check_sets
from rlhf_video.errors import DataError
from rlhf_video.stats.bootstrap import Interval, check_level, student_quantile


class KernelDistance(SetDistance):
    """Unbiased squared maximum mean discrepancy with the kernel (x . y / width + 1)^3, float64.

    Binkowski et al. 2018 (KID, arXiv:1801.01401, equations 2 and 3) with another network, which the name tells. Unit:
    squared feature distance. Range (-inf, inf): around 0 for sets of one distribution, also below. Lower is better. It
    is unbiased for independent items; frames of one clip are not, so by default clip_frames looks at the middle frame
    of each clip alone.
    """

    kind = "kernel"
    paper = "arXiv:1801.01401"
    default_frames: ClassVar[Mapping[Backbone, Frames]] = {"clip_frames": {"kind": "uniform", "count": 1}}

    @staticmethod
    def distance(features: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
        """Return the distance of two sets, see `SetMetric`.

        Raises:
            DataError: See `kernel_distance`.
        """
        return kernel_distance(features, reference)

    @staticmethod
    def interval(
        features: NDArray[np.float32],
        reference: NDArray[np.float32],
        *,
        clusters: ArrayLike | None = None,
        reference_clusters: ArrayLike | None = None,
        level: float = 0.95,
    ) -> Interval:
        """Return the distance with its interval, see `kernel_distance_interval`."""
        return kernel_distance_interval(
            features, reference, clusters=clusters, reference_clusters=reference_clusters, level=level
        )


def kernel_distance(features: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Return the unbiased squared MMD of two sets.

    Args:
        features: (n, width), n >= 2.
        reference: (m, width), m >= 2.

    Raises:
        DataError: Different widths, values that are not finite, or a set of fewer than two items.
    """
    return _Sums(features, reference, None, None).without(None)


def kernel_distance_interval(
    features: NDArray[np.floating],
    reference: NDArray[np.floating],
    *,
    clusters: ArrayLike | None = None,
    reference_clusters: ArrayLike | None = None,
    level: float = 0.95,
) -> Interval:
    """Return the unbiased squared MMD with a jackknife interval that leaves out one cluster at a time.

    A bootstrap would draw an item twice and count it as a pair of its own, which biases the statistic; the jackknife
    does not. Standard error: sqrt((k - 1) / k * sum of squared deviations) over k clusters (Efron and Stein 1981),
    times Student's t with k - 1 degrees of freedom. Near zero the statistic degenerates and the interval is too wide
    rather than too narrow.

    Args:
        features: (n, width).
        reference: (m, width).
        clusters: Label of each row, for example its prompt, (n,); None: every row is its own cluster.
        reference_clusters: The same for the reference; a label that occurs in both sets leaves both together.
        level: Confidence level in (0, 1).

    Raises:
        DataError: As `kernel_distance`, labels of another number, or fewer than three clusters on a side.
    """
    check_level(level)
    sums = _Sums(features, reference, clusters, reference_clusters)
    if min(sums.clusters_per_set) < 3:
        raise DataError(
            "An interval of a kernel distance needs at least 3 clusters (prompts, or clips where no prompts are given) "
            f"in each set, got {sums.clusters_per_set[0]} and {sums.clusters_per_set[1]}: generate more clips."
        )
    whole, count = sums.without(None), sums.num_clusters
    left_out = np.array([sums.without(number) for number in range(count)])
    spread = np.sqrt((count - 1) / count * np.square(left_out - left_out.mean()).sum())
    reach = float(student_quantile(0.5 + level / 2, count - 1) * spread)
    return Interval(whole, whole - reach, whole + reach, sums.num_items, count)


class _Sums:
    """Kernel sums of every pair of clusters, so that leaving one out costs no new kernel."""

    def __init__(
        self,
        features: NDArray[np.floating],
        reference: NDArray[np.floating],
        clusters: ArrayLike | None,
        reference_clusters: ArrayLike | None,
    ) -> None:
        first, second = check_sets(features, reference)
        self.num_items = len(first) + len(second)
        one = _labels(clusters, len(first), "set")
        other = _labels(reference_clusters, len(second), "reference")
        names, index = np.unique(np.concatenate([one, other]), return_inverse=True)
        self.num_clusters = len(names)
        rows, columns = index[: len(first)], index[len(first) :]
        self._sizes = [np.bincount(part, minlength=len(names)) for part in (rows, columns)]
        self.clusters_per_set = [int(np.count_nonzero(sizes)) for sizes in self._sizes]
        if min(len(first), len(second)) < 2:
            raise DataError(
                f"A kernel distance needs at least 2 items in each set (50 make it useful), got {len(first)} and "
                f"{len(second)}: generate more clips."
            )
        kernels = (_kernel(first, first), _kernel(second, second), _kernel(first, second))
        for square in kernels[:2]:
            np.fill_diagonal(square, 0.0)
        places = ((rows, rows), (columns, columns), (rows, columns))
        self._totals = [float(kernel.sum()) for kernel in kernels]
        self._lost = [self._by_cluster(kernel, *at) for kernel, at in zip(kernels, places, strict=True)]

    def _by_cluster(
        self, kernel: NDArray[np.float64], rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return how much of a kernel's sum goes when a cluster leaves, (clusters,)."""
        count = self.num_clusters
        lost = np.bincount(rows, kernel.sum(axis=1), count) + np.bincount(columns, kernel.sum(axis=0), count)
        is_inside = rows[:, None] == columns[None, :]  # such pairs lie in the row and in the column
        return np.asarray(lost - np.bincount(rows, (kernel * is_inside).sum(axis=1), count))

    def without(self, cluster: int | None) -> float:
        """Return the statistic without one cluster, or of everything."""
        lost = [0.0, 0.0, 0.0] if cluster is None else [part[cluster] for part in self._lost]
        gone = [0, 0] if cluster is None else [sizes[cluster] for sizes in self._sizes]
        n, m = (int(sizes.sum() - size) for sizes, size in zip(self._sizes, gone, strict=True))
        xx, yy, xy = (total - part for total, part in zip(self._totals, lost, strict=True))
        return float(xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m))


def _labels(clusters: ArrayLike | None, count: int, prefix: str) -> NDArray[np.str_]:
    """Return a label per row; rows without a cluster get one that no other row has."""
    if clusters is None:
        return np.array([f"\0{prefix} {number}" for number in range(count)])
    labels = np.asarray(clusters).astype(str)
    if labels.shape != (count,):
        raise DataError(f"Cluster labels of shape {labels.shape} do not fit {count} rows of features: one label a row.")
    return labels


def _kernel(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((first @ second.T / first.shape[1] + 1.0) ** 3)
