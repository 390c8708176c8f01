"""The side test is the exact binomial test."""

import math

import pytest

from rlhf_video.errors import DataError
from rlhf_video.stats import side_bias


def exact(left: int, right: int) -> float:
    total = left + right
    return sum(math.comb(total, k) for k in range(total + 1) if abs(k - total / 2) >= abs(left - total / 2)) / 2**total


@pytest.mark.parametrize(("left", "right"), [(9, 1), (0, 5), (1, 0), (60, 40), (31, 30), (7, 7), (400, 300)])
def test_p_value_is_the_share_of_outcomes_at_least_as_extreme(left: int, right: int) -> None:
    bias = side_bias(left, right)
    assert bias.p_value == pytest.approx(exact(left, right), abs=1e-10)
    assert bias.p_value == pytest.approx(side_bias(right, left).p_value)
    assert (bias.left_share, bias.num_votes) == (left / (left + right), left + right)


def test_no_vote_is_no_evidence() -> None:
    assert math.isnan(side_bias(0, 0).left_share) and side_bias(0, 0).p_value == 1
    with pytest.raises(DataError, match="0 or more"):
        side_bias(-1, 2)
