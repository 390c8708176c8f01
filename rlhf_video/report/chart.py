"""Line charts as inline SVG: axes with units, interval bands, a hover title on every point."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_video.report.page import Html, escape, join

_WIDTH, _HEIGHT = 460, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 40
_NUM_COLOURS = 5
_FILE_COLOURS = ("#0f766e", "#b45309", "#5b4bc4", "#be2d6a", "#3a7d1f")  # those of style.py on paper
_FILE_STYLE = (
    "text{fill:#5d6470;font:12.5px system-ui,sans-serif}.grid{stroke:#eceae3}.curve{fill:none;stroke-width:2.2}"
    ".band{opacity:.16}"
)


@dataclass(frozen=True)
class Series:
    """One curve."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    """Lower ends of the intervals, as long as y, or empty."""
    high: Sequence[float] = ()
    marked: int | None = None
    """Index of a point to draw large, for example the recommended one."""

    def __post_init__(self) -> None:
        """Check that the parts have the same length (our own bug otherwise)."""
        assert len(self.x) == len(self.y), (len(self.x), len(self.y))
        assert len(self.low) == len(self.high), (len(self.low), len(self.high))
        assert len(self.low) in (0, len(self.y)), (len(self.low), len(self.y))


@dataclass(frozen=True)
class _Axis:
    """Map values to pixels of the picture."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    zero_line: bool = False,
    dots: bool = True,
    colours: Sequence[str] = (),
) -> Html:
    """Return a chart with its title, unit and legend.

    Points that are not finite are left out; a chart without any point says so.

    Args:
        title: What is shown.
        series: Curves, at most five are told apart by colour.
        x_label: Name and unit of the horizontal axis.
        y_label: Name and unit of the vertical axis.
        zero_line: Keep zero in view and mark it.
        dots: Draw a dot at every point; without them hover titles remain.
        colours: A CSS colour per curve; those of the page where empty.
    """
    colours = colours or curve_colours(len(series))
    series = [_finite(curve) for curve in series]
    heading = f'<figcaption>{escape(title)}<span class="unit">{escape(y_label)}</span></figcaption>'
    if not any(len(curve.x) for curve in series):
        return Html(f'<figure class="card chart">{heading}<p class="lead">Nothing was recorded yet.</p></figure>')
    body = _drawing(series, colours, x_label=x_label, zero_line=zero_line, dots=dots)
    picture = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{body}</svg>'
    below = legend([curve.label for curve in series], colours) if len(series) > 1 else ""
    return Html(f'<figure class="card chart">{heading}{picture}{below}</figure>')


def chart_file(title: str, series: Sequence[Series], *, x_label: str) -> str:
    """Return a chart as an SVG file of its own, for cards; it takes the colours of light paper.

    Args:
        title: What is shown, with its unit, for those who cannot see it.
        series: Curves; at least one point is finite.
        x_label: Name and unit of the horizontal axis.
    """
    series = [_finite(curve) for curve in series]
    colours = "".join(f"--c{i + 1}:{colour};" for i, colour in enumerate(_FILE_COLOURS))
    style = f":root{{{colours}}}{_FILE_STYLE}"
    body = _drawing(series, curve_colours(len(series)), x_label=x_label, zero_line=False, dots=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" role="img" aria-label="{escape(title)}"><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{body}</svg>\n'
    )


def _drawing(series: Sequence[Series], colours: Sequence[str], *, x_label: str, zero_line: bool, dots: bool) -> Html:
    x_axis, y_axis, x_ticks, y_ticks = _axes(series, zero_line=zero_line)
    parts = [_grid(x_axis, y_axis, x_ticks, y_ticks, x_label=x_label, zero_line=zero_line)]
    for curve, colour in zip(series, colours, strict=True):
        parts.append(_curve(curve, x_axis, y_axis, colour=colour, x_label=x_label, dots=dots))
    return join(parts)


def nice_ticks(low: float, high: float, *, count: int = 5) -> list[float]:
    """Return about `count` round numbers (1, 2 or 5 times a power of ten apart) that enclose [low, high]."""
    if high <= low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1.0, 2.0, 5.0, 10.0) if factor * magnitude >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def number(value: float) -> str:
    """Return a number short enough for an axis or a hover title."""
    if value != 0.0 and (abs(value) < 1e-3 or abs(value) >= 1e5):
        return f"{value:.1e}"
    return f"{value:.4g}"


def _finite(curve: Series) -> Series:
    """Drop points that cannot be drawn; an infinite interval end is drawn at the point itself."""
    keep = [index for index in range(len(curve.y)) if math.isfinite(curve.y[index]) and math.isfinite(curve.x[index])]
    ends: list[list[float]] = [[], []]
    if len(curve.low):
        for side, bounds in zip(ends, (curve.low, curve.high), strict=True):
            side.extend(bounds[index] if math.isfinite(bounds[index]) else curve.y[index] for index in keep)
    marked = keep.index(curve.marked) if curve.marked in keep else None
    return Series(curve.label, [curve.x[i] for i in keep], [curve.y[i] for i in keep], ends[0], ends[1], marked)


def _axes(series: Sequence[Series], *, zero_line: bool) -> tuple[_Axis, _Axis, list[float], list[float]]:
    xs = [value for curve in series for value in curve.x]
    ys = [value for curve in series for values in (curve.y, curve.low, curve.high) for value in values]
    if zero_line:
        ys.append(0.0)
    ticks = nice_ticks(min(ys), max(ys), count=6)
    y_low, y_high = (min(ys), max(ys)) if max(ys) > min(ys) else (ticks[0], ticks[-1])
    pad = 0.06 * (y_high - y_low)
    y_low, y_high = y_low - pad, y_high + pad
    y_ticks = [tick for tick in ticks if y_low <= tick <= y_high]
    x_low, x_high = min(xs), max(xs)
    if x_high == x_low:
        x_low, x_high = x_low - 0.5, x_high + 0.5
    x_ticks = [tick for tick in nice_ticks(x_low, x_high, count=6) if x_low <= tick <= x_high]
    x_axis = _Axis(x_low, x_high, _LEFT + 6, _WIDTH - _RIGHT - 6)
    return x_axis, _Axis(y_low, y_high, _HEIGHT - _BOTTOM, _TOP), x_ticks, y_ticks


def _grid(
    x_axis: _Axis, y_axis: _Axis, x_ticks: Sequence[float], y_ticks: Sequence[float], *, x_label: str, zero_line: bool
) -> Html:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for tick in y_ticks:
        y = f"{y_axis(tick):.1f}"
        kind = "zero" if zero_line and tick == 0.0 else "grid"
        parts.append(f'<line class="{kind}" x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y}" dy=".32em" text-anchor="end">{number(tick)}</text>')
    for tick in x_ticks:
        parts.append(f'<text x="{x_axis(tick):.1f}" y="{bottom + 17}" text-anchor="middle">{number(tick)}</text>')
    parts.append(f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    return Html("".join(parts))


def _curve(curve: Series, x_axis: _Axis, y_axis: _Axis, *, colour: str, x_label: str, dots: bool) -> Html:
    def path(values: Sequence[float]) -> list[str]:
        return [f"{x_axis(x):.1f},{y_axis(y):.1f}" for x, y in zip(curve.x, values, strict=True)]

    parts = []
    if len(curve.low) > 1:
        outline = " ".join(path(curve.high) + path(curve.low)[::-1])
        parts.append(f'<polygon class="band" points="{outline}" fill="{colour}"/>')
    parts.append(f'<polyline class="curve" points="{" ".join(path(curve.y))}" stroke="{colour}"/>')
    for index, (x, y) in enumerate(zip(curve.x, curve.y, strict=True)):
        text = f"{curve.label}: {number(y)}"
        if len(curve.low):
            text += f" (95% interval {number(curve.low[index])} to {number(curve.high[index])})"
        radius, look = (6.5, "") if index == curve.marked else (3.4, "")
        if not dots and index != curve.marked:
            radius, look = 6.0, ' fill-opacity="0" stroke-opacity="0"'  # nothing to see, but something to point at
        place = f'cx="{x_axis(x):.1f}" cy="{y_axis(y):.1f}" r="{radius}"'
        hover = escape(f"{x_label} {number(x)}: {text}")
        parts.append(f'<circle class="dot" {place} fill="{colour}"{look}><title>{hover}</title></circle>')
    return Html("".join(parts))


def curve_colours(count: int) -> list[str]:
    """Return the page's colours of curves; the sixth is the first again."""
    return [f"var(--c{index % _NUM_COLOURS + 1})" for index in range(count)]


def legend(names: Sequence[str], colours: Sequence[str] = ()) -> Html:
    """Return what the colours mean; nothing without names.

    Args:
        names: Of the curves or bars, in order.
        colours: CSS colours; those of the page's curves where empty.
    """
    if not names:
        return Html("")
    colours = colours or curve_colours(len(names))
    items = [
        f'<span><i style="background:{colour}"></i>{escape(name)}</span>'
        for name, colour in zip(names, colours, strict=True)
    ]
    return Html(f'<div class="legend">{"".join(items)}</div>')
