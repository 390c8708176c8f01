"""One system's scores in few numbers: a mean with its interval for each column, VBench's totals, and warnings."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.base import Family
from evaluation.scores import Column, SystemScores
from evaluation.vbench_compat.columns import VBENCH_FAMILIES, TotalPlan, dimension_of, lacks_static_filter, plan_totals
from evaluation.vbench_compat.length_rule import length_warnings
from evaluation.vbench_compat.totals import VBENCH_DIMENSIONS, TotalName
from rlhf_video.stats import Interval, JointMeans, bootstrap_mean, share_interval

FEW_PROMPTS = 8
"""Below so many prompts an interval is more a warning than a measurement."""


@dataclass(frozen=True, kw_only=True)
class DimensionSummary:
    """One column."""

    column: Column
    interval: Interval
    """Mean over clips with its 95% interval, prompts resampled whole; NaN with infinite ends without any value."""
    num_ok: int
    num_skipped: int
    num_failed: int
    num_left_out: int
    """Clips that the system lacks, or that are broken."""
    num_asked: int
    """Clips whose prompt the suite asks this column of, those that are left out among them."""
    coverage: float
    """Share in [0, 1] of the asked clips that have a value."""


@dataclass(frozen=True, kw_only=True)
class Total:
    """One of VBench's totals, of one family of metrics."""

    family: Family
    name: TotalName
    interval: Interval | None
    """On VBench's scale of 0 to 1; None where refused."""
    refused: str | None
    """Why there is none."""
    is_partial: bool
    """Whether dimensions or clips are left out: compare it with nothing that is not partial in the same way."""
    dimensions: tuple[str, ...]
    """What entered; empty where refused."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One system."""

    system: str
    dimensions: tuple[DimensionSummary, ...]
    totals: tuple[Total, ...]
    """Quality, semantic and total of each VBench family that was measured."""
    warnings: tuple[str, ...]
    """Sentences to show beside the numbers."""


def summarise(
    scores: SystemScores, *, partial: bool = False, num_resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Summary:
    """Summarise the scores of a system.

    Columns of zeros and ones get Wilson's interval for clustered clips, other columns the bootstrap over prompts. A
    total's prompts are drawn once for all of its dimensions and go through its formula.

    Args:
        scores: The table.
        partial: Whether totals may leave out what is missing; they are labelled then.
        num_resamples: Bootstrap draws.
        seed: Seed of the draws.
        level: Confidence level in (0, 1).

    Raises:
        DataError: The level is not in (0, 1), or there are no draws.
    """
    clusters = scores.clusters
    dimensions = tuple(
        _summarise_column(scores, column, clusters, num_resamples=num_resamples, seed=seed, level=level)
        for column in scores.columns
    )
    totals = tuple(
        _summarise_total(scores, plan, clusters, num_resamples=num_resamples, seed=seed, level=level)
        for plan in plan_totals(scores, partial=partial)
    )
    warnings = (
        *_warn_of_families(scores),
        *_warn_of_left_out(scores),
        *_warn_of_totals(totals, dimensions),
        *_warn_of_columns(scores, dimensions),
    )
    return Summary(system=scores.system, dimensions=dimensions, totals=totals, warnings=warnings)


def mean_interval(
    values: NDArray[np.float64], clusters: NDArray[np.int64], *, num_resamples: int, seed: int, level: float = 0.95
) -> Interval:
    """Return the mean of finite values, shape (n,), with the interval that fits them: Wilson's for zeros and ones."""
    if not len(values):
        return Interval(math.nan, -math.inf, math.inf, 0, 0)
    if is_binary(values):
        return share_interval(values, clusters, level=level)
    return bootstrap_mean(values, clusters, num_resamples=num_resamples, seed=seed, level=level)


def is_binary(values: NDArray[np.float64]) -> bool:
    """Tell whether values are zeros and ones alone."""
    return bool(np.isin(values, (0.0, 1.0)).all())


def _summarise_column(
    scores: SystemScores,
    column: Column,
    clusters: NDArray[np.int64],
    *,
    num_resamples: int,
    seed: int,
    level: float,
) -> DimensionSummary:
    values, statuses = scores.values[column.name], scores.statuses[column.name]
    has_value = scores.asked(column.name) & np.isfinite(values)
    interval = mean_interval(
        values[has_value], clusters[has_value], num_resamples=num_resamples, seed=seed, level=level
    )
    return DimensionSummary(
        column=column,
        interval=interval,
        num_ok=statuses.count("ok"),
        num_skipped=statuses.count("skipped"),
        num_failed=statuses.count("failed"),
        num_left_out=len(scores.left_out.get(column.name, ())),
        num_asked=scores.num_asked(column.name),
        coverage=scores.coverage(column.name),
    )


def _summarise_total(
    scores: SystemScores,
    plan: TotalPlan,
    clusters: NDArray[np.int64],
    *,
    num_resamples: int,
    seed: int,
    level: float,
) -> Total:
    interval = None
    if plan.formula is not None:
        table = np.stack([scores.values[column] for column in plan.columns.values()], axis=1)
        joint = JointMeans.resample(table, clusters, num_resamples=num_resamples, seed=seed)
        weights = [plan.formula.weights[dimension] for dimension in plan.columns]
        interval = joint.interval(weights, offset=plan.formula.offset, level=level)
    return Total(
        family=plan.family,
        name=plan.name,
        interval=interval,
        refused=plan.refused,
        is_partial=plan.is_partial,
        dimensions=tuple(plan.columns),
    )


def _warn_of_families(scores: SystemScores) -> list[str]:
    """Say which suite does not fit the clips, and that VBench-Long has no total here."""
    families = {column.family for column in scores.columns}
    warnings = length_warnings(families, [entry.seconds for entry in scores.entries if entry.seconds is not None])
    if "vbench-long-port" in families:
        warnings.append(
            "vbench-long-port has no total: VBench's repository states the constants of VBench's totals alone, and not "
            "all sixteen dimensions have a port."
        )
    return warnings


def _warn_of_left_out(scores: SystemScores) -> list[str]:
    lost = scores.all_left_out
    if not lost:
        return []
    return [
        f"{len(lost)} of {len(scores.entries) + len(lost)} clips of the suite are left out, first '{lost[0].clip}' "
        f"({lost[0].reason}): no score covers them."
    ]


def _warn_of_totals(totals: tuple[Total, ...], dimensions: tuple[DimensionSummary, ...]) -> list[str]:
    """Say of every family with a total that it rewards frozen video, with its dynamic degree."""
    warnings = []
    for family in VBENCH_FAMILIES:
        if not any(total.family == family and total.interval for total in totals):
            continue
        of_family = [line for line in dimensions if line.column.family == family]
        degrees = [line.interval for line in of_family if dimension_of(line.column) == "dynamic_degree"]
        beside = (
            f"its dynamic degree is {degrees[0].mean:.3f} [{degrees[0].low:.3f}, {degrees[0].high:.3f}]"
            if degrees and degrees[0].num_items
            else "its dynamic degree was not measured"
        )
        warnings.append(
            f"The total of {family} rewards frozen video (a raw point of motion smoothness counts 7 times one of "
            f"dynamic degree): {beside}."
        )
        if any(lacks_static_filter(line.column) for line in of_family):
            warnings.append(
                f"Totals of {family} count temporal flickering of moving clips too, because no static filter is on "
                "record (option static_filter): VBench's are of clips that stand still."
            )
        if any(total.family == family and total.is_partial for total in totals):
            warnings.append(
                f"Totals of {family} are partial: dimensions or clips are missing, so they compare with no published "
                "number."
            )
    return warnings


def _warn_of_columns(scores: SystemScores, dimensions: tuple[DimensionSummary, ...]) -> list[str]:
    warnings = []
    for line in dimensions:
        name, interval = line.column.name, line.interval
        if line.num_failed:
            first = next(
                reason for index, reason in scores.reasons[name].items() if scores.statuses[name][index] == "failed"
            )
            warnings.append(f"{name} failed on {line.num_failed} of {line.num_asked} clips, first with: {first}")
        if line.num_asked and not line.num_ok:
            warnings.append(f"{name} has no value for any of {line.num_asked} clips.")
        elif line.num_ok and interval.num_clusters < FEW_PROMPTS:
            warnings.append(f"{name} rests on {interval.num_clusters} prompts: its interval is rough.")
        dimension = dimension_of(line.column)
        if dimension is not None and VBENCH_DIMENSIONS[dimension].may_skip and line.num_skipped and line.num_ok:
            warnings.append(_left_out(scores, line))
        if line.column.family in VBENCH_FAMILIES and dimension is None:
            warnings.append(
                f"{name} is of {line.column.family} but bears the name of no VBench dimension: it enters no total."
            )
    return warnings


def _left_out(scores: SystemScores, line: DimensionSummary) -> str:
    """Say how many clips a column rests on, where VBench leaves out clips by a rule of its own."""
    name = line.column.name
    statuses = scores.statuses[name]
    skipped = scores.reasons[name].get(statuses.index("skipped"), "no reason")
    num_prompts = len(set(scores.clusters[scores.asked(name)].tolist()))
    return (
        f"{name} counts {line.num_ok} of {line.num_asked} clips, of {line.interval.num_clusters} of {num_prompts} "
        f"prompts; VBench leaves out the others too, first with: {skipped}."
    )
