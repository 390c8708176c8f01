import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evaluation.aggregation.comparison import compare_systems, signed_gain
from evaluation.base import LeftOutClip
from evaluation.vbench_compat.totals import VBENCH_DIMENSIONS, total_formula
from rlhf_video.errors import DataError
from rlhf_video.stats import Interval, cluster_permutation_test, minimum_detectable_difference, paired_bootstrap


def _noise(seed: int, size: int = 40) -> Any:
    return np.random.default_rng(seed).normal(size=size)


def test_change_is_that_of_the_pairs(table: Any) -> None:
    before, after = _noise(0), _noise(1) + 1.0
    result = compare_systems(table({"a": before}, system="base", samples=4), table({"a": after}, samples=4))
    (change,) = result.changes
    prompts = np.repeat(np.arange(10), 4)
    assert change.difference == paired_bootstrap(after - before, prompts)
    assert change.p_value == cluster_permutation_test(after - before, prompts) == change.p_holm
    assert change.difference.mean == pytest.approx(change.system.mean - change.baseline.mean)
    assert (change.num_pairs, change.num_unpaired, result.paired_by, result.identical_share) == (40, 0, "seed", 0.0)


def test_clear_changes_are_named_by_their_direction(table: Any) -> None:
    columns = {"sharp": _noise(0), "flicker": _noise(1), "bright": _noise(2), "same": _noise(3)}
    better = {"flicker": False, "bright": None}
    after = {"sharp": columns["sharp"] + 3, "flicker": columns["flicker"] + 3, "bright": columns["bright"] + 3}
    after["same"] = columns["same"] + 0.1 * _noise(4)
    result = compare_systems(
        table(columns, system="base", higher_is_better=better), table(after, higher_is_better=better)
    )
    assert result.verdict == (
        "Against base, mine is better on 1 (sharp), worse on 1 (flicker), different on 1 (bright) of 4 scores "
        "(5% level, Holm)."
    )
    gains = {change.column.name: change.gain for change in result.changes}
    assert gains["flicker"] is not None and gains["flicker"].mean == pytest.approx(-3.0)
    assert gains["bright"] is None


def test_gain_of_a_score_where_lower_is_better_is_mirrored() -> None:
    assert signed_gain(Interval(-0.2, -0.3, 0.1, 9, 3), False) == Interval(0.2, -0.1, 0.3, 9, 3)


def test_holm_counts_every_score(table: Any) -> None:
    columns = {f"s{number}": _noise(number, 12) for number in range(5)}
    after = {name: values + 0.8 + 0.6 * _noise(9, 12) for name, values in columns.items()}
    changes = compare_systems(table(columns, system="base"), table(after)).changes
    smallest = min(changes, key=lambda change: change.p_value)
    assert smallest.p_holm == pytest.approx(5 * smallest.p_value)


def test_totals_change_by_the_formula_and_carry_dynamic_degree(vbench_table: Any) -> None:
    base, mine = vbench_table(system="base"), vbench_table(shift=0.02)
    mine.values["dynamic_degree"][:] -= 0.3
    result = compare_systems(base, mine, num_resamples=500, num_permutations=500)
    means = [{name: float(scores.values[name].mean()) for name in VBENCH_DIMENSIONS} for scores in (base, mine)]
    for total in result.totals:
        formula = total_formula(total.name)
        assert total.difference is not None
        assert total.difference.mean == pytest.approx(formula(means[1]) - formula(means[0]))
    total = result.totals[-1]
    assert total.difference is not None and total.difference.low > 0
    assert total.p_value == pytest.approx(2 / 2**12)
    assert 0 < total.minimum_detectable < total.difference.mean
    assert any("rose while dynamic degree changed by -0.28" in warning for warning in result.warnings)
    assert "Total of vbench-port: +" in result.verdict


def test_identical_files_are_nothing_to_compare(vbench_table: Any) -> None:
    base, mine = (vbench_table(system=name, same_files=True) for name in ("base", "mine"))
    result = compare_systems(base, mine, num_resamples=200)
    assert result.identical_share == 1.0
    assert result.verdict == "mine and base made the same files, byte for byte: there is nothing to compare."
    assert {change.p_holm for change in result.changes} == {1.0}
    assert {(change.difference.low, change.difference.high) for change in result.changes} == {(0.0, 0.0)}
    assert {total.p_value for total in result.totals} == {1.0}


def test_shares_that_agree_by_chance_keep_an_interval(table: Any) -> None:
    ones = {"moves": np.ones(8)}
    (change,) = compare_systems(table(ones, system="base"), table(ones)).changes
    assert change.difference.low < -0.2 and change.difference.high > 0.2
    assert change.p_value == 1.0 and change.minimum_detectable > 0.2
    (same,) = compare_systems(table(ones, system="base", same_files=True), table(ones, same_files=True)).changes
    assert (same.difference.low, same.difference.high) == (0.0, 0.0)


def test_missing_seeds_fall_back_to_sample_numbers_with_a_warning(table: Any) -> None:
    base = table({"a": _noise(0)}, system="base", samples=4)
    for seeds, reason in (([None] * 40, "missing or repeated"), (list(range(100, 140)), "no prompt has a seed")):
        result = compare_systems(base, table({"a": _noise(1)}, samples=4, seeds=seeds))
        assert result.paired_by == "sample"
        assert (result.num_pairs, result.changes[0].num_pairs) == (40, 40)
        assert any(reason in warning for warning in result.warnings)


def test_clips_without_partner_or_value_are_counted(table: Any) -> None:
    base = table({"a": _noise(0)}, system="base", samples=4)
    values = _noise(1, 36)
    values[0] = math.nan
    result = compare_systems(base, table({"a": values}, samples=4))
    assert (result.changes[0].num_pairs, result.changes[0].num_unpaired) == (35, 6)
    assert any("most a with 6" in warning for warning in result.warnings)


def test_a_clip_that_a_system_lacks_and_its_partner_are_unpaired(table: Any) -> None:
    base, mine = table({"a": _noise(0)}, system="base", samples=4), table({"a": _noise(1, 39)}, samples=4)
    clip = LeftOutClip(clip="a cat-4", prompt="prompt 9", sample=3, dimensions=None, reason="missing")
    (change,) = compare_systems(base, replace(mine, left_out={"a": (clip,)})).changes
    assert (change.num_pairs, change.num_unpaired) == (39, 2)


def test_scores_of_one_system_alone_are_named(table: Any) -> None:
    base = table({"a": _noise(0), "b": _noise(1), "c": np.full(40, math.nan)}, system="base")
    result = compare_systems(base, table({"a": _noise(2), "c": _noise(3)}))
    assert [change.column.name for change in result.changes] == ["a"]
    assert any("no pair of clips has both values: b, c" in warning for warning in result.warnings)


def test_equal_names_of_different_metrics_are_not_compared(vbench_table: Any) -> None:
    base, mine = vbench_table(system="base"), vbench_table()
    old = replace(base, columns=tuple(replace(c, metric="v1" if c.name == "scene" else "") for c in base.columns))
    result = compare_systems(old, mine, num_resamples=100)
    assert "scene" not in [change.column.name for change in result.changes] and len(result.changes) == 15
    assert any("by another version, other options or other weights: scene." in line for line in result.warnings)
    assert result.totals[0].refused is None and result.totals[-1].refused is not None


def test_pairs_of_other_length_size_or_rate_are_told(table: Any) -> None:
    def made(scores: Any, fps: float | None) -> Any:
        entries = [replace(entry, num_frames=81, height=480, width=832, fps=fps) for entry in scores.entries]
        return replace(scores, entries=tuple(entries))

    base, mine = table({"a": _noise(0)}, system="base"), table({"a": _noise(1)})
    told = "40 of 40 pairs differ in length, size or frame rate, which scores depend on: for example 81 frames of"
    warnings = compare_systems(made(base, 16.0), made(mine, 8.0)).warnings
    assert any(told in line and "480x832 at 16 a second in base and" in line for line in warnings)
    for one, other in ((16.0, 16.0), (16.0, None)):  # None: of a run that did not measure it
        warnings = compare_systems(made(base, one), made(mine, other)).warnings
        assert not any("pairs differ" in line for line in warnings)


def test_one_metric_under_two_names_is_told_as_that(table: Any) -> None:
    def measured(scores: Any) -> Any:
        return replace(scores, columns=tuple(replace(column, metric="one key") for column in scores.columns))

    result = compare_systems(measured(table({"a": _noise(0)}, system="base")), measured(table({"b": _noise(1)})))
    assert any("under other names, give them one label: a, b." in warning for warning in result.warnings)
    assert not any("no pair of clips" in warning for warning in result.warnings)


def test_too_few_prompts_for_any_finding_are_said(table: Any) -> None:
    columns = {"a": np.zeros(5), "b": np.zeros(5)}
    after = {name: 1.0 + np.arange(5.0) for name in columns}
    result = compare_systems(table(columns, system="base"), table(after))
    told = [line for line in result.warnings if "cannot reach the 5% level" in line]
    assert len(told) == 1 and "With 2 scores, 5 prompts" in told[0] and "(a, b): use more prompts" in told[0]
    assert not any(change.is_significant for change in result.changes)


def test_too_few_draws_for_any_finding_are_said(table: Any) -> None:
    columns = {f"s{number}": _noise(number) for number in range(16)}
    base, mine = table(columns, system="base"), table({name: values + 5.0 for name, values in columns.items()})
    few = compare_systems(base, mine, num_permutations=300)
    assert not any(change.is_significant for change in few.changes)
    assert any("300 draws, 16 scores cannot reach" in line and "more draws" in line for line in few.warnings)
    many = compare_systems(base, mine, num_permutations=1000)
    assert all(change.is_significant for change in many.changes)
    assert not any("cannot reach" in line for line in many.warnings)


def test_a_score_of_few_prompts_beside_clear_ones_can_still_be_found(table: Any) -> None:
    columns = {name: _noise(number) for number, name in enumerate("abc")}
    columns["rare"] = np.where(np.arange(40) < 6, _noise(3), math.nan)
    result = compare_systems(
        table(columns, system="base"), table({name: values + 5.0 for name, values in columns.items()})
    )
    assert all(change.is_significant for change in result.changes)  # Holm's last step is at 5% itself
    assert not any("cannot reach" in line for line in result.warnings)


def test_other_wordings_of_the_prompts_are_said(table: Any) -> None:
    base, mine = table({"a": _noise(0)}, system="base"), table({"a": _noise(1)})
    longer = replace(mine, entries=tuple(replace(entry, wording=f"{entry.prompt}, at dusk") for entry in mine.entries))
    told = "40 of 40 pairs were made from other wordings of the prompt"
    assert any(told in line for line in compare_systems(base, longer, num_resamples=100).warnings)
    for one, other in ((base, mine), (longer, longer)):
        assert not any("wordings" in line for line in compare_systems(one, other, num_resamples=100).warnings)


def test_files_that_nobody_hashed_are_not_called_the_same(table: Any) -> None:
    systems = [table({"a": _noise(seed)}, system=name) for seed, name in enumerate(("base", "mine"))]
    unknown = [replace(each, entries=tuple(replace(entry, sha256="") for entry in each.entries)) for each in systems]
    result = compare_systems(*unknown, num_resamples=100)
    assert result.identical_share == 0.0 and "byte for byte" not in result.verdict


def test_totals_without_pairs_are_refused_with_the_dimension(vbench_table: Any) -> None:
    base, mine = vbench_table(system="base"), vbench_table()
    half = np.arange(24) < 12
    for scores, kept in ((base, half), (mine, ~half)):
        scores.values["scene"][~kept] = math.nan
        scores.statuses["scene"] = tuple("ok" if keep else None for keep in kept)
    total = compare_systems(base, mine, num_resamples=100).totals[-1]
    assert total.difference is None and math.isnan(total.p_value)
    assert total.refused is not None and "no pair of clips has both values of scene" in total.refused
    partial = compare_systems(base, mine, partial=True, num_resamples=100).totals[-1]
    assert partial.difference is not None and partial.is_partial


def test_a_total_over_some_of_the_clips_is_called_partial(vbench_table: Any) -> None:
    whole = compare_systems(vbench_table(system="base"), vbench_table(), num_resamples=100).totals[-1]
    fewer = compare_systems(vbench_table(system="base"), vbench_table(num_prompts=11), num_resamples=100).totals[-1]
    assert (whole.is_partial, fewer.is_partial) == (False, True)


@pytest.mark.parametrize(("skipped", "is_partial"), [(2, False), (5, True)])
def test_a_total_without_clips_that_count_in_one_system_alone_is_called_partial(
    vbench_table: Any, skipped: int, is_partial: bool
) -> None:
    base, mine = vbench_table(system="base"), vbench_table()
    for scores, index in ((base, 2), (mine, skipped)):  # VBench skips clips of "color"
        scores.values["color"][index] = math.nan
        statuses = list(scores.statuses["color"])
        statuses[index] = "skipped"
        scores.statuses["color"] = tuple(statuses)
    assert compare_systems(base, mine, num_resamples=100).totals[-1].is_partial is is_partial


def _static_clips(table: Any, system: str, still: slice, level: float) -> Any:
    """Return flickering scores of 25 clips of each of two prompts, of which five count, as a run's table has them."""
    name, every = "temporal_flickering", np.full((2, 25), math.nan)
    every[:, still] = level + 0.001 * _noise(7, 50).reshape(2, 25)[:, still]
    counts = np.cumsum(np.isfinite(every), axis=1) <= 5
    scores = table(
        {name: np.where(counts, every, math.nan).ravel()},
        system=system,
        samples=25,
        family="vbench-port",
        missing="skipped",
    )
    return replace(
        scores,
        columns=tuple(replace(column, first_of_prompt=5) for column in scores.columns),
        beyond_first={name: np.where(counts, math.nan, every).ravel()},
    )


def test_the_first_pairs_that_stand_still_in_both_systems_are_compared(table: Any) -> None:
    base = _static_clips(table, "base", slice(0, 25), 0.9)  # counts 0 to 4
    mine = _static_clips(table, "mine", slice(5, 25), 0.95)  # counts 5 to 9
    (change,) = compare_systems(base, mine, num_resamples=100).changes
    assert (change.num_pairs, change.difference.num_clusters) == (10, 2)
    assert change.difference.mean == pytest.approx(0.05)
    assert change.baseline.mean == pytest.approx(np.mean(base.passed("temporal_flickering").reshape(2, 25)[:, 5:10]))


def test_systems_without_a_common_prompt_are_refused(table: Any) -> None:
    base, other = table({"a": np.zeros(2)}, system="base"), table({"a": np.zeros(4)})
    moved = type(other)(
        system="mine",
        entries=other.entries[2:],
        columns=other.columns,
        values={"a": np.zeros(2)},
        statuses={"a": ("ok", "ok")},
        reasons={"a": {}},
    )
    with pytest.raises(DataError, match="no prompt with a clip in common"):
        compare_systems(base, moved)


def test_clips_that_cannot_be_told_apart_are_refused(table: Any) -> None:
    twice = table({"a": np.zeros(2)}, samples=1, seeds=[None, None])
    twice = type(twice)(
        system="mine",
        entries=(twice.entries[0], twice.entries[0]),
        columns=twice.columns,
        values=twice.values,
        statuses=twice.statuses,
        reasons=twice.reasons,
    )
    with pytest.raises(DataError, match="2 clips share prompt 'prompt 0' and sample 0"):
        compare_systems(twice, table({"a": np.zeros(2)}))


def test_detectable_differences_are_those_after_holms_correction(table: Any) -> None:
    """The more scores, the larger a difference must be: at its strictest step Holm tests at 5% over their number."""
    noise = {name: _noise(number) for number, name in enumerate("abcde")}
    shifted = {name: values + _noise(number + 9) for number, (name, values) in enumerate(noise.items())}
    many = compare_systems(table(noise, system="base"), table(shifted)).changes
    (alone,) = compare_systems(table({"a": noise["a"]}, system="base"), table({"a": shifted["a"]})).changes
    error = alone.minimum_detectable / minimum_detectable_difference(1.0, 40)
    assert many[0].minimum_detectable == pytest.approx(minimum_detectable_difference(error, 40, level=0.99))
    assert many[0].minimum_detectable > 1.15 * alone.minimum_detectable
