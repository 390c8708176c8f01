"""Which clips of several systems belong together, and how scores are written."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.aggregation.comparison import SystemComparison
from evaluation.clips.clip_pairs import pair_clips
from evaluation.scores import Column, SystemScores
from rlhf_video.errors import DataError
from rlhf_video.stats import Interval

_SHARES = ("share",)


@dataclass(frozen=True)
class ClipRow:
    """One clip of each system, made for the same prompt and from the same noise where it is known."""

    prompt: str
    label: str
    """"seed 3", or "clip 1" where no seed says what belongs together."""
    indices: tuple[int | None, ...]
    """Entry of each system, in the order of the systems; None where it has no such clip."""


def paired_on(comparisons: Sequence[SystemComparison]) -> str:
    """Return what the two clips of a pair share, in words; the least that is true of every comparison."""
    by_seed = all(comparison.paired_by == "seed" for comparison in comparisons)
    return "the same prompt and noise" if by_seed else "the same prompt and sample number (not the same noise)"


def match_clips(scores: Sequence[SystemScores]) -> list[ClipRow]:
    """Return a row per clip of the first system, then the clips that only others have.

    Clips match as in comparisons (`clip_pairs.pair_clips`), each system with the first.

    Args:
        scores: Systems, the baseline first.
    """
    first, by_seed = scores[0], True
    held: list[list[int | None]] = [[index] + [None] * (len(scores) - 1) for index in range(len(first.entries))]
    extra: list[list[int | None]] = []
    for place, system in enumerate(scores[1:], start=1):
        partners: dict[int, int] = {}
        try:
            pairs = pair_clips(first, system)
        except DataError:  # no clip in common: every clip gets a row of its own
            by_seed = False
        else:
            partners = {int(b): int(a) for a, b in zip(pairs.baseline, pairs.system, strict=True)}
            by_seed = by_seed and pairs.paired_by == "seed"
        for index in range(len(system.entries)):
            if index in partners:
                held[partners[index]][place] = index
            else:
                extra.append([None] * place + [index] + [None] * (len(scores) - 1 - place))
    return [_row(scores, indices, by_seed=by_seed) for indices in [*held, *extra]]


def row_values(scores: Sequence[SystemScores], rows: Sequence[ClipRow], column: Column) -> NDArray[np.float64]:
    """Return the values of a column, shape (rows, systems), NaN where a system lacks it or was measured otherwise."""
    values = np.full((len(rows), len(scores)), np.nan)
    for place, system in enumerate(scores):
        if system.has(column):
            for index, row in enumerate(rows):
                entry = row.indices[place]
                if entry is not None:
                    values[index, place] = system.values[column.name][entry]
    return values


def label_of(column: Column) -> str:
    """Return a column's name as a reader calls it: "judge: all right" for "judge/all_right"."""
    return column.name.replace("/", ": ").replace("_", " ")


def direction_of(column: Column) -> str:
    """Return "higher is better", "lower is better" or "neither direction is better"."""
    if column.higher_is_better is None:
        return "neither direction is better"
    return "higher is better" if column.higher_is_better else "lower is better"


def write_value(value: float, column: Column, spread: float) -> str:
    """Return a value as text, with the digits that its spread supports.

    Args:
        value: In the column's unit; NaN becomes a dash.
        column: Shares are written in percent.
        spread: What is known about it, such as half of its interval; more than two digits of it say nothing.
    """
    return _write(value, column, spread, sign="")


def write_difference(difference: Interval, column: Column) -> tuple[str, str]:
    """Return a difference and its interval as texts, such as ("+0.12", "+0.04 to +0.21")."""
    spread = half_width(difference)
    if not math.isfinite(spread):
        return _write(difference.mean, column, abs(difference.mean), sign="+"), "one prompt: no interval"
    ends = [_write(end, column, spread, sign="+").removesuffix(" pts") for end in (difference.low, difference.high)]
    return _write(difference.mean, column, spread, sign="+"), f"{ends[0]} to {ends[1]}"


def half_width(interval: Interval) -> float:
    """Return half the width of an interval."""
    return (interval.high - interval.low) / 2.0


def _write(value: float, column: Column, spread: float, *, sign: str) -> str:
    if not math.isfinite(value):
        return "—"
    factor, unit = (100.0, "%" if not sign else " pts") if column.unit in _SHARES else (1.0, "")
    spread = factor * spread
    digits = 3 if not math.isfinite(spread) or spread <= 0.0 else 1 - math.floor(math.log10(spread))
    return f"{factor * value:{sign}.{max(0, min(digits, 6))}f}{unit}"


def _row(scores: Sequence[SystemScores], indices: Sequence[int | None], *, by_seed: bool) -> ClipRow:
    entry = next(system.entries[i] for system, i in zip(scores, indices, strict=True) if i is not None)
    label = f"seed {entry.seed}" if by_seed and entry.seed is not None else f"clip {entry.sample + 1}"
    return ClipRow(entry.prompt, label, tuple(indices))
