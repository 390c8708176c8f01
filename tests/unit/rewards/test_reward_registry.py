"""Rewards are found by name, and what cannot be found or built says so."""

from pathlib import Path

import pytest

from rewards import registry
from rewards.base import Reward
from rewards.errors import RewardError
from rewards.factories import load_factory

OWN_REWARD = """
from rewards.testing import BrightnessReward

class Darkness(BrightnessReward):
    def __init__(self, strength: float = 1.0, *, count: int | None = None) -> None:
        super().__init__()
        self.strength = strength

class NotAReward:
    pass

def make(strength: float) -> Darkness:
    return Darkness(strength)
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"own_rewards_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(OWN_REWARD)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.mark.parametrize("name", ["brightness", "frame_difference", "saturation", "sharpness"])
def test_weightless_rewards_are_built_by_name(name: str) -> None:
    reward = registry.build(name)
    assert isinstance(reward, Reward)
    assert reward.spec.name == name


def test_every_short_name_leads_to_a_class() -> None:
    for name in registry.available():
        assert callable(load_factory("reward", name, registry._TARGETS))


def test_own_reward_plugs_in_as_module_and_class_or_factory(own_module: str) -> None:
    assert vars(registry.build(f"{own_module}:Darkness", strength=2.0))["strength"] == 2.0
    assert vars(registry.build(f"{own_module}:make", strength=3))["strength"] == 3


def test_registered_name_builds_its_target(own_module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_TARGETS", dict(registry._TARGETS))
    registry.register("darkness", f"{own_module}:Darkness")
    assert "darkness" in registry.available()
    assert type(registry.build("darkness")).__name__ == "Darkness"
    with pytest.raises(RewardError, match="already stands for"):
        registry.register("darkness", "rewards.testing:BrightnessReward")
    with pytest.raises(RewardError, match="no ':'"):
        registry.register("a:b", "rewards.testing:BrightnessReward")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clip_preferense", "Did you mean 'clip_preference'"),
        ("nothing_like_it", "Known: aesthetic, brightness"),
        ("no_such_package.rewards:Mine", "no module 'no_such_package'"),
        ("rewards.testing:BrightnesReward", "Did you mean 'BrightnessReward'"),
        ("rewards.testing:", "package.module:Class"),
        ("../evil:Class", "package.module:Class"),
    ],
)
def test_unknown_reward_is_refused(name: str, message: str) -> None:
    with pytest.raises(RewardError, match=message):
        registry.build(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modle": "x"}, "Did you mean 'model'"),
        ({}, "needs the option 'model'"),
        ({"model": "x", "frames_per_pass": "3"}, "must be int or null, got '3'"),
        ({"model": "x", "cache_size": True}, "must be int, got True"),
        ({"model": 3}, "must be str or Path, got 3"),
        ({"model": "x", "fit": "stretch"}, "must be 'crop' or 'processor_crop' or 'letterbox' or 'squash'"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_loaded(options: dict[str, object], message: str) -> None:
    with pytest.raises(RewardError, match=message):
        registry.build("clip_preference", **options)


def test_option_of_a_reward_without_options_is_refused() -> None:
    with pytest.raises(RewardError, match="It takes none"):
        registry.build("saturation", strength=2)


def test_class_that_is_no_reward_is_refused(own_module: str) -> None:
    with pytest.raises(RewardError, match="not a reward"):
        registry.build(f"{own_module}:NotAReward")


def test_missing_dependency_of_a_reward_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_more.py").write_text("import a_package_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RewardError, match="'a_package_nobody_has', which is not installed"):
        registry.build("needs_more:Reward")
