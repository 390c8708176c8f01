"""Every kind of loss through the trainer: what is logged is its closed form, and the margin moves as the labels say."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhf_video.algorithms.dpo_metrics import Table
from rlhf_video.preferences import Label, PreferencePair, PreferenceStore, SegmentLabel

Recipe = dict[str, Any]
Call = Callable[..., Any]
BETA = 5.0


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def one_sided(loss: Recipe, h: float) -> float:
    """Return what "the chosen clip is better" costs."""
    forms: dict[str, Callable[[], float]] = {
        "sigmoid": lambda: softplus(-BETA * h),
        "robust": lambda: softplus(-BETA * h),
        "hinge": lambda: max(0.0, 1 - BETA * h),
        "ipo": lambda: (h - 1 / (2 * BETA)) ** 2,
        "simpo": lambda: softplus(loss.get("simpo_margin", 0.0) - BETA * h),
    }
    return forms[loss.get("kind", "sigmoid")]()


def target(loss: Recipe, share: float) -> float:
    wrong = loss.get("label_smoothing", 0.0)
    return (share - wrong) / (1 - 2 * wrong) if loss.get("kind") == "robust" else wrong + (1 - 2 * wrong) * share


def pair_cost(loss: Recipe, share: float, errors: Sequence[float]) -> float:
    """Return the cost of a labelled segment.

    Args:
        loss: Settings.
        share: Probability that "chosen" is better.
        errors: Of the policy on both clips, then of the reference.
    """
    chosen, rejected, ref_chosen, ref_rejected = errors
    margin = rejected - chosen
    if loss.get("kind") != "simpo":
        margin += ref_chosen - ref_rejected
    h, aim = margin / 2, target(loss, share)
    anchor = share * chosen + (1 - share) * rejected
    return aim * one_sided(loss, h) + (1 - aim) * one_sided(loss, -h) + loss.get("sft_weight", 0.0) * anchor


def expected_loss(loss: Recipe, table: Table) -> float:
    """Return the loss of a global batch from its errors, in double precision."""
    rows = []
    for place, shares in enumerate(table.preference.tolist()):
        columns = [error[place].tolist() for error in (*table.policy, *table.reference)]
        costs = [
            pair_cost(loss, share, [column[number] for column in columns])
            for number, share in enumerate(shares)
            if not math.isnan(share)
        ]
        rows.append(float(table.weight[place]) * sum(costs) / len(costs))
    return sum(rows) / len(rows)


def soft(pair: PreferencePair) -> PreferencePair:
    return replace(pair, soft={"overall": 0.9 if pair.winner() == "A" else 0.2}, labels={}, weight=1.5)


def dense(pair: PreferencePair) -> PreferencePair:
    winner = pair.winner()
    assert winner is not None
    labels: tuple[Label, ...] = ("tie", winner, "B" if winner == "A" else "A")
    stretches = ((0, 1), (1, 4), (4, 5))
    segments = tuple(SegmentLabel(start=i, stop=k, label=s) for (i, k), s in zip(stretches, labels, strict=True))
    return replace(pair, segments=segments)


def write_pairs(folder: Path) -> str:
    """Write the training pairs with plain labels, soft ones and labels of stretches; return the file."""
    store = PreferenceStore(folder / "pairs" / "mixed.jsonl")
    pairs = PreferenceStore(folder / "pairs" / "train.jsonl").read()
    kinds: list[Callable[[PreferencePair], PreferencePair]] = [lambda pair: pair, soft, dense]
    store.append([kinds[number % 3](pair) for number, pair in enumerate(pairs)])
    return str(store.path)


@pytest.mark.parametrize(
    "loss",
    [
        {"label_smoothing": 0.1},
        {"kind": "hinge"},
        {"kind": "ipo"},
        {"kind": "robust", "label_smoothing": 0.1},
        {"kind": "simpo", "simpo_margin": 0.2},
        {"sft_weight": 0.5},
    ],
    ids=lambda loss: "-".join(map(str, loss.values())),
)
def test_each_kind_logs_its_closed_form_and_moves_the_margin(
    steps: Call, dpo_recipe: Recipe, tmp_path: Path, tables: list[Table], loss: Recipe
) -> None:
    pairs = write_pairs(tmp_path)
    every_pair_at_the_same_noise = {"batch__global_pairs": 12, "reference__fixed_draws": 1, "draws_per_pair": 1}
    metrics = steps(
        dpo_recipe, tmp_path / "run", 3, loss=loss | {"beta": BETA}, pairs__train=pairs, **every_pair_at_the_same_noise
    ).metrics
    for logged, table in zip(metrics, tables, strict=True):
        assert logged["loss/dpo"] == pytest.approx(expected_loss(loss, table), rel=1e-5)
        assert logged["dpo/beta"] == BETA
    shares = {round(share, 3) for row in tables[0].preference.tolist() for share in row if not math.isnan(share)}
    assert shares == {0.0, 0.8, 0.9, 1.0}, "plain, soft and dense labels, in every step"
    assert len(tables) == 3 and not tables[2].policy.chosen.equal(tables[2].reference.chosen)
    margins = [line["dpo/margin"] for line in metrics]
    assert margins[0] < margins[1] < margins[2]
    assert metrics[2]["loss/dpo"] < metrics[0]["loss/dpo"]
    if "sft_weight" in loss:
        assert metrics[2]["dpo/chosen_gain"] > 0


@pytest.mark.parametrize("error", ["epsilon", "v_prediction"])
def test_other_prediction_errors_are_velocity_errors_of_another_weight(
    steps: Call, dpo_recipe: Recipe, tmp_path: Path, tables: list[Table], error: str
) -> None:
    steps(dpo_recipe, tmp_path / "velocity", 1)
    metrics = steps(dpo_recipe, tmp_path / "other", 2, loss={"beta": BETA, "error": error}).metrics
    velocity, other, later = tables
    factor = (1 - other.sigma) ** 2 + (other.sigma**2 if error == "v_prediction" else 0)
    for plain, weighted in zip((*velocity.policy, *velocity.reference), (*other.policy, *other.reference), strict=True):
        assert weighted[:, 0].tolist() == pytest.approx((factor * plain[:, 0]).tolist(), rel=1e-5)
    assert metrics[1]["loss/dpo"] == pytest.approx(expected_loss({}, later), rel=1e-5)
