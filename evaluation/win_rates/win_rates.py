"""How often one system's clip is preferred to another's: from preference records, or from scores of clips."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, get_args

import numpy as np

from rlhf_video.errors import ConfigError, DataError
from rlhf_video.preferences import OVERALL, ClipRecord, PreferencePair
from rlhf_video.reward_scores import ScoredClip
from rlhf_video.stats import (
    Comparisons,
    Interval,
    RankedSystem,
    clustered_covariance,
    connected_parts,
    fit_ranking,
    normal_draws,
    rank_systems,
    share_interval,
)

TiePolicy = Literal["half", "drop", "loss"]
"""What a tie is worth: half a win to each side; nothing, it is left out; nothing, but it counts as a comparison."""
PRIOR_SD = 1.0
"""Prior of strengths, in log-odds, where some system never lost or never won; see `fit_ranking`."""


@dataclass(frozen=True, kw_only=True)
class WinRate:
    """One system against another."""

    system: str
    opponent: str
    rate: Interval
    """Share of comparisons that `system` won, in [0, 1], ties by the policy, with Wilson's interval over prompts."""
    num_wins: int
    num_ties: int
    num_losses: int


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Everything that a table of comparisons says."""

    rates: tuple[WinRate, ...]
    """One for every two systems that met, the first by name against the second."""
    ranking: tuple[RankedSystem, ...]
    """Bradley-Terry, strongest first; empty for two systems."""
    notes: tuple[str, ...]
    """What was left out, and what to keep in mind."""


def system_name(clip: ClipRecord) -> str | None:
    """Return what a table calls the maker of a clip: its adapter, else its model; None where neither is recorded."""
    return clip.adapter or clip.model


def comparisons_of_pairs(
    pairs: Sequence[PreferencePair], *, question: str = OVERALL, names: Mapping[str, str] | None = None
) -> tuple[Comparisons, tuple[str, ...]]:
    """Read comparisons between systems from preference records; "both-bad" is a tie.

    Args:
        pairs: Records whose clips say which model or adapter made them.
        question: Label that counts.
        names: Recorded model or adapter -> what to call it.

    Returns:
        The table, and what was left out with its reason.

    Raises:
        DataError: No record compares two systems on this question.
    """
    rows, left_out = [], Counter[str]()
    renamed = names or {}
    for pair in pairs:
        a, b = (system_name(clip) for clip in pair.clips)
        if question not in pair.labels and question not in pair.soft:
            left_out[f"have no answer to '{question}'"] += 1
        elif a is None or b is None:
            left_out["do not say which model or adapter made a clip"] += 1
        elif renamed.get(a, a) == renamed.get(b, b):
            left_out["compare a system with itself"] += 1
        else:
            rows.append((renamed.get(a, a), renamed.get(b, b), pair.winner(question) or "tie", pair.prompt))
    notes = tuple(f"{count} of {len(pairs)} records {reason}: left out." for reason, count in left_out.items())
    if not rows:
        raise DataError(
            f"No record compares two systems. {' '.join(notes)} Give records whose clips name different models or "
            "adapters, and answer the question."
        )
    first, second, labels, prompts = zip(*rows, strict=True)
    return Comparisons.from_labels(first, second, labels, prompts=prompts), notes


def comparisons_of_scores(
    scores: Mapping[str, Sequence[ScoredClip]], dimension: str, *, higher_is_better: bool = True, margin: float = 0.0
) -> tuple[Comparisons, tuple[str, ...]]:
    """Compare the clips of each prompt between systems by a score; the k-th clip of a prompt meets the other's k-th.

    Args:
        scores: System -> its clips in the order of their files, at least two systems.
        dimension: Which score counts.
        higher_is_better: Its direction.
        margin: Differences up to this are ties, >= 0.

    Returns:
        The table, and what was left out with its reason.

    Raises:
        ConfigError: A negative margin, or no clip has such a dimension.
        DataError: No prompt has scored clips of two systems.
    """
    if not margin >= 0.0:
        raise ConfigError(f"margin={margin} must be 0 or more, in the unit of the score.")
    known = sorted({name for clips in scores.values() for clip in clips for name in clip.values or ()})
    if dimension not in known:
        raise ConfigError(f"No clip has a score '{dimension}'. Known: {', '.join(known) or 'none, all failed'}.")
    tables = {system: _by_prompt(clips, dimension) for system, clips in scores.items()}
    rows, lonely = [], 0
    for a, b in combinations(tables, 2):
        keys = {key for key, value in tables[a].items() if value is not None}
        other = {key for key, value in tables[b].items() if value is not None}
        lonely += len(tables[a].keys() | tables[b].keys()) - len(keys & other)
        for key in sorted(keys & other):
            gap = (tables[a][key] or 0.0) - (tables[b][key] or 0.0)
            gap = gap if higher_is_better else -gap
            rows.append((a, b, "tie" if abs(gap) <= margin else ("A" if gap > 0 else "B"), key[0]))
    notes = (f"{lonely} clips without a scored partner of the same prompt: left out.",) if lonely else ()
    if not rows:
        raise DataError("No prompt has scored clips of two systems: score clips that were made for the same prompts.")
    first, second, labels, prompts = zip(*rows, strict=True)
    return Comparisons.from_labels(first, second, labels, prompts=prompts), notes


def standing(comparisons: Comparisons, *, ties: TiePolicy = "half", level: float = 0.95, seed: int = 0) -> Standing:
    """Return win rates of all two systems that met, and with more than two systems their Bradley-Terry ranking.

    The ranking counts ties as half wins, or leaves them out under the policy "drop".

    Args:
        comparisons: With prompts.
        ties: What a tie is worth in the win rates.
        level: Confidence level in (0, 1).
        seed: Of the ranking's draws.

    Raises:
        ConfigError: An unknown policy.
        DataError: Nothing is left, or the level is not in (0, 1).
    """
    if ties not in get_args(TiePolicy):
        raise ConfigError(f"ties={ties!r} is not known. Known: {', '.join(get_args(TiePolicy))}.")
    rates = tuple(
        rate
        for a, b in combinations(range(len(comparisons.systems)), 2)
        if (rate := _rate(comparisons, a, b, ties, level)) is not None
    )
    if not rates:
        raise DataError("Every comparison is a tie, and ties are left out: use the policy 'half'.")
    ranking, notes = _rank(comparisons, ties, level, seed) if len(comparisons.systems) > 2 else ((), ())
    return Standing(rates=rates, ranking=ranking, notes=notes)


def _by_prompt(clips: Sequence[ScoredClip], dimension: str) -> dict[tuple[str, int], float | None]:
    """Return the score of each clip by prompt and number among its prompt's clips, None where it failed."""
    seen, table = Counter[str](), {}
    for clip in clips:
        table[clip.prompt, seen[clip.prompt]] = None if clip.values is None else clip.values.get(dimension)
        seen[clip.prompt] += 1
    return table


def _rate(comparisons: Comparisons, a: int, b: int, ties: TiePolicy, level: float) -> WinRate | None:
    """Return the win rate of system a against b, None where they never met or only tied with ties left out."""
    forward = (comparisons.first == a) & (comparisons.second == b)
    backward = (comparisons.first == b) & (comparisons.second == a)
    outcome = np.where(forward, 1, -1) * comparisons.outcome
    met = forward | backward
    counted = met & (outcome != 0) if ties == "drop" else met
    if not counted.any():
        return None
    points = np.where(outcome == 0, 0.5 if ties == "half" else 0.0, outcome > 0)[counted]
    clusters = comparisons.cluster_index("prompt")[counted]
    return WinRate(
        system=comparisons.systems[a],
        opponent=comparisons.systems[b],
        rate=share_interval(points, clusters, level=level),
        num_wins=int((outcome[met] > 0).sum()),
        num_ties=int((outcome[met] == 0).sum()),
        num_losses=int((outcome[met] < 0).sum()),
    )


def _rank(
    comparisons: Comparisons, ties: TiePolicy, level: float, seed: int
) -> tuple[tuple[RankedSystem, ...], tuple[str, ...]]:
    table = comparisons.rows(comparisons.outcome != 0) if ties == "drop" else comparisons
    if len(np.unique(table.cluster_index("prompt"))) < 2:
        return (), ("No ranking: all comparisons share one prompt.",)
    parts = connected_parts(table)
    if len(parts) > 1 or len(parts[0].systems) < len(table.systems):
        return (), ("No ranking: some systems are joined by no chain of comparisons.",)
    notes: tuple[str, ...] = ()
    ranking = fit_ranking(table, prior_sd=PRIOR_SD)
    if ranking.separation is None:
        ranking = fit_ranking(table)
    else:
        notes = (f"A prior of {PRIOR_SD:g} log-odds keeps the ranking finite: {ranking.separation}.",)
    drawn = normal_draws(ranking, clustered_covariance(ranking, "prompt"), seed=seed)
    return rank_systems(drawn, level=level), notes
