"""Whether a rater prefers a side of the screen: the exact binomial test of left against right."""

from dataclasses import dataclass

from rlhf_video.errors import DataError
from rlhf_video.stats.beta_tail import beta_above


@dataclass(frozen=True)
class SideBias:
    """How often the left clip was chosen, and how surprising that is where sides are drawn by a fair coin."""

    left_share: float
    """Of decided votes, in [0, 1]; NaN without any."""
    p_value: float
    """Two-sided and exact; 1 without a decided vote."""
    num_votes: int


def side_bias(num_left: int, num_right: int) -> SideBias:
    """Test P(left) = 1/2 among decided votes; ties say nothing about a side.

    With many raters correct for it (`holm`): of 100 fair ones five have a p-value below 0.05.

    Args:
        num_left: Votes for the clip on the left.
        num_right: Votes for the clip on the right.

    Raises:
        DataError: A count is negative.
    """
    if num_left < 0 or num_right < 0:
        raise DataError(f"Counts of votes must be 0 or more, got {num_left} left and {num_right} right.")
    total, more = num_left + num_right, max(num_left, num_right)
    if total == 0:
        return SideBias(float("nan"), 1.0, 0)
    if 2 * more == total:
        return SideBias(0.5, 1.0, total)
    # P(X >= k) of n fair coins is the chance that a Beta(k, n - k + 1) lies below 1/2, so its mirror above.
    tail = beta_above(total - more + 1, more)
    return SideBias(num_left / total, min(1.0, 2.0 * tail), total)
