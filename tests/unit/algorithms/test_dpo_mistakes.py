"""Every mistake of preference optimisation ends the command with one paragraph and exit code 2."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rlhf_video.algorithms.dpo_watch import HeldOutReading
from rlhf_video.data import sha256_file, write_lossless
from rlhf_video.preferences import ClipRecord, PreferencePair, PreferenceStore, SegmentLabel
from rlhf_video.stats import Interval
from rlhf_video.testing.runs import write_config
from rlhf_video.train_dpo import main

Recipe = dict[str, Any]
Command = Callable[..., str]
Pairs = Sequence[PreferencePair]


@pytest.fixture
def command(
    dpo_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run the script with a recipe; return its paragraph when it ends with exit code 2, or "" when it succeeds."""

    def call(*arguments: str, **changes: object) -> str:
        file = write_config(dpo_recipe, tmp_path / "run", **changes)
        monkeypatch.setattr(sys, "argv", ["train_dpo.py", "--config", str(file), *arguments])
        capsys.readouterr()
        try:
            main()
        except SystemExit as end:
            code = end.code
        else:
            return ""
        assert code == 2
        text = capsys.readouterr().err
        assert text.count("error: ") >= 1
        return text[text.index("error: ") :]

    return call


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pairs__trains": "x"}, ["pairs.trains", "Did you mean 'pairs.train'"]),
        ({"pairs__train": "nowhere.jsonl"}, ["nowhere.jsonl", "build it first"]),
        ({"pairs__validation_share": 1.0}, ["pairs.validation_share=1.0"]),
        ({"pairs__question": "motion"}, ["no pair has a winner of motion", "answered: overall"]),
        ({"prompts__validation": "nowhere.txt"}, ["nowhere.txt"]),
        ({"loss": {"kind": "kto", "beta": 5.0}, "pairs__ties": "half"}, ["pairs.ties=half", "kto", "pairs.ties=drop"]),
        ({"loss": {"kind": "kto", "beta": None}}, ["loss.beta=null", "loss.kind=kto", "Give loss.beta a number"]),
        ({"loss__kind": "dpo"}, ["loss.kind", "sigmoid"]),
        ({"loss__beta": 0.0}, ["loss.beta=0.0"]),
        ({"draws_per_pair": 5}, ["draws_per_pair=5", "from 1 to 4"]),
        ({"reference__fixed_draws": 3}, ["reference.fixed_draws=3", "multiple of draws_per_pair=2", "example 2"]),
        ({"reference__cache": "kept"}, ["reference.cache", "set reference.fixed_draws"]),
        ({"reference__kind": "merged"}, ["reference.kind=merged needs reference.start_adapter"]),
        ({"reference__kind": "adapter"}, ["reference.kind=adapter needs an adapter folder"]),
        ({"reference__adapter": "x"}, ["reference.adapter belongs to reference.kind=adapter"]),
        ({"reference__start_adapter": "nowhere"}, ["There is no adapter at 'nowhere'"]),
        ({"rewards": [], "guards__enabled": False}, ["Nothing would be reported"]),
        ({"batch__accumulation": 3}, ["batch.accumulation=3", "batch.global_pairs=4"]),
        ({"batch__token_budget": 3}, ["batch.token_budget=3", "Set it to 8 or more"]),
        ({"sampling__num_frames": 9}, ["5 frames of 16x16", "the sampling size is 9 frames of 16x16", "token_budget"]),
        ({"optim__learning_rate": 0.0}, ["optim.learning_rate=0.0"]),
        ({"passes": "both"}, ["passes", "two_pass"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_setting_that_does_not_fit(
    command: Command, tmp_path: Path, changes: dict[str, object], words: list[str]
) -> None:
    message = command(**changes)
    for word in words:
        assert word in message
    assert not (tmp_path / "run").exists(), "nothing is left that the corrected call would stumble over"


def clip(folder: Path, name: str, *shape: int) -> ClipRecord:
    write_lossless(folder / "clips" / name, torch.rand(*shape, generator=torch.Generator().manual_seed(3)), 8)
    return ClipRecord(path=f"clips/{name}", sha256=sha256_file(folder / "clips" / name))


def all_ties(pairs: Pairs, _: Path) -> Pairs:
    return [replace(pair, labels={"overall": "tie"}) for pair in pairs]


def both_bad(pairs: Pairs, _: Path) -> Pairs:
    return [replace(pair, labels={"overall": "both-bad"}) for pair in pairs]


def no_weight(pairs: Pairs, _: Path) -> Pairs:
    return [replace(pair, weight=0.0) for pair in pairs]


def contradictory(pairs: Pairs, _: Path) -> Pairs:
    return [*pairs, replace(pairs[0], labels={"overall": "B"})]


def another_length(pairs: Pairs, folder: Path) -> Pairs:
    return [replace(pairs[0], a=clip(folder, "long.mkv", 9, 3, 16, 16)), *pairs[1:]]


def another_size(pairs: Pairs, folder: Path) -> Pairs:
    return [replace(pairs[0], b=clip(folder, "wide.mkv", 5, 3, 16, 32)), *pairs[1:]]


def missing_clips(pairs: Pairs, folder: Path) -> Pairs:
    for pair in pairs[:2]:
        (folder / pair.a.path).unlink()
    return pairs


def changed_clip(pairs: Pairs, folder: Path) -> Pairs:
    clip(folder, Path(pairs[0].a.path).name, 5, 3, 16, 16)
    return pairs


def corrupt_clip(pairs: Pairs, folder: Path) -> Pairs:
    file = folder / pairs[0].a.path
    file.write_bytes(b"no video")
    return [replace(pairs[0], a=ClipRecord(path=pairs[0].a.path, sha256=sha256_file(file))), *pairs[1:]]


def foreign_latents(pairs: Pairs, folder: Path) -> Pairs:
    sides = []
    for name, value in (("a", 0.0), ("b", 1.0)):
        file = folder / "clips" / f"{name}.safetensors"
        save_file({"latents": torch.full((16, 2, 2, 2), value)}, file)
        sides.append(ClipRecord(path=f"clips/{file.name}", sha256=sha256_file(file)))
    return [replace(pairs[0], a=sides[0], b=sides[1]), *pairs[1:]]


def long_segment(pairs: Pairs, _: Path) -> Pairs:
    return [replace(pairs[0], segments=(SegmentLabel(start=0, stop=6, label="A"),)), *pairs[1:]]


def validation_prompt(pairs: Pairs, _: Path) -> Pairs:
    return [replace(pairs[0], prompt="a red square moving left"), *pairs[1:]]


def held_out_prompt(pairs: Pairs, _: Path) -> Pairs:
    return [replace(pairs[0], prompt="A red star  moving left"), *pairs[1:]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (all_ties, ["no pair has a winner of overall", "12 ties"]),
        (both_bad, ["no pair has a winner of overall"]),
        (no_weight, ["every weight is 0"]),
        (contradictory, ["1 comparisons have opposite answers", "pair 1, pair 13"]),
        (another_length, ["pair 1 (9x16x16 and 5x16x16)", "share their noise"]),
        (another_size, ["pair 1 (5x16x16 and 5x16x32)"]),
        (missing_clips, ["2 clips cannot be used", "train-0-bright.mkv", "train-1-dark.mkv"]),
        (changed_clip, ["train-0-bright.mkv", "sha256"]),
        (corrupt_clip, ["cannot be decoded", "train-0-bright.mkv"]),
        (foreign_latents, ["a.safetensors", "(16, 2, 2, 2)", "this model's (4, "]),
        (long_segment, ["segments of 1 pairs end after their clip", "pair 1 (frame 6 of 5)"]),
        (validation_prompt, ["prompts.validation shares 1 prompts", "a red square moving left"]),
        (held_out_prompt, ["validation", "share", "a red star moving left"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_pairs_that_do_not_fit(
    command: Command, tmp_path: Path, change: Callable[[Pairs, Path], Pairs], words: list[str]
) -> None:
    folder = tmp_path / "pairs"
    store = PreferenceStore(folder / "changed.jsonl")
    store.append(change(PreferenceStore(folder / "train.jsonl").read(), folder))
    message = command(pairs__train=str(store.path))
    for word in words:
        assert word in message
    assert not (tmp_path / "run").exists()


def test_errors_that_are_no_numbers_name_the_pair_and_keep_the_checkpoint(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    pairs = PreferenceStore(folder / "train.jsonl").read()
    sides = []
    for name, value in (("nan", float("nan")), ("one", 1.0)):
        file = folder / "clips" / f"{name}.safetensors"
        save_file({"latents": torch.full((4, 2, 2, 2), value)}, file)
        sides.append(ClipRecord(path=f"clips/{file.name}", sha256=sha256_file(file)))
    store = PreferenceStore(folder / "changed.jsonl")
    store.append([replace(pairs[0], a=sides[0], b=sides[1]), *pairs[1:]])
    message = command(pairs__train=str(store.path), batch__global_pairs=12)
    for word in ("reference's error", "nan.safetensors", "not finite", "precision=float32"):
        assert word in message


def test_pairs_that_changed_since_the_run_was_started(command: Command, tmp_path: Path) -> None:
    assert command() == ""
    (tmp_path / "run" / "card.json").unlink()  # as if killed after the last checkpoint
    store = PreferenceStore(tmp_path / "pairs" / "train.jsonl")
    pairs = store.read()
    store.path.unlink()
    store.append([replace(pairs[0], weight=2.0), *pairs[1:]])
    message = command("--resume", num_steps=3)
    assert "pairs.train" in message
    assert "put it back" in message


def test_dry_run_prints_shapes_passes_and_memory_without_weights_or_pairs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(__file__).parents[3] / "configs" / "dpo" / "wan2.1-1.3b.yaml"
    monkeypatch.setattr(sys, "argv", ["train_dpo.py", "--config", str(file), "--dry-run"])
    main()
    text = capsys.readouterr().out
    for word in ("1419.0 M parameters", "87490560 trainable", "two_pass: 3 forward and 2 backward", "peak, about"):
        assert word in text


@pytest.mark.parametrize(
    ("preferred", "other", "alarms"),
    [((-0.02, -0.01), -0.5, True), ((-0.02, 0.01), -0.5, False), ((0.01, 0.02), -0.5, False), ((-2, -1), 0.1, False)],
    ids=["both rise", "preferred unsure", "preferred falls", "other falls"],
)
def test_the_displacement_alarm_needs_errors_that_rise_on_both_clips(
    preferred: tuple[float, float], other: float, alarms: bool
) -> None:
    def interval(low: float, high: float) -> Interval:
        return Interval((low + high) / 2, low, high, 10, 5)

    gain, others = interval(*preferred), interval(other - 0.1, other + 0.1)
    reading = HeldOutReading(gain, 0.5, gain, gain, others, 0.7, {}, None)  # type: ignore[arg-type]
    alarm = reading.displacement()
    assert (alarm is not None) is alarms
    if alarm is not None:
        assert "loss.sft_weight" in alarm.message
