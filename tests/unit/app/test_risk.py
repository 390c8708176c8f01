"""Risk: simulated honest raters are left alone, scripts and rings are not."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from app.quality.judgements import Judgement
from app.quality.risk import Risk, assess
from app.quality.risk_policy import RiskPolicy

SYSTEMS = ("base", "dpo", "reward-bp", "tuned")
STRENGTHS = np.array([-0.6, 0.6, 0.1, -0.1])
START = datetime(2026, 1, 1, tzinfo=UTC)
LEAST_S = 2.0
Answer = Callable[[np.random.Generator, Judgement], tuple[str, float]]
"""What a rater answers (A, tie or B) and after how many seconds."""


def honest(rng: np.random.Generator, shown: Judgement) -> tuple[str, float]:
    """Judge as people do: noisily, with ties, some gold pairs wrong, at a person's pace."""
    seconds = LEAST_S + rng.lognormal(1.2, 0.6)
    if shown.expected is not None:
        right = shown.expected["overall"]
        return (right if rng.random() < 0.8 else str(rng.choice([w for w in ("A", "tie", "B") if w != right]))), seconds
    assert shown.systems is not None
    a, b = (STRENGTHS[SYSTEMS.index(name)] for name in shown.systems)
    win, loss, tie = np.exp(a), np.exp(b), 0.6
    return str(rng.choice(["A", "B", "tie"], p=np.array([win, loss, tie]) / (win + loss + tie))), seconds


def left(_: np.random.Generator, shown: Judgement) -> tuple[str, float]:
    """Always click left."""
    return ("A" if shown.a_is_left else "B"), 0.3


def dice(rng: np.random.Generator, _: Judgement) -> tuple[str, float]:
    """Click anything at a person's pace."""
    return str(rng.choice(["A", "tie", "B"])), LEAST_S + rng.lognormal(1.2, 0.6)


def pushing(name: str) -> Answer:
    """Vote for one system wherever it is shown, and judge honestly else, at a person's pace."""

    def answer(rng: np.random.Generator, shown: Judgement) -> tuple[str, float]:
        if shown.systems is not None and name in shown.systems:
            return ("A" if shown.systems[0] == name else "B"), LEAST_S + rng.lognormal(1.2, 0.6)
        return honest(rng, shown)

    return answer


def simulate(rng: np.random.Generator, raters: Mapping[str, Answer], *, votes: int) -> list[Judgement]:
    """Let every rater answer so many pairs, one in twelve of them gold; raters work at the same time."""
    return sorted(
        (each for rater, answer in raters.items() for each in _work(rng, rater, answer, votes)),
        key=lambda each: each.stored_at,
    )


def _work(rng: np.random.Generator, rater: str, answer: Answer, votes: int) -> Iterator[Judgement]:
    at = START + timedelta(seconds=float(rng.uniform(0, 600)))
    for number in range(votes):
        is_gold = rng.random() < 1 / 12
        a, b = rng.choice(SYSTEMS, size=2, replace=False)
        right = str(rng.choice(["A", "tie"])) if is_gold else None
        shown = Judgement(
            assignment=f"{rater}-{number}",
            rater=rater,
            pair=f"pair-{rng.integers(500)}",
            systems=None if is_gold else (str(a), str(b)),
            expected={"overall": right} if right else None,
            repeats=None,
            answers={},
            both_bad=False,
            a_is_left=bool(rng.random() < 0.5),
            decision_s=0.0,
            least_s=LEAST_S,
            stored_at=at,
        )
        word, seconds = answer(rng, shown)
        at += timedelta(seconds=seconds + 0.5)
        yield Judgement(**{**vars(shown), "answers": {"overall": word}, "decision_s": seconds, "stored_at": at})


def excluded(risks: Mapping[str, Risk]) -> set[str]:
    """Return who is above the line."""
    return {rater for rater, risk in risks.items() if risk.score >= RiskPolicy().shadow_at}


def names(risk: Risk) -> set[str]:
    """Return what was seen."""
    return {signal.name for signal in risk.signals}


def test_honest_raters_are_hardly_ever_left_out() -> None:
    num_excluded = num_raters = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        raters = {f"r{number}": honest for number in range(20)}
        lab = {"lab": frozenset(f"r{number}" for number in range(7))}
        risks = assess(simulate(rng, raters, votes=40), networks=lab)
        num_excluded, num_raters = num_excluded + len(excluded(risks)), num_raters + len(risks)
    assert num_raters == 400
    assert num_excluded <= 1


@pytest.mark.parametrize("seed", range(2))
def test_a_script_and_a_dice_thrower_are_caught_among_honest_raters(seed: int) -> None:
    raters: dict[str, Answer] = {f"r{number}": honest for number in range(30)}
    raters |= {"clicker": left, "dice": dice}
    risks = assess(simulate(np.random.default_rng(seed), raters, votes=100), networks={})
    assert excluded(risks) >= {"clicker"}
    assert {"early", "side", "snap", "hasty"} <= names(risks["clicker"])
    assert names(risks["dice"]) & {"gold", "outlier"}
    assert excluded(risks) <= {"clicker", "dice"}


@pytest.mark.parametrize("seed", range(2))
def test_a_ring_is_caught_whole_and_its_neighbours_are_not(seed: int) -> None:
    raters: dict[str, Answer] = {f"r{number}": honest for number in range(30)}
    ring = frozenset(f"ring{number}" for number in range(4))
    raters |= dict.fromkeys(ring, pushing("base"))
    lab = frozenset(f"r{number}" for number in range(6))
    votes = simulate(np.random.default_rng(seed), raters, votes=40)
    risks = assess(votes, networks={"ring": ring, "lab": lab})
    assert excluded(risks) == ring
    assert all("ring" in names(risks[rater]) for rater in ring)


def test_another_taste_alone_is_not_left_out() -> None:
    raters: dict[str, Answer] = {f"r{number}": honest for number in range(30)}
    raters["fan"] = pushing("base")
    risks = assess(simulate(np.random.default_rng(0), raters, votes=150), networks={})
    assert "outlier" in names(risks["fan"])
    assert risks["fan"].score < RiskPolicy().shadow_at
