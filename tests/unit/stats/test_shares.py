"""Coverage of intervals of shares: where the percentile bootstrap fails, and where these hold."""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from rlhf_video.errors import DataError
from rlhf_video.stats import Interval, bootstrap_mean, share_difference_interval, share_interval

Method = Callable[[NDArray[np.float64], NDArray[np.intp]], Interval]
NUM_TRIALS = 500


def _bootstrap(values: NDArray[np.float64], clusters: NDArray[np.intp]) -> Interval:
    return bootstrap_mean(values, clusters, num_resamples=400)


def _clips(rng: np.random.Generator, share: float, num_prompts: int, samples: int, alike: float) -> NDArray[np.float64]:
    """Return zeros and ones, shape (prompts, samples), whose hidden scores of a prompt correlate by `alike`."""
    hidden = math.sqrt(alike) * rng.normal(size=(num_prompts, 1))
    hidden = hidden + math.sqrt(1 - alike) * rng.normal(size=(num_prompts, samples))
    return (hidden < NormalDist().inv_cdf(share)).astype(float)


def _coverage(method: Method, share: float, num_prompts: int, samples: int, alike: float) -> float:
    rng, hits = np.random.default_rng(1), 0
    clusters = np.repeat(np.arange(num_prompts), samples)
    for _ in range(NUM_TRIALS):
        interval = method(_clips(rng, share, num_prompts, samples, alike).ravel(), clusters)
        hits += interval.low <= share <= interval.high
    return hits / NUM_TRIALS


@pytest.mark.parametrize("alike", [0.0, 0.5])
@pytest.mark.parametrize(("num_prompts", "samples"), [(8, 1), (8, 4), (16, 4), (72, 5)])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9])
def test_interval_of_a_share_covers_it(share: float, num_prompts: int, samples: int, alike: float) -> None:
    assert _coverage(share_interval, share, num_prompts, samples, alike) >= 0.92


def test_bootstrap_of_few_rare_events_would_not_cover() -> None:
    # With 8 clips at 5%, two samples of three hold no event at all, and their percentile interval is [0, 0].
    assert _coverage(_bootstrap, 0.05, 8, 1, 0.0) < 0.5
    assert _coverage(share_interval, 0.05, 8, 1, 0.0) >= 0.92


@pytest.mark.parametrize(("before", "after"), [(0.5, 0.5), (0.05, 0.2), (0.9, 0.95), (0.5, 0.8)])
@pytest.mark.parametrize(("num_prompts", "samples"), [(8, 1), (8, 4), (72, 5)])
def test_interval_of_a_difference_of_shares_covers_it(
    before: float, after: float, num_prompts: int, samples: int
) -> None:
    rng, hits = np.random.default_rng(2), 0
    clusters = np.repeat(np.arange(num_prompts), samples)
    for _ in range(NUM_TRIALS):
        old, new = (_clips(rng, share, num_prompts, samples, 0.4) for share in (before, after))
        interval = share_difference_interval((new - old).ravel(), clusters)
        hits += interval.low <= after - before <= interval.high
    assert hits / NUM_TRIALS >= 0.92


def test_independent_clips_have_wilsons_interval() -> None:
    # Two of ten, each its own prompt: Wilson's formula with t of 9 degrees of freedom instead of 1.96.
    values, n, p, t = np.array([1.0] * 2 + [0.0] * 8), 10 * 0.9, 0.2, 2.262
    interval = share_interval(values, np.arange(10))
    center, reach = (p + t * t / (2 * n)) / (1 + t * t / n), math.sqrt(p * (1 - p) / n + t * t / (4 * n * n))
    assert interval.low == pytest.approx(center - t * reach / (1 + t * t / n), rel=2e-3)
    assert interval.high == pytest.approx(center + t * reach / (1 + t * t / n), rel=2e-3)


def test_clips_that_all_agree_are_not_certain() -> None:
    interval = share_interval(np.ones(32), np.repeat(np.arange(8), 4))
    assert (interval.mean, interval.high) == (1.0, 1.0)
    assert interval.low == pytest.approx(1 / (1 + 2.365**2 / 8), rel=1e-2)
    difference = share_difference_interval(np.zeros(8), np.arange(8))
    assert difference.low == -difference.high < -0.2


def test_one_prompt_says_nothing_about_others() -> None:
    assert share_interval([1.0, 0.0], [0, 0]) == Interval(0.5, 0.0, 1.0, 2, 1)
    assert share_difference_interval([1.0, 0.0], [0, 0]) == Interval(0.5, -1.0, 1.0, 2, 1)


def test_values_that_are_no_shares_are_refused() -> None:
    with pytest.raises(DataError, match="Shares from 0 to 2"):
        share_interval([0.0, 2.0], [0, 1])
    with pytest.raises(DataError, match="must be -1, 0 or 1"):
        share_difference_interval([0.5, 0.0], [0, 1])
    with pytest.raises(DataError, match="not a confidence level"):
        share_interval([0.0, 1.0], [0, 1], level=95)
