"""Which clips of several systems belong together, and how scores are written."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.base import ClipEntry
from evaluation.scores import Column, SystemScores
from rlhf_video.stats import Interval

_SHARES = ("share",)
_Key = tuple[str, int | None]  # prompt, and seed or sample


@dataclass(frozen=True)
class ClipRow:
    """One clip of each system, made for the same prompt and from the same noise where it is known."""

    prompt: str
    label: str
    """"seed 3", or "clip 1" where no seed says what belongs together."""
    indices: tuple[int | None, ...]
    """Entry of each system, in the order of the systems; None where it has no such clip."""


def match_clips(scores: Sequence[SystemScores]) -> list[ClipRow]:
    """Return rows in the order of the first system, then what only others have.

    Clips match by prompt and seed where every clip has a seed, no system repeats one on a prompt, and any clips meet;
    else by prompt and sample number.

    Args:
        scores: Systems, the baseline first.
    """
    by_seed = _matched([[(entry.prompt, entry.seed) for entry in system.entries] for system in scores])
    if all(_has_unique_seeds(system.entries) for system in scores) and _num_whole(by_seed) > 0:
        return [ClipRow(prompt, f"seed {seed}", indices) for (prompt, seed), indices in by_seed.items()]
    by_sample = _matched([[(entry.prompt, entry.sample) for entry in system.entries] for system in scores])
    return [ClipRow(prompt, f"clip {int(sample or 0) + 1}", indices) for (prompt, sample), indices in by_sample.items()]


def row_values(scores: Sequence[SystemScores], rows: Sequence[ClipRow], name: str) -> NDArray[np.float64]:
    """Return the values of a column, shape (rows, systems), NaN where there is none."""
    values = np.full((len(rows), len(scores)), np.nan)
    for place, system in enumerate(scores):
        if name in system.values:
            for index, row in enumerate(rows):
                entry = row.indices[place]
                if entry is not None:
                    values[index, place] = system.values[name][entry]
    return values


def label_of(column: Column) -> str:
    """Return a column's name as a reader calls it: underscores are spaces."""
    return column.name.replace("_", " ")


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
    ends = [_write(end, column, spread, sign="+") for end in (difference.low, difference.high)]
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


def _matched(keys: Sequence[Sequence[_Key]]) -> dict[_Key, tuple[int | None, ...]]:
    rows: dict[_Key, list[int | None]] = {}
    for place, system in enumerate(keys):
        for index, key in enumerate(system):
            rows.setdefault(key, [None] * len(keys))[place] = index
    return {key: tuple(indices) for key, indices in rows.items()}


def _num_whole(rows: Mapping[_Key, tuple[int | None, ...]]) -> int:
    return sum(all(index is not None for index in indices) for indices in rows.values())


def _has_unique_seeds(entries: Sequence[ClipEntry]) -> bool:
    keys = Counter((entry.prompt, entry.seed) for entry in entries)
    return all(entry.seed is not None for entry in entries) and max(keys.values(), default=1) == 1
