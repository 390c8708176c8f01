"""Whatever comes in, every rule accounts for all of it, prefers by the scores alone, and keeps prompts apart."""

import dataclasses
import hashlib
import math
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_video.errors import DataError
from rlhf_video.preferences import ClipRecord, PreferencePair
from rlhf_video.preferences.pairing import (
    AllPairsConfig,
    BestWorstConfig,
    OmniScoreConfig,
    Pairing,
    ParetoConfig,
    ReweightingConfig,
    ScoredClip,
    SplitConfig,
    VotesConfig,
    all_pairs,
    best_worst,
    omniscore,
    pairs_from_votes,
    pareto,
    split_pairs,
)
from rlhf_video.preferences.store import prompt_key

WEIGHTED = OmniScoreConfig(
    weights={"q": 2.0, "m": 1.0}, veto={"m": 0.3}, min_margin=0.1, reweighting=ReweightingConfig(num_bins=3)
)
EXTREMES: dict[str, Callable[[list[ScoredClip]], Pairing]] = {
    "best_worst": lambda clips: best_worst(clips, BestWorstConfig(score="q", min_margin=0.5)),
    "omniscore": lambda clips: omniscore(clips, WEIGHTED),
}
EVERY_TWO: dict[str, Callable[[list[ScoredClip]], Pairing]] = {
    "all_pairs": lambda clips: all_pairs(clips, AllPairsConfig(score="q", min_margin=0.5, max_pairs_per_prompt=3)),
    "pareto": lambda clips: pareto(clips, ParetoConfig(tolerances={"q": 0.5, "m": 0.0}, max_pairs_per_prompt=3)),
}
RULES = EXTREMES | EVERY_TWO

_scores = st.integers(-4, 4).map(float)


@st.composite
def scored_clips(draw: st.DrawFn) -> list[ScoredClip]:
    rows = draw(
        st.lists(st.tuples(st.sampled_from(["one", "two", "three"]), _scores, _scores), min_size=2, max_size=14)
    )
    return [ScoredClip(prompt, _clip(str(index)), {"q": q, "m": m}) for index, (prompt, q, m) in enumerate(rows)]


@st.composite
def votes(draw: st.DrawFn) -> list[PreferencePair]:
    names = st.tuples(st.sampled_from("uv"), st.sampled_from("xyz"))
    labels = st.sampled_from(["A", "B", "tie", "both-bad"])
    rows = draw(st.lists(st.tuples(st.sampled_from(["one", "two"]), names, labels), min_size=1, max_size=20))
    return [
        PreferencePair(prompt=prompt, a=_clip(first), b=_clip(second), labels={"overall": label})
        for prompt, (first, second), label in rows
    ]


def _clip(name: str) -> ClipRecord:
    return ClipRecord(path=f"{name}.mkv", sha256=hashlib.sha256(name.encode()).hexdigest())


def _sizes(clips: list[ScoredClip]) -> list[int]:
    return [size for size in Counter(clip.prompt for clip in clips).values() if size > 1]


@pytest.mark.parametrize("rule", RULES)
@given(clips=scored_clips())
def test_counts_add_up_to_what_came_in(rule: str, clips: list[ScoredClip]) -> None:
    made, sizes = RULES[rule](clips), _sizes(clips)
    comparisons = len(sizes) if rule in EXTREMES else sum(math.comb(size, 2) for size in sizes)
    assert len(made.pairs) + sum(made.dropped.values()) == comparisons == made.num_comparisons
    compared = 2 * len(sizes) if rule in EXTREMES else sum(sizes)
    assert compared + sum(made.unused.values()) == len(clips)
    assert 0 not in (*made.dropped.values(), *made.unused.values())


@pytest.mark.parametrize("rule", RULES)
@given(clips=scored_clips(), data=st.data())
def test_the_order_of_the_clips_changes_nothing(rule: str, clips: list[ScoredClip], data: st.DataObject) -> None:
    assert RULES[rule](data.draw(st.permutations(clips))) == RULES[rule](clips)


@pytest.mark.parametrize("rule", RULES)
@given(first=st.tuples(_scores, _scores), second=st.tuples(_scores, _scores))
def test_exchanging_the_scores_of_two_clips_exchanges_the_labels(
    rule: str, first: tuple[float, float], second: tuple[float, float]
) -> None:
    def made(one: tuple[float, float], two: tuple[float, float]) -> Pairing:
        rows = zip(("x", "y"), (one, two), strict=True)
        return RULES[rule]([ScoredClip("p", _clip(name), dict(zip("qm", row, strict=True))) for name, row in rows])

    straight, swapped = made(first, second), made(second, first)
    assert straight.dropped == swapped.dropped
    turned = {"A": "B", "B": "A", "tie": "tie"}
    for pair, other in zip(straight.pairs, swapped.pairs, strict=True):
        assert {name: turned[label] for name, label in pair.labels.items()} == other.labels
        assert (pair.margin, pair.weight, pair.clips) == (other.margin, other.weight, other.clips)


@given(clips=scored_clips())
def test_a_pareto_winner_is_worse_on_nothing(clips: list[ScoredClip]) -> None:
    scores = {scored.clip.sha256: scored.scores for scored in clips}
    for pair in pareto(clips, ParetoConfig(tolerances={"q": 0.0, "m": 0.0})).pairs:
        best, worst = pair.clips if pair.winner() == "A" else pair.clips[::-1]
        gaps = [scores[best.sha256][name] - scores[worst.sha256][name] for name in "qm"]
        assert min(gaps) >= 0.0 < max(gaps)
        assert pair.margin is not None and 0.0 < pair.margin <= 1.0


@given(records=votes(), policy=st.booleans())
def test_every_pair_of_voted_clips_is_kept_or_counted(records: list[PreferencePair], policy: bool) -> None:
    config = VotesConfig(ties="soft", both_bad="unpaired", max_pairs_per_prompt=2) if policy else VotesConfig()
    made = pairs_from_votes(records, config)
    compared = {(record.prompt, frozenset(clip.sha256 for clip in record.clips)) for record in records}
    assert len(made.pairs) + sum(made.dropped.values()) == len(compared)


@given(records=votes(), data=st.data())
def test_calling_the_clips_b_and_a_changes_no_pair(records: list[PreferencePair], data: st.DataObject) -> None:
    turned = {"A": "B", "B": "A", "tie": "tie", "both-bad": "both-bad"}
    mirrored = [
        dataclasses.replace(r, a=r.b, b=r.a, labels={"overall": turned[r.labels["overall"]]})  # type: ignore[dict-item]
        if data.draw(st.booleans())
        else r
        for r in records
    ]
    config = VotesConfig(ties="soft", soft_labels=True)
    assert pairs_from_votes(mirrored, config) == pairs_from_votes(records, config)


@given(records=votes())
def test_exchanging_all_answers_exchanges_the_winners(records: list[PreferencePair]) -> None:
    turned = {"A": "B", "B": "A", "tie": "tie", "both-bad": "both-bad"}
    against = [dataclasses.replace(r, labels={"overall": turned[r.labels["overall"]]}) for r in records]  # type: ignore[dict-item]
    straight, swapped = (pairs_from_votes(some, VotesConfig()) for some in (records, against))
    assert straight.dropped == swapped.dropped
    for pair, other in zip(straight.pairs, swapped.pairs, strict=True):
        assert {pair.winner(), other.winner()} == {"A", "B"}
        assert pair.confidence == pytest.approx(other.confidence, abs=1e-12)


@given(clips=scored_clips(), share=st.floats(0.1, 0.9), seed=st.integers(0, 99))
def test_no_prompt_is_in_two_parts(clips: list[ScoredClip], share: float, seed: int) -> None:
    pairs = all_pairs(clips, AllPairsConfig(score="q")).pairs
    try:
        parts = split_pairs(pairs, SplitConfig(validation_share=share, seed=seed))
    except DataError:  # a part got none
        return
    keys = [{prompt_key(pair.prompt) for pair in part} for part in parts.values()]
    assert not keys[0] & keys[1]
    assert sum(map(len, parts.values())) == len(pairs)
