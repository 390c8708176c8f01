"""The human ceiling compares every answer with the other raters' majority, never with itself."""

import numpy as np
import pytest

from rlhf_video.errors import DataError
from rlhf_video.stats import leave_one_rater_out


def test_answers_are_compared_with_the_majority_of_the_others() -> None:
    items = ["x", "x", "x", "y", "y", "z"]
    raters = ["r", "s", "t", "r", "s", "r"]
    labels = [1, 1, -1, 0, -1, 1]
    # x: r and s face one A and one B each (half credit), t faces two A (none); y: both wrong; z: nobody else.
    interval = leave_one_rater_out(items, raters, labels, ["p", "p", "p", "q", "q", "q"])
    assert interval.mean == pytest.approx((0.5 + 0.5 + 0 + 0 + 0) / 5)
    assert (interval.num_items, interval.num_clusters) == (5, 2)


def test_unanimous_raters_agree_fully() -> None:
    interval = leave_one_rater_out([0, 0, 1, 1], [0, 1, 0, 1], [1, 1, -1, -1], [0, 0, 1, 1])
    assert (interval.low, interval.mean, interval.high) == (1.0, 1.0, 1.0)


def test_two_noisy_raters_agree_as_often_as_chance_says() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice([-1, 1], size=3000)
    labels = np.where(rng.random((2, 3000)) < 0.8, truth, -truth).ravel()
    items, raters = np.tile(np.arange(3000), 2), np.repeat([0, 1], 3000)
    interval = leave_one_rater_out(items, raters, labels, items, num_resamples=500)
    assert interval.low < 0.8**2 + 0.2**2 < interval.high


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([0, 0], [0, 0], [1, 1], [0, 0]), "item twice"),
        (([0, 1], [0, 1], [1, 1], [0, 0]), "two raters"),
        (([0, 0], [0, 1], [1, 2], [0, 0]), "Labels"),
        (([0, 0], [0, 1], [1], [0, 0]), "must all be"),
        (([], [], [], []), "two raters"),
    ],
)
def test_answers_that_compare_nobody_are_refused(columns: tuple[list, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        leave_one_rater_out(*columns)
