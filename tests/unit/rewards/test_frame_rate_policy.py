"""Frame policies by rate as a config writes them; the property tests hold their arithmetic."""

import pytest

from rewards.base import FramePolicy, parse_frame_policy
from rewards.errors import RewardError


def test_a_config_names_a_rate() -> None:
    assert parse_frame_policy({"kind": "rate", "rate": 2}) == FramePolicy("rate", rate=2)
    full = {"kind": "rate", "rate": 2.0, "count": 4, "multiple": 2}
    assert parse_frame_policy(full) == FramePolicy("rate", 4, 2.0, 2)


def test_two_frames_per_second_of_a_five_second_clip_are_ten() -> None:
    assert FramePolicy("rate", 4, 2.0, 2).select(81, fps=16) == (0, 9, 18, 27, 36, 44, 53, 62, 71, 80)
    assert FramePolicy("rate", rate=0.1).select(9, fps=9.0) == (4,)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"kind": "rate"}, "needs the rate"),
        ({"kind": "uniform", "count": 3, "rate": 2.0}, "Only the frame policy 'rate'"),
        ({"kind": "all", "multiple": 2}, "Only the frame policy 'rate'"),
        ({"kind": "rate", "rate": 0.0}, "above 0"),
        ({"kind": "rate", "rate": float("nan")}, "above 0"),
        ({"kind": "rate", "rate": 2.0, "multiple": 0}, "at least 1"),
        ({"kind": "rate", "rate": 2.0, "count": 0}, "at least 1"),
        ({"kind": "rate", "rate": "2"}, "not understood"),
        ({"kind": "rate", "rate": 2.0, "fps": 8}, "not understood"),
    ],
)
def test_wrong_rates_are_refused(fields: dict[str, object], named: str) -> None:
    with pytest.raises(RewardError, match=named):
        parse_frame_policy(fields)


def test_a_rate_needs_to_know_the_clips_fps() -> None:
    with pytest.raises(RewardError, match="fps"):
        FramePolicy("rate", rate=2.0).select(8)
