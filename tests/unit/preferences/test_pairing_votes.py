"""Votes become pairs where they decide; every policy, cap and number in closed form."""

import dataclasses
import hashlib
from typing import Any

import pytest

from rlhf_video.errors import ConfigError, DataError
from rlhf_video.preferences import ClipRecord, Label, PreferencePair, SegmentLabel
from rlhf_video.preferences.pairing import VotesConfig, pairs_from_votes
from rlhf_video.preferences.pairing.votes import oriented


def _clip(name: str) -> ClipRecord:
    return ClipRecord(path=f"clips/{name}.mkv", sha256=hashlib.sha256(name.encode()).hexdigest())


# The clip that becomes A, and the other one.
FIRST, SECOND = sorted((_clip("one"), _clip("two")), key=lambda clip: clip.sha256)


def _vote(label: Label | None = "A", prompt: str = "a red circle", **fields: Any) -> PreferencePair:
    labels: dict[str, Label] = {"overall": label} if label else {}
    return PreferencePair(**{"prompt": prompt, "a": FIRST, "b": SECOND, "labels": labels, "source": "arena", **fields})


def _votes(text: str, **fields: Any) -> list[PreferencePair]:
    """Return votes by letter: A, B, t(ie), x for both-bad."""
    names: dict[str, Label] = {"A": "A", "B": "B", "t": "tie", "x": "both-bad"}
    return [_vote(names[letter], **fields) for letter in text]


@pytest.mark.parametrize(
    ("votes", "winner", "confidence", "mean"),
    [
        ("AA", "A", 7 / 8, 3 / 4),
        ("BB", "B", 7 / 8, 1 / 4),
        ("AAAB", "A", 13 / 16, 4 / 6),
        ("AAAt", "A", None, 4.5 / 6),
        ("AAAAx", "A", None, 5.5 / 7),
    ],
)
def test_enough_votes_for_one_side_decide(votes: str, winner: str, confidence: float | None, mean: float) -> None:
    (pair,) = pairs_from_votes(_votes(votes), VotesConfig()).pairs
    assert pair.winner() == winner
    assert pair.margin == pytest.approx(abs(mean - 0.5))
    assert pair.num_votes == len(votes)
    assert (pair.source, pair.weight, pair.soft) == ("arena", 1.0, {})
    assert pair.confidence is not None and pair.confidence > 0.8
    if confidence is not None:
        assert pair.confidence == pytest.approx(confidence, abs=1e-12)


@pytest.mark.parametrize(
    ("votes", "reason"),
    [
        ("A", "the votes decide nothing"),
        ("AAB", "the votes decide nothing"),
        ("At", "the votes decide nothing"),
        ("AB", "tie"),
        ("tA t", "tie"),
        ("ttA", "tie"),
        ("xxA", "both clips are bad"),
    ],
)
def test_what_votes_do_not_decide_is_dropped_by_name(votes: str, reason: str) -> None:
    made = pairs_from_votes(_votes(votes.replace(" ", "")), VotesConfig())
    assert (made.pairs, made.dropped) == ((), {reason: 1})


def test_the_margin_rule_looks_at_the_share_alone() -> None:
    config = VotesConfig(rule="margin", threshold=0.16)
    assert pairs_from_votes(_votes("A"), config).pairs[0].margin == pytest.approx(1 / 6)  # 2/3 - 1/2
    assert pairs_from_votes(_votes("AAB"), config).dropped == {"the votes decide nothing": 1}  # 3/5 - 1/2
    assert pairs_from_votes(_votes("AAAABB"), config).dropped == {"the votes decide nothing": 1}  # 5/8 - 1/2


def test_ties_can_be_kept_with_a_soft_label() -> None:
    (pair,) = pairs_from_votes(_votes("ttA"), VotesConfig(ties="soft")).pairs
    assert (pair.labels, pair.soft, pair.winner()) == ({"overall": "tie"}, {"overall": 0.5}, None)
    assert (pair.margin, pair.confidence, pair.num_votes) == (None, None, 3)


def test_both_bad_can_be_kept_for_unpaired_losses() -> None:
    (pair,) = pairs_from_votes(_votes("xxA"), VotesConfig(both_bad="unpaired")).pairs
    assert (pair.labels, pair.soft, pair.winner()) == ({"overall": "both-bad"}, {}, None)


def test_soft_labels_are_the_mean_share() -> None:
    (pair,) = pairs_from_votes(_votes("BBBt"), VotesConfig(soft_labels=True)).pairs
    assert pair.soft == {"overall": pytest.approx(1.5 / 6)}
    assert pair.winner() == "B"


def test_a_swapped_record_is_the_same_vote() -> None:
    straight = _vote("A", soft={"motion": 0.25}, segments=(SegmentLabel(start=0, stop=4, label="B"),))
    turned = _vote("B", a=SECOND, b=FIRST, soft={"motion": 0.75}, segments=(SegmentLabel(start=0, stop=4, label="A"),))
    assert oriented(turned) == straight == oriented(straight)
    mixed = pairs_from_votes([straight, turned, turned], VotesConfig())
    assert mixed.pairs[0].labels["overall"] == "A"
    assert mixed.pairs[0].num_votes == 3


def test_votes_count_by_their_weight_and_those_of_weight_zero_not_at_all() -> None:
    light = [*_votes("AA", weight=0.1), *_votes("BB")]
    assert pairs_from_votes(light, VotesConfig(threshold=0.75)).pairs[0].winner() == "B"
    excluded = pairs_from_votes([*_votes("AAA", weight=0.0), *_votes("BB")], VotesConfig())
    assert (excluded.pairs[0].winner(), excluded.pairs[0].num_votes) == ("B", 2)
    nobody = pairs_from_votes(_votes("AA", weight=0.0), VotesConfig())
    assert (nobody.pairs, nobody.dropped) == ((), {})
    assert nobody.unused == {"no counted answer to 'overall' about its clips": 2}


def test_a_record_may_be_a_sum_of_votes_already() -> None:
    summed = _vote(None, soft={"overall": 0.75}, num_votes=4)
    (pair,) = pairs_from_votes([summed], VotesConfig()).pairs
    assert (pair.num_votes, pair.margin) == (4, pytest.approx(4 / 6 - 0.5))
    assert pair.confidence == pairs_from_votes(_votes("AAAB"), VotesConfig()).pairs[0].confidence


def test_other_questions_are_added_up_too_and_one_of_them_may_decide() -> None:
    votes = [_vote("A", labels={"overall": "A", "motion": "B", "text": "A"}), _vote("A", labels={"motion": "B"})]
    made = pairs_from_votes(votes, VotesConfig(question="motion"))
    assert made.pairs[0].labels == {"motion": "B"}  # one vote on the others decides nothing
    assert pairs_from_votes(votes, VotesConfig()).dropped == {"the votes decide nothing": 1}
    unasked = pairs_from_votes([*votes, _vote(prompt="another prompt")], VotesConfig(question="motion"))
    assert unasked.unused == {"no counted answer to 'motion' about its clips": 1}


def test_pairs_need_their_least_number_of_votes() -> None:
    made = pairs_from_votes(_votes("AA"), VotesConfig(min_votes=3))
    assert made.dropped == {"fewer votes than min_votes": 1}


def test_a_prompt_counts_for_no_more_votes_than_its_cap() -> None:
    # 8 : 0 capped at 2 votes in all is as sure as 2 : 0; the other prompt is below its cap.
    votes = [*_votes("A" * 8), *_votes("BBB", prompt="another prompt")]
    made = pairs_from_votes(votes, VotesConfig(max_votes_per_prompt=3.0))
    by_prompt = {pair.prompt: pair for pair in made.pairs}
    assert by_prompt["a red circle"].confidence == pytest.approx(15 / 16)
    assert by_prompt["a red circle"].num_votes == 8
    assert by_prompt["another prompt"].confidence == pytest.approx(15 / 16)


def test_a_prompt_keeps_its_surest_pairs() -> None:
    third = _clip("three")
    votes = [*_votes("AA"), *_votes("AAAA", b=third), *_votes("BBB", a=SECOND, b=third), *_votes("AA", prompt="other")]
    made = pairs_from_votes(votes, VotesConfig(max_pairs_per_prompt=1))
    assert [(pair.prompt, pair.num_votes) for pair in made.pairs] == [("a red circle", 4), ("other", 2)]
    assert made.dropped == {"over the cap of its prompt": 2}


def test_mixed_sources_are_not_called_one() -> None:
    votes = [_vote("A"), _vote("A", source="synthetic")]
    assert pairs_from_votes(votes, VotesConfig()).pairs[0].source is None


def test_the_order_of_the_votes_changes_nothing() -> None:
    votes = [*_votes("AAtB", weight=0.3), *_votes("AAA", weight=0.7), *_votes("BB", prompt="other")]
    config = VotesConfig(soft_labels=True, threshold=0.6)
    assert pairs_from_votes(votes, config) == pairs_from_votes(votes[::-1], config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"threshold": 0.4}, "threshold"),
        ({"rule": "margin"}, "distance of a share"),
        ({"min_votes": 0}, "min_votes"),
        ({"max_votes_per_prompt": 0.0}, "max_votes_per_prompt"),
        ({"max_pairs_per_prompt": 0}, "max_pairs_per_prompt"),
    ],
)
def test_settings_out_of_their_range_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(VotesConfig(), **fields)


def test_no_votes_are_an_error() -> None:
    with pytest.raises(DataError, match="no votes"):
        pairs_from_votes([], VotesConfig())
