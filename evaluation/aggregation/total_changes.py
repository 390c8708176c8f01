"""How VBench's totals changed between two systems: one resampling and one permutation of prompts for all dimensions."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.aggregation.paired_values import paired_values
from evaluation.base import Family
from evaluation.clips.clip_pairs import ClipPairs
from evaluation.scores import SystemScores
from evaluation.vbench_compat.columns import TotalPlan, plan_totals
from evaluation.vbench_compat.totals import VBENCH_DIMENSIONS, TotalName, needed_dimensions, total_formula
from rlhf_video.stats import Interval, JointMeans, cluster_permutation_test, minimum_detectable_difference


@dataclass(frozen=True, kw_only=True)
class TotalChange:
    """One total of one family, over pairs of clips with a value in both systems."""

    family: Family
    name: TotalName
    refused: str | None = None
    """Why there is no number."""
    baseline: Interval | None = None
    """On VBench's scale of 0 to 1; None, as the next two, where refused."""
    system: Interval | None = None
    difference: Interval | None = None
    p_value: float = math.nan
    """Of the permutation test that swaps the systems prompt by prompt in all dimensions; NaN where refused."""
    minimum_detectable: float = math.nan
    """With 80% power at the 5% level, uncorrected as the p-value; NaN where refused."""
    is_partial: bool = False
    """Whether dimensions are left out, or clips that count in a total of either system alone."""


def compare_totals(
    baseline: SystemScores,
    system: SystemScores,
    pairs: ClipPairs,
    *,
    partial: bool,
    num_resamples: int,
    num_permutations: int,
    seed: int,
) -> tuple[TotalChange, ...]:
    """Compare every total of a family that both systems have.

    Args:
        baseline: Scores.
        system: Scores.
        pairs: Their clips.
        partial: Whether totals may leave out what is missing.
        num_resamples: Bootstrap draws.
        num_permutations: Random swaps.
        seed: Seed of both.
    """
    plans = {(plan.family, plan.name): plan for plan in plan_totals(baseline, partial=partial)}
    changes = []
    for after in plan_totals(system, partial=partial):
        before = plans.get((after.family, after.name))
        if before is None:
            continue
        old, new, kept = _paired_tables(baseline, system, pairs, before, after)
        refused = _refusal((baseline.system, before), (system.system, after), kept, partial=partial)
        is_partial = before.is_partial or after.is_partial or len(kept) < len(needed_dimensions(after.name))
        num_paired = np.isfinite(old).sum(axis=0)
        is_partial = is_partial or any(
            count < max(baseline.num_ok(after.columns[name]), system.num_ok(after.columns[name]))
            for name, count in zip(kept, num_paired, strict=True)
        )
        changes.append(
            TotalChange(family=after.family, name=after.name, refused=refused)
            if refused
            else _change(after, kept, old, new, pairs, is_partial, num_resamples, num_permutations, seed)
        )
    return tuple(changes)


def _paired_tables(
    baseline: SystemScores, system: SystemScores, pairs: ClipPairs, before: TotalPlan, after: TotalPlan
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Return the values of both systems, each (pairs, D), NaN where either lacks one, and the names of the D."""
    kept, old, new = [], [], []
    for dimension, column in after.columns.items():
        if before.columns.get(dimension) != column or baseline.column(column) != system.column(column):
            continue
        first, second = paired_values(baseline, system, system.column(column), pairs)
        if np.isfinite(first).any():
            kept.append(dimension)
            old.append(first)
            new.append(second)
    shape = (len(kept), len(pairs))
    return np.reshape(old, shape).T, np.reshape(new, shape).T, kept


def _change(
    plan: TotalPlan,
    kept: list[str],
    old: NDArray[np.float64],
    new: NDArray[np.float64],
    pairs: ClipPairs,
    is_partial: bool,
    num_resamples: int,
    num_permutations: int,
    seed: int,
) -> TotalChange:
    formula = total_formula(plan.name, kept)
    weights = [formula.weights[name] for name in kept]
    before, after, joint = (
        JointMeans.resample(table, pairs.prompts, num_resamples=num_resamples, seed=seed)
        for table in (old, new, new - old)
    )
    # A total is linear in clips, so that swapping the systems of a prompt flips the sign of what the prompt adds.
    added = joint.contributions @ np.array(weights)
    p_value = cluster_permutation_test(added, np.arange(len(added)), num_permutations=num_permutations, seed=seed)
    return TotalChange(
        family=plan.family,
        name=plan.name,
        baseline=before.interval(weights, offset=formula.offset),
        system=after.interval(weights, offset=formula.offset),
        difference=joint.interval(weights),
        p_value=p_value,
        minimum_detectable=minimum_detectable_difference(joint.standard_error(weights), joint.fewest_clusters(weights)),
        is_partial=is_partial,
    )


def _refusal(
    before: tuple[str, TotalPlan], after: tuple[str, TotalPlan], kept: list[str], *, partial: bool
) -> str | None:
    """Return why a total cannot be compared, None where it can."""
    for system, plan in (before, after):
        if plan.refused:
            return f"{system}: {plan.refused}"
    needed = needed_dimensions(after[1].name)
    lost = [name for name in needed if name not in kept]
    if lost and not partial:
        return (
            f"no pair of clips has both values of {', '.join(lost)}: score the same clips, or ask for a partial total"
        )
    if {VBENCH_DIMENSIONS[name].group for name in kept} != {VBENCH_DIMENSIONS[name].group for name in needed}:
        return "the two systems share no dimension of one of its groups"
    return None
