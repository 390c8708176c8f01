"""Figures of a report: profiles as radars, how often each system wins, VBench's totals, curves over the clip."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.aggregation.summary import Summary, Total
from evaluation.base import Family
from evaluation.clips.clip_pairs import pair_clips
from evaluation.report.pairs import ClipRow, label_of, row_values
from evaluation.report.tables import FAMILIES, by_family
from evaluation.scores import Column, SystemScores
from evaluation.vbench_compat.columns import VBENCH_FAMILIES, dimension_of
from evaluation.vbench_compat.totals import normalise
from rlhf_video.report import (
    Html,
    Series,
    ShareKind,
    ShareRow,
    ValueRow,
    curve_colours,
    line_chart,
    radar_chart,
    share_bars,
    value_bars,
)
from rlhf_video.stats import Interval, bootstrap_mean

_MAX_CURVES = 12
_CURVE_RESAMPLES = 500

Curves = Mapping[str, Mapping[str, Sequence[Sequence[float]]]]
"""System -> column -> the curve of each of its clips, in the order of its entries; empty where a clip has none."""


def radars(scores: Sequence[SystemScores], rows: Sequence[ClipRow], columns: Sequence[Column]) -> list[Html]:
    """Return one radar per VBench family, on VBench's own scale, and one of all other scores that have a direction.

    Other scores have no common unit; there an axis shows the mean rank of a system's clips among the clips of all
    systems (0: worst of all, 1: best of all, 0.5: no difference). Fewer than three axes make no radar.
    """
    names = [system.system for system in scores]
    pictures = []
    others = []
    for family, indices in by_family(columns):
        members = [columns[index] for index in indices]
        if family in VBENCH_FAMILIES:
            known = [(column, name) for column in members if (name := dimension_of(column)) is not None]
            if len(known) >= 3:
                lines = {system.system: [_vbench_share(system, *item) for item in known] for system in scores}
                labels = [dimension.replace("_", " ") for _, dimension in known]
                scale = "On VBench's scale from 0 in the middle to 1 at the edge"
                title = FAMILIES[family].split(" (")[0]
                pictures.append(radar_chart(title, labels, lines, scale=scale, colours=system_colours(len(scores))))
        else:
            others += [column for column in members if column.higher_is_better is not None]
    if len(others) >= 3 and len(scores) > 1:
        shares = np.array([mean_ranks(row_values(scores, rows, column), column) for column in others])
        lines = {name: [float(value) for value in shares[:, place]] for place, name in enumerate(names)}
        scale = "Mean rank among all clips, outwards is better, 0.5 is no difference"
        labels, colours = [label_of(column) for column in others], system_colours(len(scores))
        pictures.append(radar_chart("Rewards and measurements", labels, lines, scale=scale, colours=colours))
    return pictures


def mean_ranks(values: NDArray[np.float64], column: Column) -> NDArray[np.float64]:
    """Return the mean rank in [0, 1] of each system's clips among all, shape (systems,); ties share their rank.

    Args:
        values: Scores, shape (rows, systems), NaN where there is none.
        column: Its direction turns the ranks, so that 1 is best.
    """
    signed = -values if column.higher_is_better is False else values
    known = np.sort(signed[np.isfinite(signed)])
    if known.size == 0:
        return np.full(values.shape[1], np.nan)
    below = np.searchsorted(known, signed, side="left") + np.searchsorted(known, signed, side="right")
    ranks = np.where(np.isfinite(signed), below / (2.0 * known.size), np.nan)
    counts = np.isfinite(ranks).sum(axis=0)
    return np.where(counts > 0, np.nansum(ranks, axis=0) / np.maximum(counts, 1), np.nan)


def win_bars(baseline: SystemScores, system: SystemScores, columns: Sequence[Column]) -> Html | None:
    """Return how often the system beats the baseline on a pair of clips, one bar per score that has a direction."""
    pairs = pair_clips(baseline, system)
    bars = []
    for column in columns:
        if not (baseline.has(column) and system.has(column)):
            continue
        gaps = system.values[column.name][pairs.system] - baseline.values[column.name][pairs.baseline]
        gaps = gaps[np.isfinite(gaps)]
        if gaps.size and column.higher_is_better is not None:
            gaps = gaps if column.higher_is_better else -gaps
            shares = [float((gaps > 0).mean()), float((gaps == 0).mean()), float((gaps < 0).mean())]
            bars.append(ShareRow(label_of(column), shares, f"{gaps.size} pairs"))
    if not bars:
        return None
    kinds = (
        ShareKind(f"{system.system} is better", "var(--c1)"),
        ShareKind("equal", "var(--line)", is_calm=True),
        ShareKind(f"{baseline.system} is better", "var(--base)"),
    )
    return share_bars("Clip by clip: how often each is better", kinds, bars)


def total_bars(summaries: Sequence[Summary]) -> list[Html]:
    """Return VBench's Quality, Semantic and Total of each family that has them."""
    pictures = []
    for family in VBENCH_FAMILIES:
        held = [[total for total in summary.totals if total.family == family] for summary in summaries]
        if any(held):
            names = list(dict.fromkeys(total.name for totals in held for total in totals))
            rows = []
            for name in names:
                found = [next((total for total in totals if total.name == name), None) for totals in held]
                partial = any(total is not None and total.is_partial for total in found)
                rows.append(
                    ValueRow(
                        name.capitalize() + (" (partial)" if partial else ""),
                        [total.interval if total else None for total in found],
                        [_refusal(total, summary) for total, summary in zip(found, summaries, strict=True)],
                    )
                )
            degrees = [_dynamic_degree(summary, family) for summary in summaries]
            rows.append(ValueRow("Dynamic degree", degrees, ["not measured"] * len(degrees)))
            title = FAMILIES[family].split(" (")[0]
            unit = "VBench's score in percent, with 95% intervals; dynamic degree is the share of clips that move"
            colours = system_colours(len(summaries))
            pictures.append(
                value_bars(title, [summary.system for summary in summaries], rows, unit=unit, colours=colours)
            )
    return pictures


def _refusal(total: Total | None, summary: Summary) -> str:
    """Return why there is no total; the system's name is left out where the reason is that of every run like it."""
    if total is None:
        return f"{summary.system}: not measured"
    reason = total.refused or "not computed"
    return f"Refused: {reason}" if "was not measured" in reason else f"{summary.system} refused: {reason}"


def _dynamic_degree(summary: Summary, family: Family) -> Interval | None:
    for item in summary.dimensions:
        if item.column.family == family and dimension_of(item.column) == "dynamic_degree" and item.num_ok:
            return item.interval
    return None


def curve_charts(scores: Sequence[SystemScores], curves: Curves) -> list[Html]:
    """Return how scores run over the clip, one chart per column, at most twelve, with 95% intervals over prompts."""
    names = list(dict.fromkeys(name for system in scores for name in curves.get(system.system, {})))
    charts = []
    for name in names[:_MAX_CURVES]:
        drawn = []
        known = [column for system in scores for column in system.columns if column.name == name]
        for system in scores:
            if known and not system.has(known[0]):
                continue
            series = _mean_curve(system, curves.get(system.system, {}).get(name, ()))
            if series is not None:
                drawn.append(series)
        title, unit = name.replace("/", ": ").replace("_", " "), known[0].unit if known else ""
        label, colours = "segment or frame", system_colours(len(drawn))
        charts.append(line_chart(title, drawn, x_label=label, y_label=unit, dots=False, colours=colours))
    return charts


def system_colours(count: int) -> list[str]:
    """Return the colour of each system: grey for the baseline, which comes first, where there are others."""
    return ["var(--base)", *curve_colours(count - 1)] if count > 1 else curve_colours(count)


def _mean_curve(system: SystemScores, curves: Sequence[Sequence[float]]) -> Series | None:
    """Return the mean curve of a system; positions that fewer than half of the clips reach are left out."""
    held = [(np.asarray(curve, dtype=np.float64), index) for index, curve in enumerate(curves) if len(curve)]
    if not held:
        return None
    lengths = sorted(len(curve) for curve, _ in held)
    length = lengths[(len(lengths) - 1) // 2]
    means, lows, highs = [], [], []
    for position in range(length):
        reached = [(curve[position], index) for curve, index in held if len(curve) > position]
        interval = bootstrap_mean(
            [value for value, _ in reached],
            system.clusters[[index for _, index in reached]],
            num_resamples=_CURVE_RESAMPLES,
        )
        means.append(interval.mean)
        lows.append(interval.low)
        highs.append(interval.high)
    return Series(system.system, list(range(1, length + 1)), means, lows, highs)


def _vbench_share(system: SystemScores, column: Column, dimension: str) -> float:
    values = system.values[column.name] if system.has(column) else np.empty(0)
    known = values[np.isfinite(values)]
    if known.size == 0:
        return float("nan")
    return normalise(dimension, float(known.mean()))
