"""Metrics by name: every short name leads to a class, mistakes say what fits, and the key says what a value is of."""

from pathlib import Path
from typing import Any

import pytest
import torch

from evaluation import registry
from evaluation.base import Metric
from evaluation.metric_catalogue import CATALOGUE
from evaluation.registry import available, build_metric
from evaluation.running.weights_state import describe_absent, weight_states
from rewards.errors import RewardError
from rewards.factories import load_factory
from rewards.raft import Raft

OWN = """
from evaluation.base import ClipScore, MetricSpec

class Constant:
    def __init__(self, file: str = "", *, value: float = 1.0, device: str = "cpu") -> None:
        self.value, self.device = value, device
        self.spec = MetricSpec(name="constant", version="1", family="measure", dimensions=("constant",), unit="one",
                               higher_is_better=None, uses_prompt=False)

    def score(self, clip):
        return ClipScore(values={"constant": self.value})

class Newer(Constant):
    def __init__(self) -> None:
        super().__init__()
        from dataclasses import replace
        self.spec = replace(self.spec, version="2")

class Nothing:
    pass
"""


@pytest.fixture
def own_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_metric_module.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_metric_module"


@pytest.mark.parametrize("name", available())
def test_every_short_name_leads_to_a_class(name: str) -> None:
    assert callable(load_factory("metric", name, CATALOGUE))


def test_weightless_metric_is_built_by_name() -> None:
    built = build_metric("luminance_flicker", None, {})
    assert isinstance(built.metric, Metric) and not built.is_set_metric
    assert built.label == built.spec.name == "luminance_flicker" and len(built.key) == 64


def test_reward_is_a_metric_with_one_column_per_dimension() -> None:
    built = build_metric("reward", "judge", {"name": "rlhf_video.sprites.judge:SpriteJudge"})
    assert [built.column(dimension) for dimension in built.spec.dimensions][:2] == ["judge/all", "judge/colour"]
    assert build_metric("reward", "level", {"name": "brightness"}).column("brightness") == "level"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("luminance_flikcer", {}, "Unknown metric 'luminance_flikcer'. Did you mean 'luminance_flicker'?"),
        ("blockiness", {"blocks": 8}, "Metric 'blockiness' has no option 'blocks'. Did you mean 'block'?"),
        ("blockiness", {"block": "8"}, "Metric 'blockiness': option 'block' must be int, got '8'"),
        ("reward", {}, "Metric 'reward' needs the option 'name'"),
        ("reward", {"name": "sharpnes"}, "Unknown reward 'sharpnes'. Did you mean 'sharpness'?"),
        ("nowhere.at_all:Metric", {}, "there is no module 'nowhere'"),
        ("own_metric_module:Nothing", {}, "which is not a metric: it needs `spec` and `score"),
        ("rewards.testing:BrightnessReward", {}, "A reward is measured by {name: reward"),
    ],
)
def test_mistake_says_what_fits(own_metric: str, name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(RewardError) as raised:
        build_metric(name, None, options)
    assert message in str(raised.value)


def test_key_changes_with_whatever_can_change_a_value_and_with_nothing_else(own_metric: str, tmp_path: Path) -> None:
    def key(target: str = "Constant", **options: object) -> str:
        return build_metric(f"{own_metric}:{target}", None, options).key

    file = tmp_path / "weights.bin"
    file.write_bytes(b"one")
    first = key(file=str(file))
    elsewhere = tmp_path / "moved" / "other-name.bin"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(b"one")
    assert first == key(file=str(file)) == key(file=str(file), device="cpu") == key(file=str(elsewhere))
    assert build_metric(f"{own_metric}:Constant", "another label", {"file": str(file)}).key == first
    file.write_bytes(b"two")
    keys = [first, key(file=str(file)), key(), key(value=2.0), key("Newer")]
    assert len(set(keys)) == len(keys)


def test_key_sees_files_in_nested_options(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"one")
    options = {"name": "brightness", "options": {}, "unit": "grey"}
    nested: dict[str, Any] = {"name": "x", "options": {"model": str(tmp_path), "list": [str(tmp_path / "weights.bin")]}}
    before = registry.options_sha256(nested)
    assert before == registry.options_sha256(nested) != registry.options_sha256(options)
    placed = {**nested, "options": {**nested["options"], "device": "cpu"}}
    assert registry.options_sha256(placed) == before
    (tmp_path / "weights.bin").write_bytes(b"two")
    assert registry.options_sha256(nested) != before


def test_key_changes_with_a_replaced_weight_file_whose_hash_nobody_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    file = tmp_path / "raft_model" / "models" / "raft-things.pth"
    file.parent.mkdir(parents=True)
    keys = []
    for seed in range(2):
        torch.manual_seed(seed)
        torch.save(Raft().state_dict(), file)
        keys += [build_metric("dynamic_degree", None, {}, device="cpu").key for _ in range(2)]
    assert keys[0] == keys[1] != keys[2] == keys[3]


def test_key_changes_with_the_revision_of_a_cached_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.option_hash.HF_HUB_CACHE", str(tmp_path))
    options = {"name": "pick_score", "options": {"model": "some.body/a-model"}}
    hashes = [registry.options_sha256(options)]
    main = tmp_path / "models--some.body--a-model" / "refs" / "main"
    main.parent.mkdir(parents=True)
    for revision in ("1" * 40, "2" * 40):
        main.write_text(revision)
        hashes.append(registry.options_sha256(options))
    assert len(set(hashes)) == 3 and registry.options_sha256(options) == hashes[-1]


def test_device_of_a_run_reaches_metrics_that_take_one(own_metric: str) -> None:
    asked = build_metric(f"{own_metric}:Constant", None, {}, device="cuda").metric
    assert vars(asked)["device"] == "cuda"
    assert (
        vars(build_metric(f"{own_metric}:Constant", None, {"device": "cpu"}, device="cuda").metric)["device"] == "cpu"
    )


def test_absent_weights_are_told_with_size_and_source() -> None:
    (state,) = weight_states("reward", {"name": "hps_v2_1"})
    assert (state.name, state.size, state.path) == ("hps_v2_1", 1972490005, None)
    assert describe_absent("reward", {"name": "hps_v2_1"}) == (
        " It needs hps_v2_1 (1.97 GB, xswu/HPSv2 on the Hub, not here)."
    )
    names = [state.name for state in weight_states("aesthetic_quality", {})]
    assert names == ["aesthetic_linear", "openai_clip_vit_l_14"]


def test_own_files_take_the_place_of_the_ledgers(tmp_path: Path) -> None:
    assert weight_states("aesthetic_quality", {"weights": "a.pth", "clip_weights": "b.pt"}) == ()
    assert weight_states("reward", {"name": "hps_v2_1", "options": {"weights": "a.pt"}}) == ()
    inner = {"metric": "reward", "options": {"name": "pick_score"}}
    assert [state.name for state in weight_states("drift", inner)] == ["pick_score"]
