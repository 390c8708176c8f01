import math
from pathlib import Path

import numpy as np
import pytest

from rlhf_video.errors import ConfigError
from rlhf_video.validation import Comparison, GuardConfig, check_guards, read_guards

NUM = 24


def pairs(*, motion: float = 1.0, saturation: float = 1.0, diversity: float = 1.0, held_out: float = 0.0) -> Comparison:
    """Return pairs whose adapter multiplies the guards' scores and moves the held-out one."""
    rng = np.random.default_rng(0)
    config = GuardConfig()
    factors = {config.motion_score: motion, config.saturation_score: saturation, config.diversity_score: diversity}
    base = {key: 0.2 + 0.1 * rng.random(NUM) for key in factors} | {"held/all": rng.normal(size=NUM)}
    adapter = {key: base[key] * factor for key, factor in factors.items()}
    adapter["held/all"] = base["held/all"] + held_out + 0.05 * rng.normal(size=NUM)
    return Comparison(base, adapter, np.repeat(np.arange(NUM // 2), 2))


def test_a_healthy_adapter_trips_nothing() -> None:
    healthy = pairs(motion=0.9, saturation=1.1, diversity=0.8, held_out=0.2)
    assert check_guards(healthy, held_out=["held/all"]) == ()
    assert {reading.state for reading in read_guards(healthy, held_out=["held/all"])} == {"ok"}


@pytest.mark.parametrize(
    ("name", "broken", "word"),
    [
        ("motion", pairs(motion=0.5), "freeze"),
        ("saturation", pairs(saturation=1.5), "Colours"),
        ("diversity", pairs(diversity=0.3), "alike"),
        ("held-out", pairs(held_out=-0.5), "exploited"),
    ],
)
def test_each_guard_trips_on_its_own_damage_and_says_what_to_do(name: str, broken: Comparison, word: str) -> None:
    alarms = check_guards(broken, held_out=["held/all"])
    assert [alarm.name for alarm in alarms] == [name]
    assert word in alarms[0].message
    assert f"{alarms[0].value:.3f}" in alarms[0].message


def test_a_held_out_change_within_chance_does_not_trip() -> None:
    assert check_guards(pairs(held_out=-0.001), held_out=["held/all"]) == ()


def test_a_sure_but_tiny_held_out_fall_does_not_trip() -> None:
    sure = pairs()
    sure.adapter["held/all"][:] = sure.base["held/all"] - 0.01 * sure.base["held/all"].std()
    assert sure.change("held/all").difference.is_below_zero
    assert check_guards(sure, held_out=["held/all"]) == ()
    strict = GuardConfig(held_out_tolerance=0.0)
    assert [alarm.name for alarm in check_guards(sure, strict, held_out=["held/all"])] == ["held-out"]
    with pytest.raises(ConfigError, match="held_out_tolerance"):
        GuardConfig(held_out_tolerance=-0.1)


def test_what_is_not_measured_is_said_and_never_passes_as_ok() -> None:
    whole = pairs()
    keys = ["held/all"]
    bare = Comparison({key: whole.base[key] for key in keys}, {key: whole.adapter[key] for key in keys}, whole.clusters)
    readings = read_guards(bare)
    assert {reading.state for reading in readings} == {"not measured"}
    assert all(math.isnan(reading.value) for reading in readings)
    assert "two or more clips per prompt" in readings[2].advice
    assert check_guards(bare) == ()


def test_a_base_without_motion_gives_no_ratio() -> None:
    still = pairs()
    still.base[GuardConfig().motion_score][:] = 0.0
    assert read_guards(still)[0].state == "not measured"


def test_dynamic_degree_is_a_guard_only_where_its_weights_are_given() -> None:
    moving, key = pairs(), GuardConfig().dynamic_degree_score
    moving.base[key] = np.full(NUM, 0.8)
    moving.adapter[key] = np.full(NUM, 0.4)
    assert [reading.name for reading in read_guards(moving)] == ["motion", "saturation", "diversity"]
    config = GuardConfig(dynamic_degree_weights=Path("raft.pth"))
    alarms = check_guards(moving, config)
    assert [alarm.name for alarm in alarms] == ["dynamic-degree"]
    assert alarms[0].value == pytest.approx(0.5)
    assert "move less" in alarms[0].message
    assert (
        check_guards(moving, GuardConfig(dynamic_degree_weights=Path("raft.pth"), min_dynamic_degree_ratio=0.5)) == ()
    )
    assert read_guards(pairs(), config)[-1].state == "not measured"
    with pytest.raises(ConfigError, match=r"guards\.min_dynamic_degree_ratio=0"):
        GuardConfig(min_dynamic_degree_ratio=0)


def test_limits_come_from_the_config() -> None:
    assert check_guards(pairs(motion=0.5), GuardConfig(min_motion_ratio=0.4)) == ()
    assert read_guards(pairs(motion=0.5), GuardConfig(enabled=False)) == ()
    with pytest.raises(ConfigError, match=r"guards\.max_saturation_ratio=-1"):
        GuardConfig(max_saturation_ratio=-1)
