"""Let rare pairs count more: VideoDPO's re-weighting by the histogram of scores (arXiv:2412.14167, section 4.3).

With the scores s of all compared clips in `num_bins` bins of equal width from the least to the largest one,

    p(s)   = share of the clips in the bin of s
    P      = p(s_chosen) * p(s_rejected)                          probability of the pair
    weight = min((beta / P) ** alpha, max_weight)

beta is "the approximate probability of the most frequent sample" in the paper; here the largest P among the pairs,
so the most common kind of pair has weight 1 and no pair less. The paper's released code has beta = 0.72 and ships with
alpha = 0 (off) and without the bins. `histogram="margins"` is the reading that the paper's
prose suggests, "higher weights for clearer distinctions": P is the share of the pairs in the bin of
s_chosen - s_rejected. It favours large margins only where they are rare.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rlhf_video.settings import check_range


@dataclass(frozen=True, kw_only=True)
class ReweightingConfig:
    """How much more a rare pair counts."""

    alpha: float = 0.5
    """Exponent, >= 0; 0 gives every pair weight 1. 0.5 is ours: the geometric mean of both clips' rarity."""
    histogram: Literal["clips", "margins"] = "clips"
    """Of what: the scores of all clips (equation 3 of VideoDPO, arXiv:2412.14167), or the margins of the pairs."""
    num_bins: int = 20
    """Bins of equal width. 20 is ours: the released code has none."""
    beta: float | None = None
    """Probability that has weight 1, in (0, 1]; None: of the most common kind of pair. Released code: 0.72."""
    max_weight: float = 10.0
    """Largest weight, >= 1. 10 is ours: two clips alone in their bins would count n^2 times otherwise."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("alpha", self.alpha, least=0.0)
        check_range("num_bins", self.num_bins, least=1)
        check_range("max_weight", self.max_weight, least=1.0)
        if self.beta is not None:
            check_range("beta", self.beta, above=0.0, below=np.nextafter(1.0, 2.0))


def pair_weights(
    chosen: NDArray[np.float64],
    rejected: NDArray[np.float64],
    population: NDArray[np.float64],
    config: ReweightingConfig,
) -> NDArray[np.float64]:
    """Return the weight of every pair.

    Args:
        chosen: Score of the preferred clips, shape (pairs,).
        rejected: Score of the other clips, shape (pairs,).
        population: Score of all compared clips, those of the pairs among them, shape (clips,).
        config: See the top of this file.
    """
    if len(chosen) == 0:
        return np.zeros(0)
    if config.histogram == "clips":
        shares = _bin_shares(np.concatenate((population, chosen, rejected)), len(population), config.num_bins)
        probability = np.multiply(*np.split(shares[len(population) :], 2))
    else:
        probability = _bin_shares(chosen - rejected, len(chosen), config.num_bins)
    beta = probability.max() if config.beta is None else config.beta
    return np.minimum((beta / probability) ** config.alpha, config.max_weight)


def _bin_shares(values: NDArray[np.float64], num_counted: int, num_bins: int) -> NDArray[np.float64]:
    """Return for every value the share of the first `num_counted` values that lie in its bin."""
    counted = values[:num_counted]
    width = np.ptp(counted) / num_bins
    bins = np.zeros(len(values), dtype=int)
    if width > 0.0:
        bins = np.clip(((values - counted.min()) / width).astype(int), 0, num_bins - 1)
    counts = np.bincount(bins[:num_counted], minlength=num_bins)
    return counts[bins] / num_counted
