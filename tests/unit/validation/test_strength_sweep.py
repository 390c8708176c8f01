import json

import numpy as np
import pytest

from rlhf_video.errors import ConfigError
from rlhf_video.validation import Comparison, GuardConfig, StrengthSweep, SweepRow, choose_scale, sweep_strength

MOTION = GuardConfig().motion_score


def compare_at(scale: float) -> Comparison:
    """Held-out gain peaks at strength 0.75, the trained one keeps rising, motion fades."""
    rng = np.random.default_rng(0)
    base = {"held/all": rng.normal(size=40), "trained/all": rng.normal(size=40), MOTION: 0.5 + 0.1 * rng.random(40)}
    adapter = {
        "held/all": base["held/all"] + 0.6 - (scale - 0.75) ** 2 - (0.6 - 0.75**2),
        "trained/all": base["trained/all"] + scale,
        MOTION: base[MOTION] * (1 - 0.35 * scale),
    }
    return Comparison(base, adapter, np.repeat(np.arange(20), 2))


def sweep(**options: object) -> StrengthSweep:
    return sweep_strength(compare_at, held_out=["held/all"], trained=["trained/all"], **options)  # type: ignore[arg-type]


def test_the_held_out_reward_chooses_not_the_trained_one() -> None:
    result = sweep()
    assert result.recommended_scale == 0.75
    gains = [row.trained_gain for row in result.rows]
    assert gains == sorted(gains)


def test_a_strength_that_trips_a_guard_is_not_recommended() -> None:
    result = sweep(guards=GuardConfig(min_motion_ratio=0.8))
    assert result.recommended_scale == 0.5
    assert [row.tripped for row in result.rows][-3:] == [("motion",)] * 3


def test_without_any_gain_the_base_is_recommended() -> None:
    rows = [SweepRow(0.0, 0.0, 0.0, {}, ()), SweepRow(0.5, -0.1, 0.4, {}, ()), SweepRow(1.0, 0.4, 0.9, {}, ("motion",))]
    assert choose_scale(rows) == 0.0
    assert choose_scale(rows[2:]) == 0.0


def test_of_equal_gains_the_smaller_strength_wins() -> None:
    assert choose_scale([SweepRow(scale, 0.3, 0.0, {}, ()) for scale in (1.0, 0.5, 0.75)]) == 0.5


def test_result_is_a_table_and_plain_json() -> None:
    result = sweep(scales=(0.0, 0.75))
    assert "**0.75**" in result.table()
    assert json.loads(json.dumps(result.to_json()))["recommended_scale"] == 0.75
    assert result.rows[1].means["trained/all"] == pytest.approx(0.75)


@pytest.mark.parametrize("scales", [(), (-0.5, 1.0), (0.5, 0.5)])
def test_unusable_strengths_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="scales="):
        sweep(scales=scales)


def test_a_sweep_needs_a_held_out_score() -> None:
    with pytest.raises(ConfigError, match="held-out reward to choose by"):
        sweep_strength(compare_at, held_out=[])
