"""Tables of a report: what one system scores, and what changed against the baseline."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from evaluation.aggregation.comparison import DimensionChange, SystemComparison
from evaluation.aggregation.summary import DimensionSummary, Summary
from evaluation.base import Family
from evaluation.report.pairs import direction_of, half_width, label_of, write_difference, write_value
from evaluation.scores import Column, SystemScores
from rlhf_video.report import Html, escape, interval_picture, table
from rlhf_video.stats import Interval

FAMILIES: dict[Family, str] = {
    "vbench-official": "VBench, the original package",
    "vbench-port": "VBench, ports on the modern stack (never mixed with the original's numbers)",
    "vbench-long-port": "VBench-Long, ports on the modern stack (never mixed with VBench's numbers)",
    "reward": "Reward models",
    "measure": "Measurements",
}
Tone = Literal["good", "bad", "calm"]


def tone_of(change: DimensionChange) -> Tone:
    """Return how to colour a change: only what survives Holm's correction is good or bad."""
    if change.gain is None or not change.is_significant:
        return "calm"
    return "good" if change.gain.mean > 0.0 else "bad"


def by_family(columns: Sequence[Column]) -> list[tuple[Family, list[int]]]:
    """Return the families in the order of `FAMILIES`, each with the indices of its columns."""
    groups = [(family, [i for i, column in enumerate(columns) if column.family == family]) for family in FAMILIES]
    return [(family, indices) for family, indices in groups if indices]


def comparison_table(comparison: SystemComparison, baseline: SystemScores, summary: Summary | None) -> Html:
    """Return what changed: both means, the difference, its p-value, a picture of it, and the coverage.

    Args:
        comparison: System against baseline.
        baseline: Its scores: their spread is the unit of the pictures.
        summary: Of the system, for the coverage; None leaves it out.
    """
    units = [_deviation(baseline, change.column) for change in comparison.changes]
    reach = [
        max(abs(end) for end in (change.difference.low, change.difference.high, change.difference.mean)) / unit
        for change, unit in zip(comparison.changes, units, strict=True)
    ]
    limit = max((value for value in reach if math.isfinite(value)), default=1.0) * 1.05 or 1.0
    limit = min(limit, 3.0)
    held = {} if summary is None else {item.column.name: item for item in summary.dimensions}
    head = (
        f'<th>score</th><th class="num">{escape(comparison.baseline)}</th><th class="num">{escape(comparison.system)}'
        '</th><th class="num">difference</th><th class="num">p (Holm)</th>'
        '<th>interval, in SD of the baseline</th><th class="num">scored</th>'
    )
    lines = []
    for family, indices in by_family([change.column for change in comparison.changes]):
        lines.append(f'<tr class="group"><td colspan="7">{escape(FAMILIES[family])}</td></tr>')
        for index in indices:
            change = comparison.changes[index]
            lines.append(_change_line(change, held.get(change.column.name), unit=units[index], limit=limit))
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return Html(f'<div class="card scroll changes"><table>{body}</table></div>')


def system_table(summaries: Sequence[Summary]) -> Html:
    """Return the mean of every score of every system with its interval and coverage."""
    head = "<th>score</th>" + "".join(f'<th class="num">{escape(summary.system)}</th>' for summary in summaries)
    columns = [item.column for item in summaries[0].dimensions]
    lines = []
    for family, indices in by_family(columns):
        lines.append(f'<tr class="group"><td colspan="{len(summaries) + 1}">{escape(FAMILIES[family])}</td></tr>')
        for index in indices:
            cells = "".join(_system_cell(summary, columns[index]) for summary in summaries)
            lines.append(f"<tr>{_name_cell(columns[index])}{cells}</tr>")
    return Html(
        f'<div class="card scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def totals_table(comparisons: Sequence[SystemComparison]) -> Html | None:
    """Return how VBench's totals changed on pairs of clips, in points of a hundred; None where every one is refused."""
    rows = []
    for comparison in comparisons:
        for total in comparison.totals:
            if total.baseline is not None and total.system is not None and total.difference is not None:
                change = total.difference.scaled(100.0)
                rows.append(
                    (
                        total.name + (" (partial)" if total.is_partial else ""),
                        FAMILIES[total.family].split(" (")[0],
                        f"{comparison.baseline}: {100.0 * total.baseline.mean:.2f}",
                        f"{comparison.system}: {100.0 * total.system.mean:.2f}",
                        f"{change.mean:+.2f} ({change.low:+.2f} to {change.high:+.2f})",
                        write_p(total.p_value),
                    )
                )
    if not rows:
        return None
    return table(("total", "by", "baseline", "system", "difference", "p, uncorrected"), rows, align="llrrrr")


def counts_of(item: DimensionSummary) -> tuple[str, str]:
    """Return how many clips were scored, and what became of the others: ("141/144", "2 skipped, 1 failed")."""
    parts = [(item.num_skipped, "skipped"), (item.num_failed, "failed"), (item.num_left_out, "left out")]
    return f"{item.num_ok}/{item.num_asked}", ", ".join(f"{count} {what}" for count, what in parts if count)


def write_p(value: float) -> str:
    """Return a p-value with two digits, small ones as a bound."""
    if not math.isfinite(value):
        return "—"
    return "< 0.001" if value < 0.001 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def _change_line(change: DimensionChange, item: DimensionSummary | None, *, unit: float, limit: float) -> str:
    column, tone = change.column, tone_of(change)
    difference, ends = write_difference(change.difference, column)
    ink = {"good": ' class="good-ink"', "bad": ' class="bad-ink"', "calm": ""}[tone]
    mark = f'<span class="sub"><span class="chip {tone}">significant</span></span>' if change.is_significant else ""
    counts, holes = counts_of(item) if item else (str(change.num_pairs), "")
    finds = write_value(change.minimum_detectable, column, half_width(change.difference) / 3.0)
    return (
        f"<tr>{_name_cell(column)}{_value_cell(change.baseline, column)}{_value_cell(change.system, column)}"
        f'<td class="num"><span{ink}>{difference}</span><span class="sub">{escape(ends)}</span></td>'
        f'<td class="num" title="Smallest true difference found four times in five, after correction: {escape(finds)}">'
        f"{write_p(change.p_holm)}{mark}</td>"
        f"<td>{interval_picture(change.difference, unit=unit, limit=limit, tone=tone)}</td>"
        f'<td class="num">{counts}<span class="sub warn">{escape(holes)}</span></td></tr>'
    )


def _system_cell(summary: Summary, column: Column) -> str:
    for item in summary.dimensions:
        if item.column == column:
            counts, holes = counts_of(item)
            below = f'<span class="sub">{counts} clips</span><span class="sub warn">{escape(holes)}</span>'
            if not item.num_ok:
                return f'<td class="num">—{below}</td>'
            return _value_cell(item.interval, column, below=below)
    names = [item.column.name for item in summary.dimensions]
    reason = "measured otherwise" if column.name in names else "not measured"
    return f'<td class="num">—<span class="sub">{reason}</span></td>'


def _value_cell(interval: Interval, column: Column, *, below: str = "") -> str:
    spread = half_width(interval)
    ends = "one prompt: no interval"
    if math.isfinite(spread):
        low, high = (write_value(end, column, spread) for end in (interval.low, interval.high))
        ends = f"{low} to {high}"
    mean = write_value(interval.mean, column, spread)
    return f'<td class="num mean">{mean}<span class="sub ends">{escape(ends)}</span>{below}</td>'


def _name_cell(column: Column) -> str:
    arrow = "" if column.higher_is_better else direction_of(column)
    facts = [fact for fact in (column.unit, arrow) if fact not in ("", "score")]
    below = f'<span class="sub">{escape(", ".join(facts))}</span>' if facts else ""
    return f'<td class="name">{escape(label_of(column))}{below}</td>'


def _deviation(baseline: SystemScores, column: Column) -> float:
    values = baseline.values.get(column.name, np.empty(0))
    known = values[np.isfinite(values)]
    deviation = float(known.std()) if known.size else 0.0
    return deviation if deviation > 1e-9 else 1.0
