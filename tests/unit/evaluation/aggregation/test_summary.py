import dataclasses
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evaluation.aggregation.summary import summarise
from evaluation.base import LeftOutClip
from evaluation.vbench_compat.totals import VBENCH_DIMENSIONS, total_formula
from rlhf_video.stats import bootstrap_mean, share_interval


def test_column_has_the_interval_over_prompts(table: Any) -> None:
    values = np.random.default_rng(0).normal(size=40)
    (line,) = summarise(table({"score": values}, samples=4)).dimensions
    assert line.interval == bootstrap_mean(values, np.repeat(np.arange(10), 4))
    assert (line.num_ok, line.num_asked, line.coverage) == (40, 40, 1.0)


def test_column_of_zeros_and_ones_has_wilsons_interval(table: Any) -> None:
    values = np.ones(12)
    (line,) = summarise(table({"moves": values}, samples=1)).dimensions
    assert line.interval == share_interval(values, np.arange(12))
    assert line.interval.low < 0.8


def test_totals_are_the_formula_of_the_means(vbench_table: Any) -> None:
    scores = vbench_table()
    summary = summarise(scores, num_resamples=400)
    means = {name: float(scores.values[name].mean()) for name in VBENCH_DIMENSIONS}
    assert [total.name for total in summary.totals] == ["quality", "semantic", "total"]
    for total in summary.totals:
        assert total.interval is not None and not total.is_partial and total.refused is None
        assert total.interval.mean == pytest.approx(total_formula(total.name)(means))
        assert total.interval.low < total.interval.mean < total.interval.high


def test_one_failed_clip_refuses_the_totals_it_enters(vbench_table: Any) -> None:
    scores = vbench_table()
    scores.values["scene"][3] = math.nan
    scores.statuses["scene"] = (*scores.statuses["scene"][:3], "failed", *scores.statuses["scene"][4:])
    scores.reasons["scene"][3] = "the worker died"
    quality, semantic, total = summarise(scores, num_resamples=100).totals
    assert quality.interval is not None
    assert semantic.interval is None and total.interval is None
    assert semantic.refused is not None and "scene has 23 of 24 values" in semantic.refused
    partial = summarise(scores, partial=True, num_resamples=100)
    assert [line.is_partial for line in partial.totals] == [False, True, True]
    assert all(line.interval is not None for line in partial.totals)
    assert any("partial" in warning for warning in partial.warnings)
    assert any("scene failed on 1 of 24 clips, first with: the worker died" in line for line in partial.warnings)


def test_a_clip_that_is_not_there_lowers_coverage_and_refuses_totals_but_changes_no_score(vbench_table: Any) -> None:
    whole = vbench_table()
    clip = LeftOutClip(clip="a cat-4", prompt="a cat", sample=4, dimensions=None, reason="missing")
    scores = replace(whole, left_out={"scene": (clip,)})
    summary, before = (summarise(held, num_resamples=100) for held in (scores, whole))
    (line,) = [item for item in summary.dimensions if item.column.name == "scene"]
    assert (line.num_ok, line.num_left_out, line.num_asked, line.coverage) == (24, 1, 25, 24 / 25)
    assert [item.interval for item in summary.dimensions] == [item.interval for item in before.dimensions]
    assert [total.refused is None for total in summary.totals] == [True, False, False]
    assert summary.totals[1].refused is not None and "scene has 24 of 25 values" in summary.totals[1].refused
    assert "1 of 25 clips of the suite are left out, first 'a cat-4' (missing)" in summary.warnings[0]
    partial = summarise(scores, partial=True, num_resamples=100).totals
    assert [total.is_partial for total in partial] == [False, True, True]


def test_clips_that_vbench_leaves_out_itself_do_not_refuse_a_total(vbench_table: Any) -> None:
    for dimension, is_allowed in (("color", True), ("temporal_flickering", True), ("human_action", False)):
        scores = vbench_table()
        scores.values[dimension][0] = math.nan
        scores.statuses[dimension] = ("skipped", *scores.statuses[dimension][1:])
        total = summarise(scores, num_resamples=100).totals[-1]
        assert (total.interval is not None) is is_allowed


def test_a_column_says_how_many_clips_the_static_filter_left(table: Any) -> None:
    values = np.array([0.9, 0.8, math.nan, math.nan, math.nan, math.nan])
    scores = table({"temporal_flickering": values}, samples=2, family="vbench-port", missing="skipped")
    scores.reasons["temporal_flickering"].update({2: "it moves: a lot"})
    summary = summarise(scores, num_resamples=100)
    assert (
        "temporal_flickering counts 2 of 6 clips, of 1 of 3 prompts; VBench leaves out the others too, first with: it "
        "moves: a lot."
    ) in summary.warnings
    assert (summary.dimensions[0].num_skipped, summary.dimensions[0].coverage) == (4, pytest.approx(1 / 3))


def test_totals_with_flickering_of_moving_clips_say_so(vbench_table: Any) -> None:
    scores = vbench_table(family="vbench-official")
    told = "Totals of vbench-official count temporal flickering of moving clips too"
    assert any(told in warning for warning in summarise(scores, num_resamples=100).warnings)
    filtered = replace(scores, columns=tuple(replace(column, first_of_prompt=5) for column in scores.columns))
    assert not any(told in warning for warning in summarise(filtered, num_resamples=100).warnings)


def test_vbench_long_enters_no_total_and_no_other_familys(vbench_table: Any, table: Any) -> None:
    long = vbench_table(family="vbench-long-port")
    summary = summarise(long, num_resamples=100)
    assert summary.totals == ()
    assert any("vbench-long-port has no total" in warning for warning in summary.warnings)
    port = table({"port/scene": np.full(24, 0.9)}, samples=2, family="vbench-port")
    both = type(long)(
        system="mine",
        entries=long.entries,
        columns=long.columns + port.columns,
        values={**long.values, **port.values},
        statuses={**long.statuses, **port.statuses},
        reasons={**long.reasons, **port.reasons},
    )
    totals = summarise(both, num_resamples=100).totals
    assert {total.family for total in totals} == {"vbench-port"} and all(total.refused for total in totals)


@pytest.mark.parametrize(
    ("family", "seconds", "expected"),
    [
        ("vbench-port", 5.0, "6 of 6 clips are 5 s or longer (up to 5.00 s)"),
        ("vbench-official", 5.0625, "by VBench-Long (vbench_long), not by VBench (vbench-official)"),
        ("vbench-port", 4.99, None),
        ("vbench-port", None, None),
        ("vbench-long-port", 4.99, "6 of 6 clips are shorter than 5 s (from 4.99 s)"),
        ("vbench-long-port", 5.0, None),
        ("measure", 60.0, None),
    ],
)
def test_clips_of_another_suites_length_are_told(
    table: Any, family: str, seconds: float | None, expected: str | None
) -> None:
    scores = table({"temporal_style": np.full(6, 0.5)}, family=family)
    entries = tuple(dataclasses.replace(entry, seconds=seconds) for entry in scores.entries)
    warnings = summarise(dataclasses.replace(scores, entries=entries), num_resamples=100).warnings
    told = [warning for warning in warnings if "VBench asks to measure" in warning]
    assert len(told) == (expected is not None)
    assert expected is None or expected in told[0]


def test_missing_dimension_is_named_and_never_counts_as_zero(vbench_table: Any, table: Any) -> None:
    whole = vbench_table()
    kept = {name: values for name, values in whole.values.items() if name != "color"}
    scores = table(kept, samples=2, family="vbench-port")
    total = summarise(scores, num_resamples=100).totals[-1]
    assert total.refused is not None and "color was not measured" in total.refused
    partial = summarise(scores, partial=True, num_resamples=100).totals[-1]
    means = {name: float(values.mean()) for name, values in kept.items()}
    assert partial.interval is not None and "color" not in partial.dimensions
    assert partial.interval.mean == pytest.approx(total_formula("total", tuple(kept))(means))


def test_two_families_never_share_a_total(table: Any) -> None:
    values = {name: np.full(6, 0.5) for name in VBENCH_DIMENSIONS}
    official = table({f"official/{name}": column for name, column in values.items()}, family="vbench-official")
    port = table({"imaging_quality": np.full(6, 0.9)}, family="vbench-port")
    both = type(official)(
        system="mine",
        entries=official.entries,
        columns=official.columns + port.columns,
        values={**official.values, **port.values},
        statuses={**official.statuses, **port.statuses},
        reasons={**official.reasons, **port.reasons},
    )
    totals = {(total.family, total.name): total for total in summarise(both, num_resamples=100).totals}
    alone = summarise(official, num_resamples=100).totals[0]
    assert totals["vbench-official", "quality"].interval == alone.interval
    assert totals["vbench-port", "quality"].refused is not None


def test_same_dimension_twice_in_a_family_is_refused(table: Any) -> None:
    values = {name: np.full(6, 0.5) for name in VBENCH_DIMENSIONS} | {"again/scene": np.full(6, 0.4)}
    totals = summarise(table(values, family="vbench-port"), num_resamples=100).totals
    assert totals[0].refused is None
    assert totals[1].refused is not None and "scene and again/scene" in totals[1].refused


def test_dynamic_degree_stands_beside_every_total(vbench_table: Any) -> None:
    warnings = summarise(vbench_table(), num_resamples=100).warnings
    assert any("rewards frozen video" in warning and "dynamic degree is 0.5" in warning for warning in warnings)


def test_other_metrics_have_no_total_and_no_such_warning(table: Any) -> None:
    summary = summarise(table({"psnr": np.arange(20.0)}))
    assert summary.totals == ()
    assert summary.warnings == ()


def test_column_without_any_value_says_so(table: Any) -> None:
    summary = summarise(table({"psnr": np.full(9, math.nan)}, missing="skipped"))
    (line,) = summary.dimensions
    assert math.isnan(line.interval.mean) and line.interval.high == math.inf
    assert (line.num_ok, line.num_skipped, line.coverage) == (0, 9, 0.0)
    assert summary.warnings == ("psnr has no value for any of 9 clips.",)


def test_clips_whose_prompt_is_not_asked_do_not_count(table: Any) -> None:
    asked = np.arange(10) < 6
    values = np.where(asked, 0.3, math.nan)
    (line,) = summarise(table({"score": values}, asked={"score": asked})).dimensions
    assert (line.num_asked, line.num_ok, line.coverage) == (6, 6, 1.0)


def test_vbench_column_of_another_name_and_few_prompts_are_pointed_out(table: Any) -> None:
    warnings = summarise(table({"smoothness": np.arange(3.0)}, family="vbench-port")).warnings
    assert any("bears the name of no VBench dimension" in warning for warning in warnings)
    assert any("rests on 3 prompts" in warning for warning in warnings)
