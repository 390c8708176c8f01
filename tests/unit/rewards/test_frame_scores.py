"""From frames to clips, and random weights that any environment makes again."""

import numpy as np
import pytest
import torch

from rewards.errors import RewardError
from rewards.frame_scores import FrameReduction, parse_frame_reduction
from rewards.random_weights import random_array

GOLDEN = [-0.875491381, -0.052434318, -0.084309451, 0.912020385]
SCORES = torch.tensor([[3.0, 1.0, 2.0], [5.0, 5.0, 5.0]])


@pytest.mark.parametrize(("kind", "expected"), [("mean", [2.0, 5.0]), ("min", [1.0, 5.0]), ("first", [3.0, 5.0])])
def test_reduction_of_frames(kind: str, expected: list[float]) -> None:
    assert parse_frame_reduction(kind)(SCORES).tolist() == expected


def test_softmin_goes_from_the_worst_frame_to_the_mean_as_its_temperature_rises() -> None:
    soft = [
        float(parse_frame_reduction({"kind": "softmin", "temperature": t})(SCORES)[0]) for t in (0.01, 0.5, 2.0, 1e4)
    ]
    assert soft == sorted(soft)
    assert soft[0] == pytest.approx(1.0)
    assert soft[-1] == pytest.approx(2.0, abs=1e-3)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("median", "median"),
        ("softmin", "temperature"),
        ({"kind": "mean", "temperature": 1.0}, "temperature"),
        ({"kind": "softmin", "temperature": 0}, "above 0"),
        ({"kind": "mean", "weight": 1}, "not understood"),
    ],
)
def test_wrong_reduction_is_refused(value: object, named: str) -> None:
    with pytest.raises(RewardError, match=named):
        parse_frame_reduction(value)  # type: ignore[arg-type]


def test_reduction_is_its_own_config() -> None:
    assert parse_frame_reduction(FrameReduction("min")) == FrameReduction("min")


def test_random_weights_never_change() -> None:
    # Golden: parity numbers committed in tests/parity/golden were made with these bits.
    np.testing.assert_allclose(random_array("visual.proj", (2, 2), seed=3).ravel(), GOLDEN, rtol=0, atol=1e-7)


def test_random_weights_differ_by_name_and_seed_and_keep_variance() -> None:
    one = random_array("a.weight", (64, 48))
    assert not np.array_equal(one, random_array("b.weight", (64, 48)))
    assert not np.array_equal(one, random_array("a.weight", (64, 48), seed=1))
    assert float(one.var() * 48) == pytest.approx(1.0, rel=0.05)
    scale, shift = random_array("norm.weight", (1000,)), random_array("norm.bias", (1000,))
    assert 0.8 <= scale.min() < 0.81 and 1.19 < scale.max() <= 1.2
    assert -0.2 <= shift.min() < -0.19 and 0.19 < shift.max() <= 0.2
