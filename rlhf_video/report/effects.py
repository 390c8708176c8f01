"""The before/after table: base, adapter, difference with its interval, and a small picture of the interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rlhf_video.report.page import Html, escape
from rlhf_video.stats import Interval

_PLOT_WIDTH, _PLOT_HEIGHT = 220, 26


@dataclass(frozen=True, kw_only=True)
class EffectRow:
    """One score before and after."""

    label: str
    group: str
    """Heading above rows of the same kind, for example "judge, never trained on"."""
    base: Interval
    adapter: Interval
    difference: Interval
    deviation: float
    """Standard deviation of the base's scores: the unit of the interval's picture, so that rows share one axis."""
    is_share: bool = False
    """Write shares in percent and their difference in percentage points."""
    better: Literal["higher", "lower", "neither"] = "higher"
    """Which direction is coloured as good."""


def effect_table(rows: Sequence[EffectRow], *, names: tuple[str, str] = ("base", "adapter")) -> Html:
    """Return the table, rows of one group together in the order given.

    Args:
        rows: One for each score.
        names: What base and adapter are called.
    """
    limit = max((_reach(row) for row in rows), default=1.0) * 1.08 or 1.0
    head = (
        f'<th>score</th><th class="num">{escape(names[0])}</th><th class="num">{escape(names[1])}</th>'
        '<th class="num">difference</th><th>95% interval, in standard deviations of the base</th>'
    )
    lines, group = [], None
    for row in rows:
        if row.group != group:
            group = row.group
            lines.append(f'<tr class="group"><td colspan="5">{escape(group)}</td></tr>')
        lines.append(_line(row, limit))
    return Html(
        f'<div class="card scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def format_value(value: float, *, is_share: bool) -> str:
    """Return a mean as "0.532" or "53.2%"."""
    return f"{100.0 * value:.1f}%" if is_share else f"{value:.3f}"


def format_difference(interval: Interval, *, is_share: bool) -> tuple[str, str]:
    """Return a difference and its interval as texts: ("+12.5 points", "+4.1 to +20.7")."""
    digits, factor, unit = (1, 100.0, " points") if is_share else (3, 1.0, "")
    ends = f"{interval.low * factor:+.{digits}f} to {interval.high * factor:+.{digits}f}"
    if not math.isfinite(interval.low):
        ends = "one prompt: no interval"
    return f"{interval.mean * factor:+.{digits}f}{unit}", ends


def ink(interval: Interval, better: Literal["higher", "lower", "neither"]) -> Literal["good", "bad", "calm"]:
    """Return how to colour a difference: only an interval clear of zero is good or bad."""
    if better == "neither" or not (interval.is_above_zero or interval.is_below_zero):
        return "calm"
    return "good" if interval.is_above_zero == (better == "higher") else "bad"


def _reach(row: EffectRow) -> float:
    ends = (row.difference.low, row.difference.high, row.difference.mean)
    return max((abs(end) / _unit(row) for end in ends if math.isfinite(end)), default=0.0)


def _unit(row: EffectRow) -> float:
    return row.deviation if row.deviation > 1e-9 else 1.0


def _line(row: EffectRow, limit: float) -> str:
    difference, ends = format_difference(row.difference, is_share=row.is_share)
    tone = ink(row.difference, row.better)
    mark = {"good": ' class="good-ink"', "bad": ' class="bad-ink"', "calm": ""}[tone]
    base = format_value(row.base.mean, is_share=row.is_share)
    adapter = format_value(row.adapter.mean, is_share=row.is_share)
    hint = {"higher": "", "lower": '<span class="sub">lower is better</span>', "neither": ""}[row.better]
    return (
        f'<tr><td class="name">{escape(row.label)}{hint}</td><td class="num">{base}</td><td class="num">{adapter}</td>'
        f'<td class="num"><span{mark}>{difference}</span><span class="sub">{escape(ends)}</span></td>'
        f"<td>{interval_picture(row.difference, unit=_unit(row), limit=limit, tone=tone)}</td></tr>"
    )


def interval_picture(difference: Interval, *, unit: float, limit: float, tone: Literal["good", "bad", "calm"]) -> Html:
    """Draw the interval of a difference on an axis that all rows share, zero in the middle.

    Args:
        difference: In the unit of the scores.
        unit: Length of one unit of the axis, > 0, for example the standard deviation of the base.
        limit: Where the axis ends, in units, > 0; what lies outside is drawn at its end.
        tone: Colour.
    """

    def place(value: float) -> float:
        share = max(-1.0, min(1.0, value / unit / limit))
        return _PLOT_WIDTH / 2 * (1.0 + 0.97 * share)

    colour = {"good": "var(--good)", "bad": "var(--bad)", "calm": "var(--calm)"}[tone]
    middle, centre = _PLOT_HEIGHT / 2, place(0.0)
    low, mean, high = (place(value) for value in (difference.low, difference.mean, difference.high))
    in_units = str(difference.scaled(1.0 / unit))
    return Html(
        f'<svg viewBox="0 0 {_PLOT_WIDTH} {_PLOT_HEIGHT}" style="min-width:180px" role="img" '
        f'aria-label="{escape(in_units)}"><title>{escape(in_units)} standard deviations</title>'
        f'<line class="axis" x1="0" x2="{_PLOT_WIDTH}" y1="{middle}" y2="{middle}"/>'
        f'<line class="zero" x1="{centre:.1f}" x2="{centre:.1f}" y1="1" y2="{_PLOT_HEIGHT - 1}"/>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}" stroke="{colour}" stroke-width="5" '
        f'stroke-linecap="round" opacity=".35"/><circle cx="{mean:.1f}" cy="{middle}" r="5" fill="{colour}"/></svg>'
    )
