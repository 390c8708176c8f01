"""KTO through the trainer: pairs as thumbs, one reference point for a global batch, and what changes nothing."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_video.algorithms.dpo import train
from rlhf_video.algorithms.dpo_config import DpoConfig, DpoPairsConfig
from rlhf_video.algorithms.dpo_data import label_pairs
from rlhf_video.algorithms.dpo_metrics import Table
from rlhf_video.algorithms.kto_loss import pair_thumbs
from rlhf_video.preferences import PreferencePair, PreferenceStore, SegmentLabel
from rlhf_video.runtime import create_accelerator, read_metrics
from rlhf_video.settings import load_config
from rlhf_video.testing.runs import adapter_of, is_trained, same_checkpoint, timeless_metrics, write_config

Recipe = dict[str, Any]
Call = Callable[..., Any]
NAN = math.nan
BETA = 20.0


def write_pairs(folder: Path, change: Callable[[int, PreferencePair], PreferencePair], name: str = "changed") -> str:
    store = PreferenceStore(folder / "pairs" / f"{name}.jsonl")
    pairs = PreferenceStore(folder / "pairs" / "train.jsonl").read()
    store.append([change(number, pair) for number, pair in enumerate(pairs)])
    return str(store.path)


def some_both_bad(number: int, pair: PreferencePair) -> PreferencePair:
    """Make pair 1 and 6 both bad, and the first frame of pair 2."""
    if number == 2:
        segments = (SegmentLabel(start=0, stop=1, label="both-bad"), SegmentLabel(start=1, stop=5, label="A"))
        return replace(pair, segments=segments)
    return replace(pair, labels={"overall": "both-bad"}) if number in (1, 6) else pair


@pytest.fixture
def kto_recipe(dpo_recipe: Recipe, tmp_path: Path) -> Recipe:
    """Return a recipe of thumbs, three with two bad clips; likes weigh more: the reference point leaves 0."""
    pairs = dpo_recipe["pairs"] | {"train": write_pairs(tmp_path, some_both_bad)}
    return dpo_recipe | {
        "loss": {"kind": "kto", "beta": BETA, "sft_weight": 2.0, "disliked_weight": 0.2},
        "pairs": pairs,
        "optim": {"learning_rate": 5e-3, "epsilon": 1e-4, "warmup": 0},
        "batch": {"global_pairs": 12},
        "draws_per_pair": 1,
        "reference": {"fixed_draws": 1},
    }


def expected(table: Table, *, smoothing: float, disliked: float, sft: float) -> tuple[float, float]:
    """Return z and the loss of a global batch from its errors, in double precision."""
    clips = []
    for place, (shares, bads) in enumerate(zip(table.preference.tolist(), table.both_bad.tolist(), strict=True)):
        for number, (share, bad) in enumerate(zip(shares, bads, strict=True)):
            for side, liked in enumerate((0.0, 0.0) if bad else (share, 1 - share)):
                if not math.isnan(liked):
                    error = float(table.policy[side][place, number])
                    clips.append((place, liked, error, float(table.reference[side][place, number]) - error))
    point = max(0.0, sum(BETA / 2 * gain for *_, gain in clips) / len(clips))
    rows: dict[int, list[float]] = {}
    for place, liked, error, gain in clips:
        up = 1 / (1 + math.exp(BETA / 2 * gain - point))  # 1 - sigmoid(logit - z)
        aim = smoothing + (1 - 2 * smoothing) * liked
        rows.setdefault(place, []).append(aim * up + disliked * (1 - aim) * (1 - up) + sft * liked * error)
    return point, sum(sum(costs) / len(costs) for costs in rows.values()) / len(rows)


def test_a_fresh_adapter_costs_exactly_one_half_a_clip(steps: Call, kto_recipe: Recipe, tmp_path: Path) -> None:
    kto_recipe["loss"] = {"kind": "kto", "beta": BETA}
    first = steps(kto_recipe, tmp_path / "run", 1).metrics[0]
    assert first["loss/dpo"] == 0.5
    assert first["dpo/reference_point"] == 0.0
    assert first["dpo/gradient_factor"] == 0.25
    assert first["dpo/both_bad_gain"] == first["dpo/margin"] == 0.0


@pytest.mark.parametrize(
    ("smoothing", "disliked", "sft"), [(0.0, 1.0, 0.0), (0.1, 0.2, 2.0)], ids=["plain", "likes weigh more"]
)
def test_steps_log_the_closed_form(
    steps: Call, kto_recipe: Recipe, tmp_path: Path, tables: list[Table], smoothing: float, disliked: float, sft: float
) -> None:
    kto_recipe["loss"] |= {"label_smoothing": smoothing, "disliked_weight": disliked, "sft_weight": sft}
    metrics = steps(kto_recipe, tmp_path / "run", 4).metrics
    for logged, table in zip(metrics, tables, strict=True):
        point, loss = expected(table, smoothing=smoothing, disliked=disliked, sft=sft)
        assert logged["dpo/reference_point"] == pytest.approx(point, rel=1e-4, abs=1e-6)
        assert logged["loss/dpo"] == pytest.approx(loss, rel=1e-5)
    assert metrics[3]["loss/dpo"] < metrics[0]["loss/dpo"]
    if sft == 0:
        assert 0 == metrics[0]["dpo/margin"] < metrics[2]["dpo/margin"] < metrics[3]["dpo/margin"]
        assert metrics[3]["dpo/both_bad_gain"] < 0, "bad clips become less likely"
    else:
        assert metrics[3]["dpo/reference_point"] > 0.1, "or the test would not see the reference point"


def test_swapping_the_thumbs_turns_the_gradient(steps: Call, kto_recipe: Recipe, tmp_path: Path) -> None:
    # with epsilon 1, Adam's first step is nearly proportional to the gradient
    kto_recipe["optim"] = {"learning_rate": 1e-3, "epsilon": 1.0, "weight_decay": 1e-9, "max_grad_norm": 1e9}
    kto_recipe["optim"]["warmup"] = 0
    kto_recipe["loss"] = {"kind": "kto", "beta": BETA}
    other = {"A": "B", "B": "A"}
    turned = write_pairs(
        tmp_path, lambda _, pair: replace(pair, labels={"overall": other[pair.labels["overall"]]}), name="swapped"
    )
    ends = [
        steps(kto_recipe, tmp_path / f"run{number}", 1, pairs__train=pairs).adapter
        for number, pairs in enumerate((str(tmp_path / "pairs" / "train.jsonl"), turned))
    ]
    ups = [name for name in ends[0] if "lora_B" in name]
    assert any(ends[0][name].abs().max() > 0 for name in ups)
    for name in ups:
        torch.testing.assert_close(ends[0][name], -ends[1][name], rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize(
    "changes",
    [
        {"batch__accumulation": 4},
        {"passes": "two_pass"},
        {"passes": "two_pass", "batch__accumulation": 12},
        {"batch": {"token_budget": 96, "accumulation": 5}},
    ],
    ids=["four pieces", "two passes", "two passes of one pair", "token budget"],
)
def test_the_reference_point_is_that_of_the_global_batch_however_it_is_cut(
    steps: Call, kto_recipe: Recipe, tmp_path: Path, changes: dict[str, object]
) -> None:
    plain, other = steps(kto_recipe, tmp_path / "plain", 3), steps(kto_recipe, tmp_path / "other", 3, **changes)
    assert plain.metrics[2]["dpo/reference_point"] > 0.005
    for name in ("dpo/reference_point", "loss/dpo"):
        assert other.metrics[2][name] == pytest.approx(plain.metrics[2][name], abs=1e-5)
    torch.testing.assert_close(other.adapter, plain.adapter, rtol=0, atol=2e-6)


def test_a_pair_is_read_as_two_thumbs_and_a_tie_as_none(tmp_path: Path, kto_recipe: Recipe) -> None:
    pairs = PreferenceStore(tmp_path / "pairs" / "train.jsonl").read()
    answers = ({"overall": "both-bad"}, {"overall": "tie"}, {"motion": "A"}, {"overall": "A"})
    given = [replace(pair, labels=labels) for pair, labels in zip(pairs, answers, strict=False)]
    given += [some_both_bad(2, pairs[2]), replace(pairs[5], labels={}, soft={"overall": 0.2})]
    store = PreferenceStore(tmp_path / "pairs" / "train.jsonl")
    read = label_pairs(given, store, DpoPairsConfig(train=store.path), field="pairs.train", reads_bad=True)
    preferences = [repr(pair.preference) for pair in read.pairs]
    assert preferences == ["(nan,)", "(1.0,)", "(nan, 1.0)", "(0.8,)"]
    assert [pair.both_bad for pair in read.pairs] == [(0,), (), (0,), ()]
    assert dict(read.dropped) == {"tie": 1, "no answer to the question": 1}
    plain = label_pairs(given, store, DpoPairsConfig(train=store.path), field="pairs.train")
    assert [pair.both_bad for pair in plain.pairs] == [(), (), ()] and plain.dropped["both bad"] == 1
    assert read.sha256 != plain.sha256


def test_thumbs_are_probabilities() -> None:
    preference, bad = torch.tensor([[1.0, 0.75, NAN, NAN]]), torch.tensor([[False, False, True, False]])
    chosen, rejected = pair_thumbs(preference, bad)
    torch.testing.assert_close(chosen, torch.tensor([[1.0, 0.75, 0.0, NAN]]), equal_nan=True)
    torch.testing.assert_close(rejected, torch.tensor([[0.0, 0.25, 0.0, NAN]]), equal_nan=True)


def run(recipe: Recipe, folder: Path, *, resume: bool = False, **changes: object) -> None:
    train(
        load_config(DpoConfig, write_config(recipe, folder, **changes)), accelerator=create_accelerator(), resume=resume
    )


def test_a_run_of_thumbs_resumes_to_the_bit_and_measures_held_out_pairs(kto_recipe: Recipe, tmp_path: Path) -> None:
    kto_recipe["loss"] = {"kind": "kto", "beta": BETA}
    options = {"checkpoint__every": 2, "validation__every": 2}
    run(kto_recipe, tmp_path / "straight", num_steps=4, **options)
    run(kto_recipe, tmp_path / "resumed", num_steps=2, **options)
    run(kto_recipe, tmp_path / "resumed", num_steps=4, resume=True, **options)
    assert is_trained(adapter_of(tmp_path / "straight"))
    assert same_checkpoint(tmp_path / "straight", tmp_path / "resumed", 4)
    trained = [
        [line for line in timeless_metrics(tmp_path / name) if "loss/dpo" in line] for name in ("straight", "resumed")
    ]
    assert trained[0] == trained[1]
    reading = [line for line in read_metrics(tmp_path / "straight") if "validation/dpo/accuracy" in line][-1]
    assert reading["validation/dpo/margin"] > 0 and 0 < reading["validation/dpo/loss"] < 2
    card = (tmp_path / "straight" / "adapter" / "README.md").read_text()
    assert "in 3 of 12 pairs both clips, or both of a stretch, are down" in card
    assert "KTO on the thumbs of preference pairs" in card
