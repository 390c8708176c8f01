"""Scores of one system in columns: what intervals, comparisons and reports are computed from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evaluation.base import ClipEntry, Family, LeftOutClip, Status
from rlhf_video.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Column:
    """One number per clip."""

    name: str
    """"label/dimension", or the label alone for a metric of one dimension of its own name."""
    family: Family
    unit: str
    higher_is_better: bool | None
    metric: str = ""
    """Key of the metric (name, version, options, weights): equal names of two runs may be different metrics. Empty
    where nobody recorded it."""
    first_of_prompt: int | None = None
    """Of the clips of a prompt that have a value, only so many count; None: all. See `MetricSpec`."""


@dataclass(frozen=True, kw_only=True)
class SystemScores:
    """All values of one system (a base model, an adapter, somebody's clips)."""

    system: str
    """As tables call it."""
    entries: tuple[ClipEntry, ...]
    columns: tuple[Column, ...]
    values: Mapping[str, NDArray[np.float64]]
    """Column name -> shape (entries,), NaN where the status is not ok."""
    statuses: Mapping[str, tuple[Status | None, ...]]
    """Column name -> status of each entry; None where the suite does not ask this column of the clip's prompt."""
    reasons: Mapping[str, Mapping[int, str]]
    """Column name -> entry's index -> why it was skipped or failed."""
    left_out: Mapping[str, tuple[LeftOutClip, ...]] = field(default_factory=dict)
    """Column name -> clips that the suite asks this column of and the system lacks, or that are broken."""
    beyond_first: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Column name -> shape (entries,), what clips after the first of their prompt would count, else NaN; of columns
    with `first_of_prompt`. Comparisons choose among pairs instead."""

    def __post_init__(self) -> None:
        """Check that every column is complete."""
        names = [column.name for column in self.columns]
        for held in (self.values, self.statuses):
            if sorted(held) != sorted(names) or any(len(held[name]) != len(self.entries) for name in names):
                raise DataError(f"Scores of '{self.system}' are ragged: every column needs one entry per clip.")

    @property
    def clusters(self) -> NDArray[np.int64]:
        """Prompt number of each clip, shape (entries,): clips of one prompt are resampled together."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(entry.prompt, len(numbers)) for entry in self.entries], dtype=np.int64)

    def column(self, name: str) -> Column:
        """Return a column by name.

        Raises:
            DataError: There is none.
        """
        for column in self.columns:
            if column.name == name:
                return column
        known = ", ".join(column.name for column in self.columns)
        raise DataError(f"Unknown score '{name}' of '{self.system}'. Known: {known}.")

    def has(self, column: Column) -> bool:
        """Tell whether this very column is here: a name alone may be another version, other options or weights."""
        return column in self.columns

    def asked(self, name: str) -> NDArray[np.bool_]:
        """Return which clips a column is asked of, shape (entries,)."""
        return np.array([status is not None for status in self.statuses[name]], dtype=bool)

    def passed(self, name: str) -> NDArray[np.float64]:
        """Return the values of a column with those of clips after the first of their prompt, shape (entries,)."""
        values = self.values[name]
        return np.where(np.isnan(values), self.beyond_first[name], values) if name in self.beyond_first else values

    def num_asked(self, name: str) -> int:
        """Return of how many clips the suite asks a column, those that are left out among them."""
        return int(self.asked(name).sum()) + len(self.left_out.get(name, ()))

    def num_ok(self, name: str) -> int:
        """Return how many clips a column counts."""
        return self.statuses[name].count("ok")

    def coverage(self, name: str) -> float:
        """Return the share in [0, 1] of the clips asked of a column that have a value; 0 where none is asked."""
        num_ok = int(np.isfinite(self.values[name][self.asked(name)]).sum())
        return num_ok / max(self.num_asked(name), 1)

    @property
    def all_left_out(self) -> tuple[LeftOutClip, ...]:
        """Every clip that is left out of any column, once."""
        return tuple(dict.fromkeys(clip for clips in self.left_out.values() for clip in clips))


def renamed_columns(first: SystemScores, second: SystemScores) -> list[str]:
    """Return the names of columns whose metric the other system has, but not under that name; sorted."""
    renamed = set()
    for scores, other in ((first, second), (second, first)):
        names, metrics = {column.name for column in other.columns}, {column.metric for column in other.columns} - {""}
        renamed |= {column.name for column in scores.columns if column.metric in metrics and column.name not in names}
    return sorted(renamed)
