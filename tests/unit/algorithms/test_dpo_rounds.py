"""Rounds of a tiny real model: each goes on from the one before; killed anywhere, the same adapter bit for bit."""

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline

from rlhf_video.algorithms import dpo, pair_building
from rlhf_video.algorithms.dpo_rounds import DpoRoundsConfig, RoundsOutcome, train_rounds
from rlhf_video.algorithms.dpo_rounds_dry_run import describe
from rlhf_video.algorithms.pair_building_clips import Records
from rlhf_video.algorithms.pair_building_scores import Scorer
from rlhf_video.backbones import load_backbone
from rlhf_video.errors import AdapterError, ConfigError, DataError
from rlhf_video.lora import adapter_off, load_adapter
from rlhf_video.preferences import PreferencePair, PreferenceStore
from rlhf_video.runtime import create_accelerator, read_metrics
from rlhf_video.settings import load_config
from rlhf_video.testing.runs import adapter_distance, adapter_of, is_trained, write_config

Recipe = dict[str, Any]


@pytest.fixture(autouse=True, scope="module")
def quick_collection() -> Iterator[None]:
    """Keep the libraries' own objects out of the collections after each model: they take most of these tests' time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def rounds_recipe(pairs_recipe: Recipe, dpo_recipe: Recipe, tmp_path: Path) -> Recipe:
    """Return plain config values of two rounds: three clips of four prompts, the brighter one wins, three steps."""
    backbone = dpo_recipe["backbone"]
    pairs = {name: value for name, value in pairs_recipe.items() if name not in ("backbone", "evaluation")}
    train = {name: value for name, value in dpo_recipe.items() if name not in ("backbone", "pairs")}
    train["prompts"]["test"] = str(tmp_path / "test.txt")
    train |= {"num_steps": 3, "validation": {"every": 3, "clips_per_prompt": 2, "batch": 8}, "checkpoint": {"every": 1}}
    train["guards"] = {"enabled": False}
    pairs["sampling"] = dict(train["sampling"])
    return {"backbone": backbone, "rounds": 2, "pairs": pairs, "train": train}


def config_of(recipe: Recipe, folder: Path, **changes: object) -> DpoRoundsConfig:
    return load_config(DpoRoundsConfig, write_config(recipe, folder, **changes))


def run(recipe: Recipe, folder: Path, *, resume: bool = False, **changes: object) -> RoundsOutcome:
    return train_rounds(config_of(recipe, folder, **changes), accelerator=create_accelerator(), resume=resume)


def pairs_of(folder: Path, number: int) -> tuple[PreferencePair, ...]:
    return PreferenceStore(folder / f"round-{number}" / "pairs" / "train.jsonl").read()


def seeds_of(pairs: tuple[PreferencePair, ...]) -> set[int | None]:
    return {clip.seed for pair in pairs for clip in pair.clips}


def check_plain_diffusers(model: str, folder: Path) -> None:
    """Check that an adapter is one LoRA of the base: plain diffusers loads it and computes the same."""
    backbone, pipeline = load_backbone(model), WanPipeline.from_pretrained(model)
    load_adapter(backbone, folder)
    pipeline.load_lora_weights(folder)
    generator = torch.Generator().manual_seed(0)
    latents, text = torch.randn(1, 4, 2, 2, 2, generator=generator), torch.randn(1, 4, 16, generator=generator)
    inputs = {"timestep": torch.tensor([700]), "encoder_hidden_states": text, "return_dict": False}
    transformer = backbone.transformers["transformer"]
    with torch.no_grad():
        ours, theirs = transformer(latents, **inputs)[0], pipeline.transformer(latents, **inputs)[0]
        with adapter_off(backbone):
            base = transformer(latents, **inputs)[0]
    assert torch.equal(ours, theirs)
    assert (ours - base).abs().max() > 1e-3


def test_two_rounds_end_to_end(rounds_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = run(rounds_recipe, tmp_path / "a")
    first, second = (tmp_path / "a" / f"round-{number}" for number in (1, 2))
    assert outcome.last.adapter == second / "run" / "adapter"
    check_plain_diffusers(rounds_recipe["backbone"], outcome.last.adapter)
    assert is_trained(adapter_of(first / "run")) and adapter_distance(first / "run", second / "run") > 1e-4
    # the second round's clips are made by the first round's adapter, with other noise
    made = [pairs_of(tmp_path / "a", number) for number in (1, 2)]
    assert {clip.adapter for pair in made[0] for clip in pair.clips} == {None}
    assert {clip.adapter for pair in made[1] for clip in pair.clips} == {str(first / "run" / "adapter")}
    assert not seeds_of(made[0]) & seeds_of(made[1])
    assert {pair.prompt for pair in made[0]} == {pair.prompt for pair in made[1]}
    # it starts where the first one ended: the policy is the reference, so the first margin is zero
    assert read_metrics(second / "run")[0]["dpo/margin"] == 0.0
    # the test prompts are measured once, at the end
    cards = [json.loads((folder / "run" / "card.json").read_text()) for folder in (first, second)]
    assert [card["measured_on"] for card in cards] == ["validation prompts", "unseen test prompts"]
    assert [set(card["prompts"]) for card in cards] == [{"train", "validation"}, {"train", "validation", "test"}]
    # both rounds are compared with the same clips of the base
    rounds = json.loads(outcome.summary.read_text())["rounds"]
    base, adapter = (
        [entry["validation"][f"brightness/brightness/{side}"] for entry in rounds] for side in ("base", "adapter")
    )
    assert base[0] == base[1] and len({*base, *adapter}) == 3
    assert [entry["pairs"] for entry in rounds] == [len(pairs) for pairs in made]
    (row,) = (line for line in outcome.table.splitlines() if line.startswith("| brightness/brightness"))
    assert all(f"{value:.3f}" in row for value in (base[0], *adapter))
    # finished rounds build and load nothing
    monkeypatch.setattr("rlhf_video.algorithms.dpo_rounds.build", None)
    monkeypatch.setattr("rlhf_video.algorithms.dpo.open_run", None)
    assert run(rounds_recipe, tmp_path / "a", resume=True) == outcome


class _Killed(BaseException):
    """Stands for the kill of the process."""


@contextmanager
def killed_at(owner: Any, name: str, call: int) -> Iterator[None]:
    """Let the process die at the given call of something, counted from here on."""
    original, calls = getattr(owner, name), iter(range(1, 1000))

    def counted(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            raise _Killed
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, counted)
        with pytest.raises(_Killed):
            yield


def test_going_on_after_a_kill_anywhere_gives_the_same_bits(rounds_recipe: Recipe, tmp_path: Path) -> None:
    rounds_recipe["carry_pairs"] = True
    straight = run(rounds_recipe, tmp_path / "straight")
    # four prompts of three clips are three batches a round, three steps a round
    kills = [
        (Records, "write", 2),  # clips of the first round
        (dpo, "train_step", 3),
        (Records, "write", 3),  # counted anew in each call: clips of the second round
        (Scorer, "_score", 3),
        (pair_building, "write_pairs", 1),
        (dpo, "train_step", 2),
        (dpo, "dpo_story", 1),  # trained and saved, not yet measured
    ]
    for owner, name, call in kills:
        with killed_at(owner, name, call):
            run(rounds_recipe, tmp_path / "killed", resume=True)
    resumed = run(rounds_recipe, tmp_path / "killed", resume=True)
    ours, theirs = (adapter_of(tmp_path / name / "round-2" / "run") for name in ("straight", "killed"))
    assert is_trained(ours) and ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert resumed.table == straight.table and resumed.last.table == straight.last.table


def test_carried_pairs_and_given_first_pairs(rounds_recipe: Recipe, tmp_path: Path) -> None:
    run(rounds_recipe, tmp_path / "a", rounds=1)
    given = tmp_path / "a" / "round-1" / "pairs"
    run(rounds_recipe, tmp_path / "b", first_pairs=str(given), carry_pairs=True, reference="base")
    assert not (tmp_path / "b" / "round-1" / "pairs").exists()
    assert adapter_distance(tmp_path / "a" / "round-1" / "run", tmp_path / "b" / "round-1" / "run") == 0
    store = PreferenceStore(tmp_path / "b" / "round-2" / "train.jsonl")
    carried = store.read()
    store.check_clips(carried)
    assert len(carried) == len(pairs_of(tmp_path / "a", 1)) + len(pairs_of(tmp_path / "b", 2))
    with pytest.raises(ConfigError, match=r"first_pairs=.* 1 prompts that pairs\.split"):  # another prompt held out
        run(rounds_recipe, tmp_path / "c", first_pairs=str(given), pairs__split={"validation_share": 0.4, "seed": 3})
    # against the base the margin does not start at zero
    assert read_metrics(tmp_path / "b" / "round-2" / "run")[0]["dpo/margin"] != 0.0


def test_rotated_prompts_are_used_once(rounds_recipe: Recipe, tmp_path: Path) -> None:
    rounds_recipe["pairs"]["split"] = {"validation_share": 0.0}
    run(rounds_recipe, tmp_path / "a", prompts="rotate", train__num_steps=1)
    used = [{pair.prompt for pair in pairs_of(tmp_path / "a", number)} for number in (1, 2)]
    assert [len(prompts) for prompts in used] == [2, 2] and not used[0] & used[1]


def test_a_dry_run_names_rounds_seeds_and_shapes(rounds_recipe: Recipe, tmp_path: Path) -> None:
    config = config_of(rounds_recipe, tmp_path / "a", prompts="rotate")
    text = describe(config)
    for part in ("generated: 2 prompts x 3", f"seed of the clips {config.pairs_of(1).seed}", "learns from", "GiB"):
        assert part in text
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"rounds": 0}, ConfigError, "rounds=0 must be at least 1"),
        ({"pairs__seed": 3}, ConfigError, "pairs.seed is decided by the rounds"),
        ({"train__reference": {"kind": "merged"}}, ConfigError, "train.reference.kind is decided by the rounds"),
        ({"train__num_stebs": 3}, ConfigError, "Did you mean 'train.num_steps'"),
        ({"train__reference": 3}, ConfigError, "'train.reference' expects"),
        ({"pairs__source": "votes"}, ConfigError, "makes no clips"),
        ({"rounds": 5, "prompts": "rotate"}, ConfigError, "4 prompts for 5 rounds"),
        ({"start_adapter": "nowhere"}, AdapterError, "nowhere"),
        ({"first_pairs": "nowhere"}, DataError, "nowhere"),
    ],
)
def test_mistakes_are_named_before_a_model_runs(
    rounds_recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: Recipe,
    error: type[Exception],
    message: str,
) -> None:
    def not_yet(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("rlhf_video.algorithms.pair_building_model.load_backbone", not_yet)
    with pytest.raises(error, match=message):
        run(rounds_recipe, tmp_path / "a", **changes)


def test_a_test_prompt_that_validates_is_refused_before_the_first_round(rounds_recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text((tmp_path / "validation.txt").read_text())
    with pytest.raises(DataError, match=r"prompts\.test shares 4 prompts"):
        run(rounds_recipe, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_other_settings_and_a_used_folder_are_refused(rounds_recipe: Recipe, tmp_path: Path) -> None:
    with killed_at(Records, "write", 1):
        run(rounds_recipe, tmp_path / "a")
    with pytest.raises(ConfigError, match="--resume"):
        run(rounds_recipe, tmp_path / "a")
    with pytest.raises(ConfigError, match=r"changed: train\.num_steps"):
        run(rounds_recipe, tmp_path / "a", resume=True, train__num_steps=4)
