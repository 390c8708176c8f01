"""Reward models on tiny real classes: they learn, their folder scores as trained, resuming changes nothing."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import CLIPModel, XCLIPModel

from rewards import registry
from rewards.errors import RewardError
from rlhf_video.algorithms.reward_model import train
from rlhf_video.algorithms.reward_model_config import RewardModelConfig
from rlhf_video.algorithms.reward_model_data import ClipReader, Pairs, load_parts
from rlhf_video.algorithms.reward_model_dry_run import describe
from rlhf_video.algorithms.reward_model_learner import Learner
from rlhf_video.algorithms.reward_model_outcome import Outcome
from rlhf_video.algorithms.reward_model_scores import differences
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.preferences import PreferenceStore
from rlhf_video.runtime import Distribution, create_accelerator, read_metrics
from rlhf_video.settings import load_config
from rlhf_video.testing.tiny_pairs import tiny_clip, tiny_pairs, tiny_xclip

Recipe = dict[str, Any]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reward-model")
    tiny_clip(root / "clip")
    tiny_xclip(root / "xclip")
    tiny_pairs(root / "pairs.jsonl", every_tie=9)
    return root


def config_of(world: Path, folder: Path, **changes: object) -> RewardModelConfig:
    values: Recipe = {
        "reward": "clip_preference",
        "options": {"model": str(world / "clip")},
        "pairs": {"train": str(world / "pairs.jsonl"), "validation_share": 0.3},
        "trains": "whole",
        "loss": {"temperature": 4.0},
        "optim": {"learning_rate": 0.01},
        "batch": {"global_pairs": 8},
        "num_steps": 4,
        "validation": {"every": 2},
        "checkpoint_every": 2,
        "output_dir": str(folder),
    }
    values = copy.deepcopy(values)
    for dotted, value in changes.items():
        target, parts = values, dotted.split("__")
        for part in parts[:-1]:
            target = target.setdefault(part, {})
        target[parts[-1]] = value
    file = folder.parent / f"{folder.name}.yaml"
    file.write_text(yaml.safe_dump(values))
    return load_config(RewardModelConfig, file)


def run(world: Path, folder: Path, *, resume: bool = False, **changes: object) -> Outcome:
    return train(config_of(world, folder, **changes), accelerator=create_accelerator(), resume=resume)


def untimed(folder: Path) -> list[dict[str, float | None]]:
    lines = read_metrics(folder)
    return [{k: v for k, v in line.items() if not k.startswith(("time/", "memory/"))} for line in lines]


def weights(outcome: Outcome) -> dict[str, torch.Tensor]:
    return {name: v for file in sorted(outcome.folder.glob("*.safetensors")) for name, v in load_file(file).items()}


KINDS = [
    pytest.param("clip_preference", "clip", "whole", {}, id="clip-whole"),
    pytest.param("video_text", "xclip", "lora", {"lora__rank": 4}, id="xclip-lora"),
    pytest.param(
        "preference_head", "clip", "head",
        {"options__hidden": 64, "options__uncertainty": True, "loss__uncertainty": "closed_form",
         "loss__temperature": 1.0, "optim__learning_rate": 0.03, "num_steps": 200, "optim__decay": "cosine"},
        id="head-with-uncertainty",
    ),
    pytest.param("preference_head", "xclip", "lora", {"lora__rank": 2, "loss__temperature": 1.0}, id="xclip-head-lora"),
]  # fmt: skip


@pytest.mark.parametrize(("reward", "start", "trains", "extra"), KINDS)
def test_a_tiny_set_is_learned_by_heart_and_the_folder_scores_as_trained(
    world: Path, tmp_path: Path, reward: str, start: str, trains: str, extra: dict[str, object]
) -> None:
    settings = {
        "num_steps": 60, "optim__decay": "none", "loss__model": "rao_kupper", "batch__global_pairs": 16,
        "validation__every": 1000, "checkpoint_every": 1000, **extra,
    }  # fmt: skip
    config = config_of(
        world, tmp_path / "run", reward=reward, options__model=str(world / start), trains=trains, **settings
    )
    accelerator = create_accelerator()
    outcome = train(config, accelerator=accelerator)
    parts, reader = load_parts(config), ClipReader(0.1)
    learner = Learner(config, Distribution(accelerator))
    state = {p.stem: torch.load(p) for p in (tmp_path / f"run/checkpoints/step-{config.num_steps:06d}").glob("*.pt")}
    learner.load_state(state)
    with learner.ema.swapped():
        trained = differences(learner.reward, parts.train, reader, learner.distribution, batch=7)
    options = {**config.options, "model": str(outcome.folder)}
    published = registry.build(reward, **options)
    assert not any(p.requires_grad for p in published.model.parameters())  # type: ignore[attr-defined]
    again = differences(published, parts.train, reader, learner.distribution, batch=50)  # type: ignore[arg-type]
    torch.testing.assert_close(torch.from_numpy(again), torch.from_numpy(trained), rtol=1e-4, atol=1e-5)
    decided = [i for i, pair in enumerate(parts.train.pairs) if pair.winner() is not None]
    right = [(again[i, 0] > 0) == (parts.train.pairs[i].winner() == "A") for i in decided]
    assert sum(right) / len(right) >= 0.85
    (CLIPModel if start == "clip" else XCLIPModel).from_pretrained(outcome.folder)


def test_what_is_frozen_stays_and_what_trains_moves(world: Path, tmp_path: Path) -> None:
    start = load_file(world / "clip" / "model.safetensors")
    after = weights(run(world, tmp_path / "head", trains="head"))
    moved = {name.split(".")[0] for name in start if not torch.equal(start[name], after[name])}
    assert moved == {"visual_projection", "text_projection", "logit_scale"}
    after = weights(run(world, tmp_path / "lora", trains="lora", lora__targets=["q_proj"]))
    towers = [name for name in start if name.startswith(("text_model", "vision_model"))]
    moved = {name for name in towers if not torch.equal(start[name], after[name])}
    assert moved and all("q_proj.weight" in name for name in moved)


def test_a_resumed_run_ends_where_a_straight_one_does(world: Path, tmp_path: Path) -> None:
    settings = {"loss__model": "rao_kupper", "loss__learn_tie_parameter": True, "ema_decay": 0.7, "trains": "lora"}
    straight = run(world, tmp_path / "straight", **settings)
    run(world, tmp_path / "cut", **settings)
    newest = tmp_path / "cut" / "checkpoints" / "step-000004"
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    resumed = run(world, tmp_path / "cut", resume=True, **settings)
    assert all(torch.equal(weights(straight)[name], value) for name, value in weights(resumed).items())
    assert untimed(tmp_path / "cut") == untimed(tmp_path / "straight")
    with pytest.raises(ConfigError, match="changed: seed"):
        run(world, tmp_path / "cut", resume=True, seed=1, **settings)


SAMPLED = {
    "reward": "preference_head",
    "trains": "head",
    "options__uncertainty": True,
    "loss__uncertainty": "sampled",
    "loss__num_draws": 7,
}


@pytest.mark.parametrize("kind", [{}, SAMPLED], ids=["plain", "sampled"])
def test_accumulation_changes_nothing(world: Path, tmp_path: Path, kind: dict[str, object]) -> None:
    one = run(world, tmp_path / "one", optim__epsilon=1e-3, **kind)
    four = run(world, tmp_path / "four", optim__epsilon=1e-3, batch__accumulation=4, **kind)
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(four)[name], value, rtol=0, atol=2e-5)


def distance(one: Outcome, other: Outcome) -> float:
    """Return the Euclidean distance between two runs' weights."""
    first, second = weights(one), weights(other)
    return sum(float((first[name] - second[name]).square().sum()) for name in first) ** 0.5


def test_random_frames_and_bfloat16_products_train_nearly_the_same(world: Path, tmp_path: Path) -> None:
    whole, still = run(world, tmp_path / "whole"), run(world, tmp_path / "still", optim__learning_rate=1e-12)
    for name, changes in (("frames", {"pairs__frames_per_clip": 1}), ("products", {"precision": "bfloat16"})):
        other = run(world, tmp_path / name, **changes)
        assert 0 < distance(whole, other) < distance(whole, still)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("reward", "start", "option"), [("clip_preference", "clip", "frames"), ("video_text", "xclip", "clips")]
)
def test_passes_of_bounded_memory_change_nothing(
    world: Path, tmp_path: Path, reward: str, start: str, option: str, precision: str
) -> None:
    settings = {"reward": reward, "options__model": str(world / start), "precision": precision, "optim__epsilon": 1e-3}
    whole = run(world, tmp_path / "whole", **settings)
    passes = run(world, tmp_path / "passes", **settings, **{f"options__{option}_per_pass": 3})
    assert distance(whole, passes) < (1e-3 if precision == "float32" else 5e-2)


def test_the_card_says_what_was_done_and_measured(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["rlhf_video/train_reward_model.py", "--config", "the.yaml"])
    outcome = run(world, tmp_path / "run")
    text = (outcome.folder / "README.md").read_text()
    facts = json.loads((tmp_path / "run" / "card.json").read_text())
    result = outcome.judged["overall"]
    assert f"| {100 * result.accuracy.mean:.1f}% |" in " ".join(text.split())
    assert str(world / "pairs.jsonl") in text and facts["pairs"][str(world / "pairs.jsonl")] in text
    assert facts["command"].endswith("rlhf_video/train_reward_model.py --config the.yaml") and facts["command"] in text
    assert (outcome.folder / "learning_curve.svg").read_text().startswith("<svg xmlns")
    assert facts["accuracy"]["overall"]["num_items"] == result.accuracy.num_items > 5
    assert facts["slopes"] == dict(outcome.slopes) and outcome.slopes["overall"] != 0
    key = "validation/overall/accuracy"
    measured = [line[key] for line in read_metrics(tmp_path / "run") if key in line]
    assert len(measured) == 2 and f"{100 * measured[-1]:.1f}%" in text  # type: ignore[operator]
    assert result.accuracy.mean == pytest.approx(measured[-1]), "the last validation is what the folder scores"


def test_every_question_has_its_own_score(world: Path, tmp_path: Path) -> None:
    questions = ["overall", "style"]
    options = {"reward": "preference_head", "trains": "head", "options__dimensions": questions, "questions": questions}
    outcome = run(world, tmp_path / "run", **options)
    reward = registry.build("preference_head", model=str(outcome.folder))
    assert reward.spec.dimensions == ("overall", "style")
    head = load_file(outcome.folder / "preference_head.safetensors")
    other = load_file(run(world, tmp_path / "more", **options, num_steps=6).folder / "preference_head.safetensors")
    changed = [not torch.equal(a, b) for a, b in zip(head["0.weight"], other["0.weight"], strict=True)]
    assert changed[0], "overall is labelled"
    still = load_file(
        run(world, tmp_path / "still", **options, optim__weight_decay=0.0).folder / "preference_head.safetensors"
    )
    longer = run(world, tmp_path / "longer", **options, optim__weight_decay=0.0, num_steps=6)
    unlabelled = load_file(longer.folder / "preference_head.safetensors")["0.weight"][1]
    assert torch.equal(still["0.weight"][1], unlabelled), "nobody labelled the style"
    with pytest.raises(ConfigError, match="they must be the same"):
        run(world, tmp_path / "bad", **{**options, "questions": ["overall"]})


MISTAKES: list[Any] = [
    ({"reward": "brightness", "options": {"model": "x"}}, RewardError, "no option|cannot be trained"),
    ({"reward": "clip_preferense"}, RewardError, "Did you mean 'clip_preference'"),
    ({"options__model": "/nowhere/at/all"}, RewardError, "no reward model folder"),
    ({"options": {}}, ConfigError, "must name the start folder"),
    ({"pairs__train": "/nowhere/pairs.jsonl"}, DataError, "no file of preference pairs"),
    ({"pairs__validation_share": 0.0}, ConfigError, "Nothing is left to validate on"),
    ({"pairs__calibration_share": 0.0001}, DataError, "calibration part .* holds no winner"),
    ({"questions": ["motion"]}, DataError, "holds no winner of motion"),
    ({"loss__uncertainty": "sampled"}, ConfigError, "does not fit a reward without uncertainty"),
    ({"trains": "lora", "lora__targets": ["nothing"]}, ConfigError, "fits no Linear of the towers. Known there: fc1"),
    ({"batch__accumulation": 3}, ConfigError, "does not divide"),
    ({"reward": "preference_head", "options__hidden": -1}, RewardError, "hidden=-1"),
]


@pytest.mark.parametrize(("changes", "error", "message"), MISTAKES)
def test_mistakes_end_before_training(
    world: Path, tmp_path: Path, changes: Recipe, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(world, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_leaked_prompts_and_broken_clips_end_before_training(world: Path, tmp_path: Path) -> None:
    store = tiny_pairs(tmp_path / "own.jsonl", adjectives=("wall",))
    leak = tiny_pairs(tmp_path / "leak" / "leak.jsonl", adjectives=("big",))
    with pytest.raises(DataError, match="share prompts, for example"):
        run(world, tmp_path / "run", pairs__validation=str(leak.path))
    store.clip_path(store.read()[5].a).write_bytes(b"not the clip")
    with pytest.raises(DataError, match="is not the recorded file"):
        run(world, tmp_path / "run", pairs__train=str(store.path), pairs__calibration_share=0.0)
    store.clip_path(store.read()[5].a).unlink()
    with pytest.raises(DataError, match=r"clips/wall-5-a\.mkv is missing"):
        run(
            world,
            tmp_path / "run",
            pairs__train=str(store.path),
            pairs__calibration_share=0.0,
            pairs__check_hashes=False,
        )
    assert not (tmp_path / "run").exists()


def test_a_dry_run_tells_pairs_and_parameters_and_writes_nothing(world: Path, tmp_path: Path) -> None:
    text = describe(config_of(world, tmp_path / "run", trains="head"))
    assert "train        " in text and "head: 0.000 M of 0.011 M parameters of clip_preference" in text
    assert not (tmp_path / "run").exists()


def test_decoded_clips_leave_memory_when_it_is_full(world: Path) -> None:
    store = PreferenceStore(world / "pairs.jsonl")
    part = Pairs(store.read(), world)
    reader = ClipReader(5 * 3 * 12 * 12 * 3.5 / 2**30)
    for pair in part.pairs[:6]:
        assert reader(store.clip_path(pair.a)).video.shape == (5, 3, 12, 12)
    assert len(reader) == 3
