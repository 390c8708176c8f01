"""Which columns of a table of scores are VBench's, and which of its totals they can make: one family at a time."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from evaluation.base import Family
from evaluation.scores import Column, SystemScores
from evaluation.vbench_compat.totals import (
    TOTALS,
    VBENCH_DIMENSIONS,
    TotalFormula,
    TotalName,
    needed_dimensions,
    total_formula,
)

VBENCH_FAMILIES: tuple[Family, ...] = ("vbench-official", "vbench-port")
"""Two families give two rows of totals; no total ever holds numbers of both."""
_NAMED = 4  # problems that one sentence names


@dataclass(frozen=True, kw_only=True)
class TotalPlan:
    """Whether and how a total can be computed from a table."""

    family: Family
    name: TotalName
    columns: Mapping[str, str]
    """Dimension -> column, of what enters."""
    formula: TotalFormula | None
    """None where it is refused."""
    refused: str | None
    """Why, with what to do."""
    is_partial: bool
    """Whether dimensions or clips are left out, so that the number compares with no other."""


def dimension_of(column: Column) -> str | None:
    """Return VBench's dimension that a column holds, None if it holds none."""
    name = column.name.rpartition("/")[2]
    return name if column.family in VBENCH_FAMILIES and name in VBENCH_DIMENSIONS else None


def lacks_static_filter(column: Column) -> bool:
    """Tell whether a flickering score counts moving clips too, which VBench's own number never does."""
    return dimension_of(column) == "temporal_flickering" and column.first_of_prompt is None


def plan_totals(scores: SystemScores, *, partial: bool = False) -> tuple[TotalPlan, ...]:
    """Plan the three totals of each VBench family that has a column.

    A dimension is complete where each clip that it asks for has a value; clips that were skipped may lack one where
    VBench leaves them out too (color).

    Args:
        scores: One system's.
        partial: Whether to leave out what is missing or incomplete instead of refusing.
    """
    plans = []
    for family in VBENCH_FAMILIES:
        columns: dict[str, list[Column]] = {}
        for column in scores.columns:
            dimension = dimension_of(column)
            if column.family == family and dimension is not None:
                columns.setdefault(dimension, []).append(column)
        if columns:
            plans += [_plan(scores, family, name, columns, partial=partial) for name in TOTALS]
    return tuple(plans)


def _plan(
    scores: SystemScores, family: Family, name: TotalName, columns: Mapping[str, list[Column]], *, partial: bool
) -> TotalPlan:
    needed = needed_dimensions(name)
    twice = [dimension for dimension in needed if len(columns.get(dimension, ())) > 1]
    if twice:
        both = " and ".join(column.name for column in columns[twice[0]])
        message = f"{twice[0]} of {family} is there twice ({both}): keep one of them in this table"
        return TotalPlan(family=family, name=name, columns={}, formula=None, refused=message, is_partial=False)
    found = {dimension: columns[dimension][0].name for dimension in needed if dimension in columns}
    problems = [f"{dimension} was not measured" for dimension in needed if dimension not in found]
    problems += [problem for problem in (_gap(scores, *item) for item in found.items()) if problem]
    usable = {dim: column for dim, column in found.items() if np.isfinite(scores.values[column]).any()}
    groups = {VBENCH_DIMENSIONS[dimension].group for dimension in usable}
    lost = sorted({VBENCH_DIMENSIONS[dimension].group for dimension in needed} - groups)
    refused = None
    if problems and not partial:
        more = f" and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        refused = f"{'; '.join(problems[:_NAMED])}{more}: score what is missing, or ask for a partial total"
    elif lost:
        refused = f"no {' and no '.join(lost)} dimension has a value"
    formula = None if refused else total_formula(name, tuple(usable))
    return TotalPlan(
        family=family,
        name=name,
        columns={} if refused else usable,
        formula=formula,
        refused=refused,
        is_partial=refused is None and bool(problems),
    )


def _gap(scores: SystemScores, dimension: str, column: str) -> str | None:
    """Return what a column lacks for a total, None if nothing."""
    statuses, num_asked = scores.statuses[column], scores.num_asked(column)
    num_ok = statuses.count("ok")
    allowed = num_ok + (statuses.count("skipped") if VBENCH_DIMENSIONS[dimension].may_skip else 0)
    if num_ok and allowed == num_asked:
        return None
    return f"{dimension} has {num_ok} of {num_asked} values"
