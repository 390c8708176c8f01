"""Pairs from votes: what people said of the same two clips, added up and decided, per question.

Of one question about clips A and B, with every vote weighted by its record's `weight` (and its prompt's cap):

    n_A, n_B      votes for a side; a soft share s of k votes counts as k s and k (1 - s)
    n_tie, n_bad  votes "tie" and "both-bad"; n is the sum of all four
    w_A = n_A + (n_tie + n_bad) / 2,  w_B = n - w_A               nobody is preferred: half a vote for each
    p ~ Beta(1 + w_A, 1 + w_B)                                    uniform prior on the share that prefers A
    p_mean = (1 + w_A) / (2 + n)

A question is, in this order: "both-bad" where n_bad > n / 2; A (or B) where the rule says so, "posterior":
P(p > 1/2) > threshold (or P(p < 1/2) > threshold), "margin": p_mean - 1/2 > threshold (or 1/2 - p_mean > threshold);
"tie" where w_A = w_B or n_tie > n / 2; else undecided: too few votes, or too contrary ones.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rlhf_video.errors import ConfigError, DataError
from rlhf_video.preferences.pair import OVERALL, Label, PreferencePair, pair_to_json
from rlhf_video.preferences.pairing.scored import OVER_CAP, Pairing, pairing_of, swapped
from rlhf_video.settings import check_range
from rlhf_video.stats.beta_tail import beta_above

FEW_VOTES = "fewer votes than min_votes"
UNDECIDED = "the votes decide nothing"
TIE = "tie"
BOTH_BAD = "both clips are bad"

_EQUAL = 1e-9  # sums of weights that differ by less are equal


@dataclass(frozen=True, kw_only=True)
class VotesConfig:
    """When votes decide, and what becomes of pairs on which they do not."""

    question: str = OVERALL
    """Label that decides about the pair; the others are added up too and written where they are decided."""
    rule: Literal["posterior", "margin"] = "posterior"
    """Sure enough that more than half of all raters prefer one side, or a share far enough from one half."""
    threshold: float = 0.8
    """"posterior": in [0.5, 1); 0.8 (ours) takes 2:0 (0.875) and 3:1 (0.81), not 1:0 (0.75) nor 2:1 (0.69).
    "margin": distance of the mean share from one half, in [0, 0.5)."""
    min_votes: int = 1
    """Answers, unweighted, that a pair needs. 1 is ours: the posterior already asks for more."""
    ties: Literal["drop", "soft"] = "drop"
    """A tie is dropped (Diffusion-DPO, arXiv:2311.12908), or kept with the soft label 0.5."""
    both_bad: Literal["drop", "unpaired"] = "drop"
    """A pair of two bad clips is dropped, or kept with the label "both-bad": no loss of pairs uses it, an unpaired one
    (KTO, arXiv:2402.01306) reads two disliked clips."""
    soft_labels: bool = False
    """Whether a decided pair carries p_mean as its soft label too (PickScore, arXiv:2305.01569, trains on shares)."""
    max_votes_per_prompt: float | None = None
    """Most votes that a prompt counts for, > 0, all its pairs and this question together; beyond, each vote counts
    proportionally less. Votes on one prompt are not independent. None (ours): no cap."""
    max_pairs_per_prompt: int | None = None
    """The surest pairs that a prompt keeps, None for all (ours)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.rule == "posterior":
            check_range("threshold", self.threshold, least=0.5, below=1.0)
        elif not 0.0 <= self.threshold < 0.5:
            raise ConfigError(
                f"threshold={self.threshold} of rule=margin must be at least 0 and below 0.5: it is the distance of a "
                "share from one half, for example 0.1."
            )
        check_range("min_votes", self.min_votes, least=1)
        if self.max_votes_per_prompt is not None:
            check_range("max_votes_per_prompt", self.max_votes_per_prompt, above=0.0)
        if self.max_pairs_per_prompt is not None:
            check_range("max_pairs_per_prompt", self.max_pairs_per_prompt, least=1)


@dataclass(frozen=True)
class VoteCount:
    """The votes on one question about two clips."""

    a: float = 0.0
    b: float = 0.0
    tie: float = 0.0
    both_bad: float = 0.0
    num_votes: int = 0
    """Answers, unweighted."""

    @property
    def total(self) -> float:
        """Return the weight of all votes."""
        return self.a + self.b + self.tie + self.both_bad

    @property
    def for_a(self) -> float:
        """Return w_A."""
        return self.a + (self.tie + self.both_bad) / 2.0

    @property
    def mean_share(self) -> float:
        """Return p_mean, in (0, 1)."""
        return (1.0 + self.for_a) / (2.0 + self.total)

    @property
    def surety(self) -> float:
        """Return P(p > 1/2) or P(p < 1/2), whichever is larger, in [0.5, 1]."""
        above = beta_above(1.0 + self.for_a, 1.0 + self.total - self.for_a)
        return max(above, 1.0 - above)

    def plus(self, pair: PreferencePair, question: str) -> "VoteCount":
        """Return the count with one more record; one without an answer, or of weight 0, changes nothing."""
        answered = pair.weight > 0.0 and (question in pair.soft or question in pair.labels)
        votes = (pair.num_votes or 1) if answered else 0
        weight = votes * pair.weight
        share, label = pair.soft.get(question), pair.labels.get(question)
        if share is not None:
            a, b, tie, bad = share * weight, (1.0 - share) * weight, 0.0, 0.0
        else:
            a, b, tie, bad = (weight * (label == name) for name in ("A", "B", "tie", "both-bad"))
        return VoteCount(self.a + a, self.b + b, self.tie + tie, self.both_bad + bad, self.num_votes + votes)

    def scaled(self, factor: float) -> "VoteCount":
        """Return the count with every vote counting `factor` times; the number of answers stays."""
        return VoteCount(self.a * factor, self.b * factor, self.tie * factor, self.both_bad * factor, self.num_votes)

    def decide(self, config: VotesConfig) -> Label | None:
        """Return the label by the rule on top of this file, None where the votes decide nothing."""
        if self.both_bad > self.total / 2.0:
            return "both-bad"
        lead = 2.0 * self.for_a - self.total
        strength = self.surety if config.rule == "posterior" else abs(self.mean_share - 0.5)
        if abs(lead) > _EQUAL and strength > config.threshold:
            return "A" if lead > 0 else "B"
        return "tie" if abs(lead) <= _EQUAL or self.tie > self.total / 2.0 else None


def pairs_from_votes(votes: Sequence[PreferencePair], config: VotesConfig) -> Pairing:
    """Add up votes on the same two clips for the same prompt and keep the pairs that they decide.

    One comparison per pair of clips with an answer to the question; records of either order of the clips are one
    comparison. `num_votes` of a pair are its answers, `confidence` is P(p > 1/2) of the preferred side, `margin` is
    abs(p_mean - 1/2); other questions get a label where they are decided by the same rule. `weight` is 1, the votes'
    weights having been used; segment labels are those of raters and are left out.

    Args:
        votes: One record a vote, or records that are sums already (`soft` with `num_votes`); in any order.
        config: Rule, policies and caps.

    Raises:
        DataError: There is no vote.
    """
    if not votes:
        raise DataError("There are no votes to build pairs from: collect or import some first.")
    comparisons, unanswered = _gathered(votes, config.question)
    factors = _factors(comparisons, config)
    dropped: Counter[str] = Counter()
    pairs: list[PreferencePair] = []
    for (prompt, _, _), records in comparisons.items():
        questions = sorted({name for record in records for name in (*record.labels, *record.soft)})
        counts = {name: _count(records, name).scaled(factors[prompt]) for name in questions}
        made = _pair(records, counts, config)
        if isinstance(made, str):
            dropped[made] += 1
        else:
            pairs.append(made)
    pairs, dropped[OVER_CAP] = _surest_per_prompt(pairs, config.max_pairs_per_prompt)
    return pairing_of(pairs, dropped, {f"no counted answer to '{config.question}' about its clips": unanswered})


def oriented(pair: PreferencePair) -> PreferencePair:
    """Return the record with the clip of the smaller SHA-256 as A, labels and shares turned along."""
    if pair.a.sha256 < pair.b.sha256:
        return pair
    return dataclasses.replace(
        pair,
        a=pair.b,
        b=pair.a,
        labels={name: swapped(label) for name, label in pair.labels.items()},
        soft={name: 1.0 - share for name, share in pair.soft.items()},
        segments=tuple(dataclasses.replace(part, label=swapped(part.label)) for part in pair.segments),
    )


_Comparisons = dict[tuple[str, str, str], list[PreferencePair]]


def _gathered(votes: Sequence[PreferencePair], question: str) -> tuple[_Comparisons, int]:
    """Return the votes by (prompt, A, B), and the number of votes on clips that nobody answered the question about."""
    ordered = sorted(
        map(oriented, votes), key=lambda vote: (vote.prompt, vote.a.sha256, vote.b.sha256, pair_to_json(vote))
    )
    groups: _Comparisons = {}
    for vote in ordered:
        groups.setdefault((vote.prompt, vote.a.sha256, vote.b.sha256), []).append(vote)
    answered = {key: group for key, group in groups.items() if _count(group, question).total > 0.0}
    return answered, len(ordered) - sum(map(len, answered.values()))


def _count(records: Sequence[PreferencePair], question: str) -> VoteCount:
    count = VoteCount()
    for record in records:
        count = count.plus(record, question)
    return count


def _factors(comparisons: _Comparisons, config: VotesConfig) -> dict[str, float]:
    """Return what each vote of a prompt counts, at most 1, so that no prompt counts more than its cap."""
    totals: dict[str, float] = {}
    for (prompt, _, _), records in comparisons.items():
        totals[prompt] = totals.get(prompt, 0.0) + _count(records, config.question).total
    cap = config.max_votes_per_prompt
    return {prompt: 1.0 if cap is None else min(1.0, cap / total) for prompt, total in totals.items()}


def _pair(
    records: Sequence[PreferencePair], counts: Mapping[str, VoteCount], config: VotesConfig
) -> PreferencePair | str:
    """Return the pair that the votes decide, or why there is none."""
    count = counts[config.question]
    if count.num_votes < config.min_votes:
        return FEW_VOTES
    verdict = count.decide(config)
    if verdict is None:
        return UNDECIDED
    if verdict == "both-bad" and config.both_bad == "drop":
        return BOTH_BAD
    if verdict == "tie" and config.ties == "drop":
        return TIE
    labels = {name: label for name, other in counts.items() if (label := other.decide(config)) is not None}
    soft = {name: 0.5 for name, label in labels.items() if label == "tie" and config.ties == "soft"}
    if config.soft_labels:
        soft |= {name: counts[name].mean_share for name, label in labels.items() if label in ("A", "B")}
    decided = verdict in ("A", "B")
    sources = {record.source for record in records}
    return PreferencePair(
        prompt=records[0].prompt,
        a=records[0].a,
        b=records[0].b,
        labels=labels,
        soft=soft,
        margin=abs(count.mean_share - 0.5) if decided else None,
        confidence=count.surety if decided else None,
        num_votes=count.num_votes,
        source=sources.pop() if len(sources) == 1 else None,
    )


def _surest_per_prompt(pairs: Sequence[PreferencePair], most: int | None) -> tuple[list[PreferencePair], int]:
    """Keep the first `most` pairs of every prompt: the surest, then those of most votes, then by the clips' hashes."""

    def order(pair: PreferencePair) -> tuple[str, float, int, str, str]:
        return pair.prompt, -(pair.confidence or 0.0), -(pair.num_votes or 0), pair.a.sha256, pair.b.sha256

    ordered = sorted(pairs, key=order)
    grouped = itertools.groupby(ordered, key=lambda pair: pair.prompt)
    kept = [pair for _, group in grouped for pair in itertools.islice(group, most)]
    return kept, len(ordered) - len(kept)
