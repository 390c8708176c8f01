"""Pairs by a single score: best against worst of N (as VideoDPO, arXiv:2412.14167), or every two that differ enough."""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rlhf_video.preferences.pair import PreferencePair
from rlhf_video.preferences.pairing.scored import (
    OVER_CAP,
    Pairing,
    ScoredClip,
    cap_per_prompt,
    make_pair,
    pairing_of,
    refused_margin,
    usable_by_prompt,
)
from rlhf_video.settings import check_range

NEITHER = "neither best nor worst of its prompt"


@dataclass(frozen=True, kw_only=True)
class BestWorstConfig:
    """Best against worst clip of every prompt: one pair a prompt."""

    score: str
    """Name of the score that decides."""
    min_margin: float = 0.0
    """Least difference of the two scores, >= 0, in the unit of the score. 0 (ours): only equal scores are dropped."""

    @property
    def score_names(self) -> tuple[str, ...]:
        """Return the scores that every clip needs."""
        return (self.score,)

    def __post_init__(self) -> None:
        """Check the range."""
        check_range("min_margin", self.min_margin, least=0.0)


@dataclass(frozen=True, kw_only=True)
class AllPairsConfig:
    """Every two clips of a prompt whose scores differ enough."""

    score: str
    """Name of the score that decides."""
    min_margin: float = 0.0
    """Least difference of the two scores, >= 0, in the unit of the score. 0 (ours): only equal scores are dropped."""
    max_pairs_per_prompt: int | None = None
    """The pairs of largest margin that a prompt keeps, None for all. N clips make N (N - 1) / 2 pairs, which are not
    independent: without a cap the prompts with most clips decide (ours)."""

    @property
    def score_names(self) -> tuple[str, ...]:
        """Return the scores that every clip needs."""
        return (self.score,)

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("min_margin", self.min_margin, least=0.0)
        if self.max_pairs_per_prompt is not None:
            check_range("max_pairs_per_prompt", self.max_pairs_per_prompt, least=1)


def best_worst(clips: Sequence[ScoredClip], config: BestWorstConfig, *, source: str = "reward") -> Pairing:
    """Pair the best with the worst clip of every prompt.

    One comparison a prompt with at least two usable clips. `margin` of a pair is the difference of the scores.
    Of equal scores the clip with the smaller SHA-256 counts as the better one, so that the choice is repeatable.

    Args:
        clips: In any order.
        config: Score and least margin.
        source: Where the labels are from, written into the pairs.

    Raises:
        DataError: There is no clip.
        ConfigError: No clip has the score.
    """
    groups, unused = usable_by_prompt(clips, config.score_names)
    unused[NEITHER] = sum(len(group) - 2 for group in groups.values())
    pairs, dropped = _compared(groups.values(), config.score, config.min_margin, source)
    return pairing_of(pairs, dropped, unused)


def all_pairs(clips: Sequence[ScoredClip], config: AllPairsConfig, *, source: str = "reward") -> Pairing:
    """Pair every two clips of a prompt whose scores differ by the least margin.

    N (N - 1) / 2 comparisons a prompt with N usable clips. `margin` of a pair is the difference of the scores.

    Args:
        clips: In any order.
        config: Score, least margin and cap.
        source: Where the labels are from, written into the pairs.

    Raises:
        DataError: There is no clip.
        ConfigError: No clip has the score.
    """
    groups, unused = usable_by_prompt(clips, config.score_names)
    every_two = itertools.chain.from_iterable(itertools.combinations(group, 2) for group in groups.values())
    pairs, dropped = _compared(every_two, config.score, config.min_margin, source)
    pairs, dropped[OVER_CAP] = cap_per_prompt(pairs, config.max_pairs_per_prompt)
    return pairing_of(pairs, dropped, unused)


def extremes(group: Sequence[ScoredClip], values: Mapping[str, float]) -> tuple[ScoredClip, ScoredClip]:
    """Return the best and the worst of at least two clips; equal values stand in the order of their SHA-256.

    Args:
        group: Clips of one prompt.
        values: Value by SHA-256, higher is better.
    """
    ordered = sorted(group, key=lambda scored: (-values[scored.clip.sha256], scored.clip.sha256))
    return ordered[0], ordered[-1]


def _compared(
    groups: Iterable[Sequence[ScoredClip]], score: str, min_margin: float, source: str
) -> tuple[list[PreferencePair], Counter[str]]:
    """Compare the best with the worst of every group; return the pairs, and why others are none."""
    dropped: Counter[str] = Counter()
    pairs: list[PreferencePair] = []
    for group in groups:
        best, worst = extremes(group, {scored.clip.sha256: scored.scores[score] for scored in group})
        margin = best.scores[score] - worst.scores[score]
        reason = refused_margin(margin, min_margin)
        if reason:
            dropped[reason] += 1
        else:
            pairs.append(make_pair(best, worst, margin=margin, source=source))
    return pairs, dropped
