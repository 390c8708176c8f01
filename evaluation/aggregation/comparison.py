"""Two systems on the same prompts and noise: what changed, how surely, and what could have been found at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evaluation.aggregation.paired_values import paired_values
from evaluation.aggregation.summary import is_binary, mean_interval
from evaluation.aggregation.total_changes import TotalChange, compare_totals
from evaluation.base import Family
from evaluation.clips.clip_pairs import ClipPairs, PairedBy, pair_clips
from evaluation.scores import Column, SystemScores, renamed_columns
from evaluation.vbench_compat.columns import dimension_of
from rlhf_video.stats import (
    MAX_EXACT_CLUSTERS,
    Interval,
    cluster_permutation_test,
    clustered_standard_error,
    holm,
    minimum_detectable_difference,
    paired_bootstrap,
    share_difference_error,
    share_difference_interval,
    smallest_p_value,
)

SIGNIFICANT = 0.05
"""Level of verdicts, after Holm's correction."""
_NAMED = 4  # scores that a verdict names of one kind
_LOST = "no pair of clips has both values"
_RENAMED = "the two systems have them under other names, give them one label"
_CHANGED = "the two systems were measured by another version, other options or other weights"


@dataclass(frozen=True, kw_only=True)
class DimensionChange:
    """One column of both systems, over the clips that are pairs and have a value in both."""

    column: Column
    baseline: Interval
    system: Interval
    difference: Interval
    """System minus baseline in the column's unit; where lower is better, a negative one is good."""
    p_value: float
    """Of the permutation test that swaps the systems prompt by prompt."""
    p_holm: float
    """The same, corrected for all columns of the comparison."""
    minimum_detectable: float
    """True difference that this many prompts would show with 80% power, whatever the other columns show: at 5% over the
    number of columns, the strictest step of Holm's correction."""
    num_pairs: int
    num_unpaired: int
    """Clips that the suite asks this column of, in either system, and that have no partner with a value; clips that a
    system lacks among them."""

    @property
    def gain(self) -> Interval | None:
        """The difference with its sign so that positive is better, None where neither direction is."""
        return signed_gain(self.difference, self.column.higher_is_better)

    @property
    def is_significant(self) -> bool:
        """Whether the systems differ at 5% after correction."""
        return self.p_holm < SIGNIFICANT


@dataclass(frozen=True, kw_only=True)
class SystemComparison:
    """A system against a baseline."""

    baseline: str
    system: str
    changes: tuple[DimensionChange, ...]
    uncompared: Mapping[str, str]
    """Score of either system that has no change -> why: a score that is lost entirely must not pass for unchanged."""
    totals: tuple[TotalChange, ...]
    """VBench's totals; their p-values are not corrected: they are few, and one is the number that is asked for."""
    paired_by: PairedBy
    num_pairs: int
    """Clips with a partner, whatever was scored of them."""
    identical_share: float
    """Share of the pairs that are the same file byte for byte: an adapter that does nothing has 1."""
    verdict: str
    """One or two sentences."""
    warnings: tuple[str, ...]


def signed_gain(difference: Interval, higher_is_better: bool | None) -> Interval | None:
    """Return a difference with its sign so that positive is better, None where neither direction is."""
    if higher_is_better is None or higher_is_better:
        return difference if higher_is_better else None
    return replace(difference, mean=-difference.mean, low=-difference.high, high=-difference.low)


def compare_systems(
    baseline: SystemScores,
    system: SystemScores,
    *,
    partial: bool = False,
    num_resamples: int = 10_000,
    num_permutations: int = 10_000,
    seed: int = 0,
) -> SystemComparison:
    """Compare a system with a baseline, clip by clip.

    Args:
        baseline: Scores of what it is compared with.
        system: Scores of what is judged.
        partial: Whether totals may leave out what is missing.
        num_resamples: Bootstrap draws.
        num_permutations: Random swaps of more than 14 prompts; fewer are swapped in every way.
        seed: Seed of both.

    Raises:
        DataError: No clip of one has a partner in the other.
    """
    pairs = pair_clips(baseline, system)
    shared = [column for column in baseline.columns if column in system.columns]
    found = [
        _compare_column(baseline, system, column, pairs, num_resamples, num_permutations, seed) for column in shared
    ]
    changes = _correct([each for each in found if each is not None])
    totals = compare_totals(
        baseline,
        system,
        pairs,
        partial=partial,
        num_resamples=num_resamples,
        num_permutations=num_permutations,
        seed=seed,
    )
    lost = {column.name for column, change in zip(shared, found, strict=True) if change is None}
    names_of = [{column.name for column in scores.columns if column not in shared} for scores in (baseline, system)]
    lost |= names_of[0] ^ names_of[1]
    changed = names_of[0] & names_of[1]
    uncompared = dict.fromkeys(sorted(lost), _LOST) | dict.fromkeys(sorted(changed), _CHANGED)
    uncompared |= dict.fromkeys(renamed_columns(baseline, system), _RENAMED)
    names = (baseline.system, system.system)
    identical_share = float(pairs.identical.mean())
    return SystemComparison(
        baseline=baseline.system,
        system=system.system,
        changes=changes,
        uncompared=uncompared,
        totals=totals,
        paired_by=pairs.paired_by,
        num_pairs=len(pairs),
        identical_share=identical_share,
        verdict=_verdict(names, changes, totals, identical_share),
        warnings=(
            *_warnings(baseline, system, pairs, changes, uncompared, num_permutations),
            *_warn_of_stillness(changes, totals),
        ),
    )


def _correct(found: Sequence[tuple[DimensionChange, float]]) -> tuple[DimensionChange, ...]:
    """Return changes with what depends on their number, of changes and the standard errors of their differences."""
    corrected = holm([change.p_value for change, _ in found])
    level = 1.0 - SIGNIFICANT / max(1, len(found))
    return tuple(
        replace(
            change,
            p_holm=float(p),
            minimum_detectable=minimum_detectable_difference(error, change.difference.num_clusters, level=level),
        )
        for (change, error), p in zip(found, corrected, strict=True)
    )


def _compare_column(
    baseline: SystemScores,
    system: SystemScores,
    column: Column,
    pairs: ClipPairs,
    num_resamples: int,
    num_permutations: int,
    seed: int,
) -> tuple[DimensionChange, float] | None:
    """Return a column's change, not yet corrected, and its standard error; None where no pair has both values."""
    before, after = paired_values(baseline, system, column, pairs)
    both = np.isfinite(before)
    if not both.any():
        return None
    before, after, prompts = before[both], after[both], pairs.prompts[both]
    interval, error = _difference(before, after, prompts, pairs.identical[both], num_resamples, seed)
    p_value = cluster_permutation_test(after - before, prompts, num_permutations=num_permutations, seed=seed)
    num_asked = baseline.num_asked(column.name) + system.num_asked(column.name)
    change = DimensionChange(
        column=column,
        baseline=mean_interval(before, prompts, num_resamples=num_resamples, seed=seed),
        system=mean_interval(after, prompts, num_resamples=num_resamples, seed=seed),
        difference=interval,
        p_value=p_value,
        p_holm=p_value,
        minimum_detectable=minimum_detectable_difference(error, interval.num_clusters),
        num_pairs=int(both.sum()),
        num_unpaired=num_asked - 2 * int(both.sum()),
    )
    return change, error


def _difference(
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    prompts: NDArray[np.int64],
    identical: NDArray[np.bool_],
    num_resamples: int,
    seed: int,
) -> tuple[Interval, float]:
    """Return the mean difference with its interval, and its standard error."""
    differences = after - before
    if is_binary(before) and is_binary(after) and not identical.all():
        # Clips that are other files could have differed, even if none did: their interval is no point.
        return share_difference_interval(differences, prompts), share_difference_error(differences, prompts)
    return (
        paired_bootstrap(differences, prompts, num_resamples=num_resamples, seed=seed),
        clustered_standard_error(differences, prompts),
    )


def _verdict(
    names: tuple[str, str], changes: Sequence[DimensionChange], totals: Sequence[TotalChange], identical_share: float
) -> str:
    baseline, system = names
    if identical_share == 1.0:
        return f"{system} and {baseline} made the same files, byte for byte: there is nothing to compare."
    clear = [change for change in changes if change.is_significant]
    better = [change.column.name for change in clear if change.gain and change.gain.mean > 0]
    worse = [change.column.name for change in clear if change.gain and change.gain.mean < 0]
    other = [change.column.name for change in clear if change.gain is None]
    found = [
        f"{word} {len(group)} ({_listed(group)})"
        for word, group in (("better on", better), ("worse on", worse), ("different on", other))
        if group
    ]
    if found:
        text = f"Against {baseline}, {system} is {', '.join(found)} of {len(changes)} scores (5% level, Holm)."
    else:
        text = (
            f"None of {len(changes)} scores tells {system} from {baseline} (5% level, Holm); differences "
            "below the detectable ones may exist."
        )
    for total in totals:
        if total.name == "total" and total.difference is not None:
            points = total.difference.scaled(100.0)
            partial = "Partial total" if total.is_partial else "Total"
            text += (
                f" {partial} of {total.family}: {points.mean:+.2f} points [{points.low:+.2f}, {points.high:+.2f}], "
                f"p = {total.p_value:.2g}."
            )
    return text


def _warnings(
    baseline: SystemScores,
    system: SystemScores,
    pairs: ClipPairs,
    changes: Sequence[DimensionChange],
    uncompared: Mapping[str, str],
    num_permutations: int,
) -> list[str]:
    warnings = [pairs.warning] if pairs.warning else []
    if 0.0 < pairs.identical.mean() < 1.0:
        count = int(pairs.identical.sum())
        warnings.append(f"{count} of {len(pairs)} pairs are the same file in both systems, byte for byte.")
    matched = [
        (baseline.entries[first], system.entries[second])
        for first, second in zip(pairs.baseline, pairs.system, strict=True)
    ]
    if reworded := sum(before.wording != after.wording for before, after in matched):
        warnings.append(
            f"{reworded} of {len(pairs)} pairs were made from other wordings of the prompt (suite.extended): the "
            "wording is part of every difference."
        )
    shapes = [(before.shape, after.shape) for before, after in matched]
    if unlike := [pair for pair in shapes if None not in pair and pair[0] != pair[1]]:
        warnings.append(
            f"{len(unlike)} of {len(pairs)} pairs differ in length, size or frame rate, which scores depend on: for "
            f"example {unlike[0][0]} in {baseline.system} and {unlike[0][1]} in {system.system}."
        )
    unpaired = [change for change in changes if change.num_unpaired]
    if unpaired:
        most = max(unpaired, key=lambda change: change.num_unpaired)
        warnings.append(
            f"{len(unpaired)} scores leave out clips without a partner or a value, most {most.column.name} with "
            f"{most.num_unpaired}."
        )
    for reason in dict.fromkeys(uncompared.values()):
        names = [name for name, why in uncompared.items() if why == reason]
        warnings.append(f"Not compared, because {reason}: {_listed(names)}.")
    # Even if every clip of a score changed alike, its test has no smaller p than this.
    reachable = holm([smallest_p_value(change.difference.num_clusters, num_permutations) for change in changes])
    if beyond := [change for change, p in zip(changes, reachable, strict=True) if p >= SIGNIFICANT]:
        fewest = min(change.difference.num_clusters for change in beyond)
        which = _listed([change.column.name for change in beyond])
        remedy = "draws (num_resamples)" if fewest > MAX_EXACT_CLUSTERS else "prompts, or fewer scores"
        warnings.append(
            f"With {len(changes)} scores, {fewest} prompts and {num_permutations} draws, {len(beyond)} scores cannot "
            f"reach the 5% level after correction, whatever the clips show ({which}): use more {remedy}."
        )
    return warnings


def _warn_of_stillness(changes: Sequence[DimensionChange], totals: Sequence[TotalChange]) -> list[str]:
    """Say next to each change of a total what the dynamic degree did: freezing the video raises the total."""
    warnings = []
    for total in totals:
        if total.name != "total" or total.difference is None:
            continue
        degree = _dynamic_degree(changes, total.family)
        if degree is None:
            warnings.append(f"The total of {total.family} rewards frozen video, and dynamic degree was not compared.")
        elif total.difference.mean > 0 > degree.mean:
            warnings.append(
                f"The total of {total.family} rose while dynamic degree changed by {degree}: the total rewards frozen "
                "video, look at the clips."
            )
        else:
            warnings.append(f"The total of {total.family} rewards frozen video; dynamic degree changed by {degree}.")
    return warnings


def _dynamic_degree(changes: Sequence[DimensionChange], family: Family) -> Interval | None:
    for change in changes:
        if change.column.family == family and dimension_of(change.column) == "dynamic_degree":
            return change.difference
    return None


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
