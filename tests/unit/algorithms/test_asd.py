"""Distillation on a tiny real model: every role on one base, every equivalence as elsewhere."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_video.algorithms import asd, causal_warmup
from rlhf_video.algorithms.asd_config import AsdConfig
from rlhf_video.algorithms.asd_critics import Adversary, FakeScore
from rlhf_video.algorithms.asd_draws import Draws, better_steps
from rlhf_video.algorithms.asd_setup import AsdParts, open_parts, open_world
from rlhf_video.algorithms.learner import StepMetrics
from rlhf_video.algorithms.outcome import Outcome
from rlhf_video.backbones.causal_recipe import RECIPE_KEY, CausalConfig, CausalRecipe
from rlhf_video.data import write_lossless
from rlhf_video.errors import AdapterError, ConfigError, DataError
from rlhf_video.lora import adapter_state, read_adapter_metadata
from rlhf_video.lora.files import adapter_file, read_adapter_folder, save_state
from rlhf_video.lora.roles import FAKE
from rlhf_video.runtime import Distribution, create_accelerator, read_metrics
from rlhf_video.settings import load_config
from rlhf_video.testing.runs import (
    adapter_distance,
    adapter_of,
    is_trained,
    same_checkpoint,
    timeless_metrics,
    write_config,
)

Recipe = dict[str, Any]
HEADS = {"width": 8, "num_heads": 2, "num_registers": 1}


@pytest.fixture
def distil(recipe: Recipe) -> Recipe:
    """Return a run of two steps: 9 frames are 3 latent frames, chunks of 1, D on."""
    for name in ("held_out", "estimator"):
        recipe.pop(name, None)
    prompts = dict(recipe["prompts"])
    kept = {name: recipe[name] for name in ("backbone", "lora", "num_steps") if name in recipe}
    return kept | {
        "prompts": prompts,
        "rewards": [{"name": "brightness"}],
        "sampling": {"num_frames": 9, "height": 16, "width": 16, "num_steps": 3, "guidance": 2.0},
        "causal": {"chunk_frames": 1},
        "steps": {"trained": [1, 2], "first_chunk": 3, "validated": 1},
        "fake": {"rank": 4, "learning_rate": 0.01, "updates": 2},
        "adversarial": {"weight": 1.0, "learning_rate": 0.01, "discriminator": HEADS},
        "matching": {"guidance": 2.0},
        "optim": {"learning_rate": 0.01, "max_grad_norm": 1.0},
        "batch": {"global_clips": 4},
        "validation": {"every": 2, "clips_per_prompt": 1, "batch": 4},
        "checkpoint": {"every": 1},
        "gradient_checkpointing": False,
    }


def run(recipe: Recipe, folder: Path, *, resume: bool = False, **changes: object) -> Outcome:
    config = load_config(AsdConfig, write_config(recipe, folder, **changes))
    train = asd.train if config.warmup is None else causal_warmup.train
    return train(config, accelerator=create_accelerator(), resume=resume)


def open_tiny(recipe: Recipe, folder: Path, **changes: object) -> tuple[AsdConfig, AsdParts]:
    config = load_config(AsdConfig, write_config(recipe, folder, **changes))
    return config, open_parts(config, open_world(config, Distribution(create_accelerator())))


def given_clips(folder: Path, *, num_frames: int) -> str:
    """Write four clips that get brighter, and their list; return its path."""
    rising = torch.linspace(0.2, 0.8, num_frames).view(-1, 1, 1, 1)
    lines = []
    for number, colour in enumerate(("red", "blue", "teal", "gray")):
        noise = torch.rand(num_frames, 3, 16, 16, generator=torch.Generator().manual_seed(number))
        write_lossless(folder / f"{number}.mkv", rising + 0.2 * noise, 8)
        lines.append(json.dumps({"file": f"{number}.mkv", "prompt": f"a {colour} circle, brighter and brighter"}))
    (folder / "clips.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder / "clips.jsonl")


def test_a_run_trains_and_reports_every_number_of_steps(distil: Recipe, tmp_path: Path) -> None:
    outcome = run(distil, tmp_path / "a")
    assert is_trained(adapter_of(tmp_path / "a"))
    for name in ("2 steps, first chunk 3", "2 steps", "1 step, first chunk 3", "1 step", "teacher cut to 1 step"):
        assert f"against: {name}:" in outcome.table
    keys = {key for line in read_metrics(tmp_path / "a") for key in line}
    wanted = {"loss/matching", "loss/adversarial", "loss/fake_score", "loss/discriminator", "adversarial/logit_gap"}
    assert (
        wanted
        | {"grad/matching", "grad/adversarial_ratio", "steps/n", "result/1_step/brightness/brightness/difference"}
        <= keys
    )
    assert json.loads((tmp_path / "a" / "card.json").read_text())["method"] == "asd"
    recipe = CausalRecipe.from_metadata(read_adapter_metadata(outcome.adapter))
    assert recipe is not None
    assert (recipe.steps, recipe.first_chunk_steps, recipe.layout.chunk_frames) == ((1, 2), 3, 1)


def test_prefix_has_one_list_of_levels_with_help_for_the_first_chunk_and_without(
    distil: Recipe, tmp_path: Path
) -> None:
    config, parts = open_tiny(distil, tmp_path / "a", steps__schedule="prefix")
    with_help, without = (config.steps.plan(2, shift=5.0, enhanced=enhanced) for enhanced in (True, False))
    assert with_help.later == without.later == with_help.first[:2]
    recorded = CausalRecipe.from_json(parts.student.recipe()[RECIPE_KEY])
    assert recorded.longest == 3
    plain = CausalConfig(first_chunk_steps=1).over(recorded, shift=5.0)
    assert plain.plan(2).later == recorded.plan(2).later
    with pytest.raises(ConfigError, match="list has 3 noise levels"):
        CausalConfig(first_chunk_steps=8).over(recorded, shift=5.0)


def test_teacher_forcing_records_no_step_counts(distil: Recipe, tmp_path: Path) -> None:
    for kind, steps in (("teacher_forcing", ()), ("trajectory", (1, 2))):
        _, parts = open_tiny(distil, tmp_path / kind, warmup={"kind": kind})
        assert CausalRecipe.from_json(parts.student.recipe()[RECIPE_KEY]).steps == steps


def test_settings_that_a_cache_without_its_own_call_would_ignore_are_refused(distil: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is for the call that reads"):
        open_tiny(distil, tmp_path / "a", rollout={"recache": False, "context_noise": 0.3})
    longer = {"clips": given_clips(tmp_path, num_frames=17), "num_frames": 17}
    causal = {"chunk_frames": 1, "window_frames": 3, "sink_frames": 1}
    with pytest.raises(ConfigError, match="continuation reads finished chunks"):
        open_tiny(distil, tmp_path / "b", rollout={"recache": False}, continuation=longer, causal=causal)


def test_cards_name_the_attention_plan_of_a_causal_student(distil: Recipe, tmp_path: Path) -> None:
    sampling = {**distil["sampling"], "height": 32, "width": 32}
    outcome = run(distil, tmp_path / "a", attention={"preset": "hybrid_middle"}, num_steps=1, sampling=sampling)
    for file in (outcome.adapter / "README.md", outcome.report):
        assert "layers 1 band" in file.read_text()


def test_weight_zero_is_plain_self_forcing_bit_for_bit(distil: Recipe, tmp_path: Path) -> None:
    run(distil, tmp_path / "off", adversarial__weight=0.0)
    other = {"weight": 0.0, "real": "teacher", "penalty": 3.0, "learning_rate": 0.5, "features": "fake"}
    run(distil, tmp_path / "other", adversarial=other)
    assert adapter_distance(tmp_path / "off", tmp_path / "other") == 0.0
    run(distil, tmp_path / "on")
    assert adapter_distance(tmp_path / "off", tmp_path / "on") > 0.0


@pytest.mark.parametrize("real", ["student", "teacher", "data"])
def test_resumed_equals_straight(distil: Recipe, tmp_path: Path, real: str) -> None:
    distil["adversarial"]["real"] = real
    if real == "data":
        distil["adversarial"]["clips"] = given_clips(tmp_path / "clips", num_frames=9)
        distil["continuation"] = {"clips": given_clips(tmp_path / "long", num_frames=17), "num_frames": 17}
    run(distil, tmp_path / "straight")
    run(distil, tmp_path / "stopped", num_steps=1, validation__every=2)
    run(distil, tmp_path / "stopped", resume=True)
    assert same_checkpoint(tmp_path / "straight", tmp_path / "stopped", 2)


def test_accumulation_and_checkpointing_change_nothing(distil: Recipe, tmp_path: Path) -> None:
    run(distil, tmp_path / "one")
    run(distil, tmp_path / "pieces", batch__accumulation=2)
    run(distil, tmp_path / "recomputed", gradient_checkpointing=True)
    assert adapter_distance(tmp_path / "one", tmp_path / "pieces") < 1e-5
    assert adapter_distance(tmp_path / "one", tmp_path / "recomputed") < 1e-5
    first, second = (timeless_metrics(tmp_path / name)[-2] for name in ("one", "pieces"))
    assert first.keys() == second.keys()


def test_critics_train_only_themselves_and_the_student_only_itself(distil: Recipe, tmp_path: Path) -> None:
    config, parts = open_tiny(distil, tmp_path / "a")
    (transformer,) = parts.backbone.transformers.values()
    base = {name: value.clone() for name, value in transformer.named_parameters() if "lora_" not in name}
    assert parts.adversary is not None

    def states() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        heads = {name: value.clone() for name, value in parts.adversary.heads.state_dict().items()}  # type: ignore[union-attr]
        return adapter_state(parts.backbone), adapter_state(parts.backbone, name=FAKE), heads

    def changed(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
        return any(not torch.equal(first[name], second[name]) for name in first)

    step = next(step for step in range(20) if Draws(config, parts, step, 0).better is not None)
    before = states()
    asd.update_critics(parts, Draws(config, parts, step, 0), StepMetrics())
    after = states()
    assert [changed(a, b) for a, b in zip(before, after, strict=True)] == [False, True, True]
    asd.update_student(config, parts, Draws(config, parts, step, None), StepMetrics())
    fake = [value for name, value in transformer.named_parameters() if f".{FAKE}." in name]
    assert all(value.grad is None for value in fake), "the student's losses leave no gradient in the fake score"
    assert all(value.grad is None for value in parts.adversary.heads.parameters())
    parts.learner.step(0)
    assert [changed(a, b) for a, b in zip(after, states(), strict=True)] == [True, False, False]
    now = dict(transformer.named_parameters())
    assert all(torch.equal(value, now[name]) for name, value in base.items())


def test_the_number_of_steps_is_drawn_once_for_critics_and_student(distil: Recipe, tmp_path: Path) -> None:
    config, parts = open_tiny(distil, tmp_path / "a", adversarial__weight=0.0)
    drawn = [Draws(config, parts, step, 0).num_steps for step in range(40)]
    assert drawn == [Draws(config, parts, step, None).num_steps for step in range(40)]
    assert set(drawn) == {1, 2}


def test_what_plays_real_has_more_steps_and_no_graph(distil: Recipe, tmp_path: Path) -> None:
    assert [better_steps((1, 2, 4), count) for count in (1, 2, 4)] == [2, 4, None]
    config, parts = open_tiny(distil, tmp_path / "a")
    step = next(step for step in range(20) if Draws(config, parts, step, None).num_steps == 1)
    draws = Draws(config, parts, step, None)
    (batch,) = draws.batches
    sample, real = draws.roll_out(batch, draws.num_steps, grad=True), draws.real(batch)
    assert real is not None
    assert sample.requires_grad
    assert not real.requires_grad
    assert torch.equal(draws.roll_out(batch, draws.num_steps).detach(), sample.detach()), "the same draw, without graph"


def test_levels_and_noises_are_shared_as_the_config_says(distil: Recipe, tmp_path: Path) -> None:
    for shares_level, shares_noise in ((True, True), (True, False), (False, False)):
        distil["adversarial"] |= {"shares_level": shares_level, "shares_noise": shares_noise}
        config, parts = open_tiny(distil, tmp_path / f"{shares_level}{shares_noise}")
        draws = Draws(config, parts, 0, 0)
        (batch,) = draws.batches
        zeros = torch.zeros(4, 4, 3, 2, 2)
        (real, real_sigma), (fake, sigma) = draws.noised(batch, zeros, zeros)
        assert torch.equal(real_sigma, sigma) is shares_level
        assert torch.equal(real, fake) is (shares_level and shares_noise)


def test_a_level_does_not_come_from_its_noise(distil: Recipe, tmp_path: Path) -> None:
    config, parts = open_tiny(distil, tmp_path / "a")
    pairs = []
    for step in range(300):
        draws = Draws(config, parts, step, 0)
        (batch,) = draws.batches
        sigma = draws.levels(batch, "fake score").double()
        # torch makes two normal numbers of two uniform ones, eight places apart; the first one is -2 ln(1 - u)
        noise = draws.noise(batch, "fake score").flatten(1).double()
        pairs.append(torch.stack([sigma, noise[:, 0].square() + noise[:, 8].square()]))
    assert torch.corrcoef(torch.cat(pairs, dim=1))[0, 1].abs() < 0.15  # 0.9 from one stream


@pytest.mark.parametrize("critic", ["fake", "adversarial"])
def test_a_critic_that_is_no_number_ends_the_run(
    distil: Recipe, tmp_path: Path, critic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # its estimates would be no numbers from then on, and the student would learn nothing without a word
    owner, method = {"fake": (FakeScore, "errors"), "adversarial": (Adversary, "losses")}[critic]
    intact = getattr(owner, method)

    def broken(*arguments: Any) -> Any:
        found = intact(*arguments)
        return found * torch.inf if critic == "fake" else found | {"loss": found["loss"] * torch.inf}

    monkeypatch.setattr(owner, method, broken)
    with pytest.raises(ConfigError, match=rf"critic '{critic}' is (nan|inf): lower {critic}\.learning_rate"):
        run(distil, tmp_path / "a")


def test_the_teacher_of_matching_is_that_of_validation(
    distil: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distil["sampling"] |= {"negative_prompt": "blurry and ugly"}
    config, parts = open_tiny(distil, tmp_path / "a")
    unwanted = parts.backbone.encode_prompts(["x", "y", "z", "w"][:4], "blurry and ugly").negative_embeds
    seen, velocity = [], parts.backbone.velocity

    def watched(*arguments: Any, **named: Any) -> torch.Tensor:
        if named.get("guidance", 1.0) != 1.0:
            seen.append(arguments[2].negative_embeds)
        return velocity(*arguments, **named)

    monkeypatch.setattr(parts.backbone, "velocity", watched)
    asd.update_student(config, parts, Draws(config, parts, 0, None), StepMetrics())
    (used,) = seen
    torch.testing.assert_close(used, unwanted)


def test_a_reward_joins_the_losses(distil: Recipe, tmp_path: Path) -> None:
    statistics = {"mean": 0.5, "std": 0.1, "provenance": "test"}
    reward = {"weight": 0.5, "terms": [{"name": "brightness", "normalisation": statistics}]}
    run(distil, tmp_path / "with", reward=reward)
    run(distil, tmp_path / "without")
    assert adapter_distance(tmp_path / "with", tmp_path / "without") > 0.0
    keys = {key for line in read_metrics(tmp_path / "with") for key in line}
    assert {"loss/reward", "grad/reward"} <= keys


@pytest.mark.parametrize("kind", ["trajectory", "teacher_forcing"])
def test_warm_up_learns_and_starts_a_distillation(distil: Recipe, tmp_path: Path, kind: str) -> None:
    changes: Recipe = {"warmup": {"kind": kind, "context_noise": 0.1}, "adversarial__weight": 0.0}
    optim = {"learning_rate": 0.02, "max_grad_norm": 1.0, "beta1": 0.9}
    start = run(distil, tmp_path / "warm", num_steps=30, validation__every=30, optim=optim, **changes)
    losses = [line["loss/warmup"] for line in read_metrics(tmp_path / "warm") if "loss/warmup" in line]
    assert sum(losses[-5:]) < sum(losses[:5])  # type: ignore[arg-type]
    assert CausalRecipe.from_metadata(read_adapter_metadata(start.adapter)) is not None
    run(distil, tmp_path / "next", init=str(start.adapter))
    assert is_trained(adapter_of(tmp_path / "next"))


@pytest.mark.parametrize("window", [None, 2])
def test_a_warm_up_learns_to_go_on(distil: Recipe, tmp_path: Path, window: int | None) -> None:
    distil["causal"] |= {"window_frames": window, "sink_frames": 0 if window is None else 1}
    distil["sampling"] |= {"num_frames": 5}
    long = {"clips": given_clips(tmp_path / "clips", num_frames=17), "num_frames": 17}
    changes: Recipe = {"warmup": {}, "continuation": long, "num_steps": 30, "validation__every": 30}
    optim = {"learning_rate": 0.02, "max_grad_norm": 1.0, "beta1": 0.9}
    run(distil, tmp_path / "a", optim=optim, **changes)
    card = (tmp_path / "a" / "adapter" / "README.md").read_text()
    assert json.loads((tmp_path / "a" / "card.json").read_text())["method"] == "causal_warmup"
    assert "causal warm-up" in card
    assert "clips of 17 frames" in card
    assert "no clips" not in card
    losses = [line["loss/continuation"] for line in read_metrics(tmp_path / "a") if "loss/continuation" in line]
    assert sum(losses[-5:]) < sum(losses[:5])  # type: ignore[arg-type]


def test_going_on_is_the_same_in_pieces_and_recomputed(distil: Recipe, tmp_path: Path) -> None:
    distil["continuation"] = {"clips": given_clips(tmp_path / "clips", num_frames=17), "num_frames": 17}
    distil["num_steps"] = 1
    run(distil, tmp_path / "one")
    run(distil, tmp_path / "pieces", batch__accumulation=2)
    run(distil, tmp_path / "recomputed", gradient_checkpointing=True)
    run(distil, tmp_path / "without", continuation=None)
    assert adapter_distance(tmp_path / "one", tmp_path / "pieces") < 1e-5
    assert adapter_distance(tmp_path / "one", tmp_path / "recomputed") < 1e-5
    assert adapter_distance(tmp_path / "one", tmp_path / "without") > 1e-4


def test_only_what_lies_beyond_the_run_is_learned_from_longer_clips(distil: Recipe, tmp_path: Path) -> None:
    distil["continuation"] = {"clips": given_clips(tmp_path / "clips", num_frames=17), "num_frames": 17}
    _, parts = open_tiny(distil, tmp_path / "a")
    assert parts.continuation is not None
    calls = []

    def count(_: object, __: object, output: torch.Tensor | tuple[torch.Tensor]) -> None:
        calls.append(torch.is_grad_enabled())

    (transformer,) = parts.backbone.transformers.values()
    transformer.register_forward_hook(count)
    errors = parts.continuation.errors([0, 1], [0, 1], step=0)
    assert errors.shape == (2,)
    # five chunks of one frame: three are the run's own, two are learned, and all but the last are read into the cache
    assert (calls.count(True), calls.count(False)) == (2, 4)


def test_going_on_begins_in_the_chunk_that_leaves_the_run(distil: Recipe, tmp_path: Path) -> None:
    distil["causal"], distil["steps"]["first_chunk"] = {"chunk_frames": 2}, None
    distil["continuation"] = {"clips": given_clips(tmp_path / "clips", num_frames=13), "num_frames": 13}
    _, parts = open_tiny(distil, tmp_path / "a")  # 3 of 4 latent frames are the run's own, chunks 0-1 and 2-3
    assert parts.continuation is not None
    assert parts.continuation.errors([0, 1], [0, 1], step=0).shape == (2,)
    recipe = CausalRecipe.from_metadata(parts.student.recipe())
    assert recipe is not None
    assert recipe.num_latent_frames == 4


def test_a_start_that_is_not_causal_is_refused_and_one_of_other_chunks_warned_of(
    distil: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = run(distil, tmp_path / "start", num_steps=1).adapter
    open_tiny(distil, tmp_path / "other", init=str(start), causal={"chunk_frames": 3})
    assert "chunks of 1 latent frames" in caplog.text
    state, metadata = read_adapter_folder(start)
    plain = {name: value for name, value in metadata.items() if name != RECIPE_KEY}
    save_state(tmp_path / "plain" / adapter_file(start).name, state, plain)
    with pytest.raises(AdapterError, match="was not trained causally"):
        run(distil, tmp_path / "next", init=str(tmp_path / "plain"))
    open_tiny(distil, tmp_path / "warm", init=str(start), warmup={})


def test_the_teacher_makes_no_clip_before_all_else_is_right(distil: Recipe, tmp_path: Path) -> None:
    window = {"chunk_frames": 1, "window_frames": 2, "sink_frames": 1}
    with pytest.raises(ConfigError, match=r"longer than causal\.window_frames=2"):
        run(distil, tmp_path / "warm", warmup={}, causal=window)
    distil["adversarial"] |= {"real": "teacher", "discriminator": HEADS | {"blocks": [9]}}
    with pytest.raises(ConfigError, match="this model has blocks"):
        run(distil, tmp_path / "asd")
    assert not list(tmp_path.rglob("generated/*"))


def test_an_adapter_of_a_larger_rank_is_refused(distil: Recipe, tmp_path: Path) -> None:
    start = run(distil, tmp_path / "start", num_steps=1)
    with pytest.raises(AdapterError, match=r"rank 4 does not fit lora.rank=2"):
        run(distil, tmp_path / "next", init=str(start.adapter), lora={"rank": 2, "alpha": 2.0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps__trained": []}, "different numbers"),
        ({"steps__validated": 3}, r"not one of steps.trained"),
        ({"steps": {"trained": [2], "validated": 2}}, "has one number alone"),
        ({"steps__exit": "random"}, r"set steps\.exit=last"),
        ({"matching__min_sigma": 0.99}, "must rise within"),
        ({"matching__weight": 0.0, "adversarial__weight": 0.0}, "Nothing would be learned"),
        ({"causal": {"chunk_frames": 2, "window_frames": 1}}, "shorter than a chunk"),
        ({"causal": {"chunk_frames": 7}}, "shorter than a chunk of 7"),
        ({"batch__token_budget": 100}, "token_budget"),
        ({"reward__weight": 1.0}, "names no reward"),
        ({"reward": {"weight": 1.0, "terms": [{"name": "brightness"}]}}, "lack normalisation"),
        ({"adversarial__discriminator__blocks": [9]}, "this model has blocks"),
        ({"init": "nowhere"}, "nowhere"),
        ({"adversarial__real": "data"}, r"adversarial\.clips goes with"),
        ({"adversarial__clips": "c.jsonl"}, r"adversarial\.clips goes with"),
        ({"continuation": {"clips": "c.jsonl", "num_frames": 9}}, r"must exceed sampling\.num_frames=9"),
        ({"continuation": {"clips": "nowhere.jsonl", "num_frames": 17}}, r"continuation\.clips.*nowhere\.jsonl"),
        ({"continuation": {"clips": "c", "num_frames": 17, "own_past_share": 1.5}}, r"lie in \[0, 1\]"),
    ],
)
def test_mistakes_are_errors_before_training(distil: Recipe, tmp_path: Path, changes: Recipe, message: str) -> None:
    with pytest.raises((ConfigError, AdapterError, DataError), match=message):
        run(distil, tmp_path / "a", **changes)
    assert not list((tmp_path / "a").glob("checkpoints/*"))
