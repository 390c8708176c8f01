"""Horizontal bars: shares that add up to a whole, and values with their intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_video.report.chart import curve_colours, legend
from rlhf_video.report.page import Html, escape
from rlhf_video.stats import Interval


@dataclass(frozen=True)
class ShareKind:
    """What a part of a bar stands for."""

    label: str
    colour: str
    """CSS colour of the part."""
    is_calm: bool = False
    """Neither side's: a light part with dark text."""


@dataclass(frozen=True)
class ShareRow:
    """How often one side won."""

    label: str
    shares: Sequence[float]
    """In [0, 1]; they add up to 1."""
    note: str = ""
    """Small text behind the label, for example the number of pairs."""


@dataclass(frozen=True)
class ValueRow:
    """One bar per system."""

    label: str
    intervals: Sequence[Interval | None]
    """One per system, in [0, 1]; None where there is no value."""
    notes: Sequence[str] = ()
    """What to write where there is no value, one per system."""


def share_bars(title: str, kinds: Sequence[ShareKind], rows: Sequence[ShareRow]) -> Html:
    """Return one full bar per row, cut into shares.

    Args:
        title: What is shown.
        kinds: What the shares are, for example "adapter wins", "equal", "base wins".
        rows: Bars from top to bottom.
    """
    lines = []
    for row in rows:
        cells = []
        for kind, share in zip(kinds, row.shares, strict=True):
            text = f"{100.0 * share:.0f}%" if share >= 0.1 else ""
            hover = escape(f"{row.label}: {kind.label} {100.0 * share:.1f}%")
            look = (
                f'class="calm" style="width:{100.0 * share:.2f}%'
                if kind.is_calm
                else f'style="width:{100.0 * share:.2f}%'
            )
            cells.append(f'<i {look};background:{kind.colour}" title="{hover}">{text}</i>')
        note = f'<span class="sub">{escape(row.note)}</span>' if row.note else ""
        lines.append(f'<div class="rowlabel">{escape(row.label)}{note}</div><div class="whole">{"".join(cells)}</div>')
    heading = f"<figcaption>{escape(title)}</figcaption>"
    below = legend([kind.label for kind in kinds], [kind.colour for kind in kinds])
    return Html(f'<figure class="card chart wide">{heading}{below}<div class="bars">{"".join(lines)}</div></figure>')


def value_bars(
    title: str, systems: Sequence[str], rows: Sequence[ValueRow], *, unit: str, colours: Sequence[str] = ()
) -> Html:
    """Return bars from 0 to 1 in groups, one bar per system, each with its interval drawn over its end.

    Args:
        title: What is shown.
        systems: Names in the order of each row's intervals.
        rows: Groups from top to bottom.
        unit: What 0 and 1 mean.
        colours: A CSS colour per system; those of the page's curves where empty.
    """
    colours = colours or curve_colours(len(systems))
    lines = []
    for row in rows:
        bars = []
        for index, (system, interval) in enumerate(zip(systems, row.intervals, strict=True)):
            if interval is None:
                note = row.notes[index] if index < len(row.notes) else "no value"
                line = f'<div class="value none">{escape(note)}</div>'
                bars += [] if line in bars else [line]  # what holds for all is said once
            else:
                bars.append(_bar(row.label, system, interval, colour=colours[index]))
        lines.append(f'<div class="rowlabel">{escape(row.label)}</div><div class="group">{"".join(bars)}</div>')
    heading = f'<figcaption>{escape(title)}<span class="unit">{escape(unit)}</span></figcaption>'
    body = f'<div class="bars">{"".join(lines)}</div>{legend(systems, colours)}'
    return Html(f'<figure class="card chart wide">{heading}{body}</figure>')


def _bar(label: str, system: str, interval: Interval, *, colour: str) -> str:
    def percent(value: float, otherwise: float) -> float:
        return 100.0 * max(0.0, min(1.0, value if math.isfinite(value) else otherwise))

    end = percent(interval.mean, 0.0)
    low, high = percent(interval.low, interval.mean), percent(interval.high, interval.mean)
    hover = escape(f"{label}, {system}: {interval.mean:.4f} (95% interval {interval.low:.4f} to {interval.high:.4f})")
    return (
        f'<div class="value" title="{hover}"><span class="track"><i style="width:{end:.2f}%;background:{colour}"></i>'
        f'<b style="left:{low:.2f}%;width:{max(high - low, 0.2):.2f}%"></b></span>'
        f"<em>{100.0 * interval.mean:.1f}</em></div>"
    )
