"""Scores of one system in columns: what intervals, comparisons and reports are computed from."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.base import ClipEntry, Family, Status
from rlhf_video.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Column:
    """One number per clip."""

    name: str
    """"label/dimension", or the label alone for a metric of one dimension of its own name."""
    family: Family
    unit: str
    higher_is_better: bool | None


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

    def asked(self, name: str) -> NDArray[np.bool_]:
        """Return which clips a column is asked of, shape (entries,)."""
        return np.array([status is not None for status in self.statuses[name]], dtype=bool)

    def coverage(self, name: str) -> float:
        """Return the share in [0, 1] of asked clips that have a value; 0 where none is asked."""
        asked = self.asked(name)
        return float(np.isfinite(self.values[name][asked]).mean()) if asked.any() else 0.0
