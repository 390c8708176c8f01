"""Radar charts as inline SVG: several systems on axes that all run from 0 in the middle to 1 at the edge."""

import math
from collections.abc import Mapping, Sequence

from rlhf_video.report.chart import curve_colours, legend
from rlhf_video.report.page import Html, escape

_WIDTH, _HEIGHT, _RADIUS = 460, 318, 120
_RINGS = (0.25, 0.5, 0.75, 1.0)
_LINE_HEIGHT = 14


def radar_chart(
    title: str,
    axes: Sequence[str],
    systems: Mapping[str, Sequence[float]],
    *,
    scale: str,
    colours: Sequence[str] = (),
) -> Html:
    """Return a radar with its title, scale and legend.

    Args:
        title: What is shown.
        axes: Names of the axes, clockwise from the top, at least three.
        systems: Name -> one value per axis, drawn between 0 and 1; a value outside is drawn at the edge and its hover
            title tells it, a value that is not finite leaves a gap in the outline.
        scale: What 0 and 1 mean.
        colours: A CSS colour per system; those of the page's curves where empty.

    Raises:
        ValueError: There are fewer than three axes, or a system has another number of values.
    """
    if len(axes) < 3 or any(len(values) != len(axes) for values in systems.values()):
        raise ValueError(f"A radar needs at least three axes and a value for each: got {len(axes)} axes.")
    parts = [_frame(axes)]
    colours = colours or curve_colours(len(systems))
    for (name, values), colour in zip(systems.items(), colours, strict=True):
        parts.append(_outline(name, values, axes, colour=colour))
    body = "".join(parts)
    heading = f'<figcaption>{escape(title)}<span class="unit">{escape(scale)}</span></figcaption>'
    picture = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{body}</svg>'
    return Html(f'<figure class="card chart">{heading}{picture}{legend(list(systems), colours)}</figure>')


def _place(axis: int, num_axes: int, share: float) -> tuple[float, float]:
    angle = 2.0 * math.pi * axis / num_axes
    return _WIDTH / 2 + _RADIUS * share * math.sin(angle), _HEIGHT / 2 - _RADIUS * share * math.cos(angle)


def _frame(axes: Sequence[str]) -> str:
    count, parts = len(axes), []
    for ring in _RINGS:
        corners = " ".join("{:.1f},{:.1f}".format(*_place(axis, count, ring)) for axis in range(count))
        parts.append(f'<polygon class="grid" points="{corners}" fill="none"/>')
    for axis, name in enumerate(axes):
        x, y = _place(axis, count, 1.0)
        parts.append(f'<line class="grid" x1="{_WIDTH / 2}" y1="{_HEIGHT / 2}" x2="{x:.1f}" y2="{y:.1f}"/>')
        parts.append(_axis_label(name, axis, count))
    return "".join(parts)


def _axis_label(name: str, axis: int, count: int) -> str:
    """Write an axis' name outside its end, broken at spaces, on the side where there is room."""
    x, y = _place(axis, count, 1.13)
    side = math.sin(2.0 * math.pi * axis / count)
    anchor = "middle" if abs(side) < 0.2 else "start" if side > 0 else "end"
    lines = _broken(name, width=15 if anchor != "middle" else 30)
    start = y - (len(lines) - 1) * _LINE_HEIGHT / 2
    spans = "".join(
        f'<tspan x="{x:.1f}" y="{start + _LINE_HEIGHT * line:.1f}">{escape(text)}</tspan>'
        for line, text in enumerate(lines)
    )
    return f'<text text-anchor="{anchor}" dominant-baseline="middle">{spans}</text>'


def _broken(name: str, *, width: int) -> list[str]:
    """Break a name into lines of about `width` letters; what does not fit three lines ends in an ellipsis."""
    lines: list[str] = []
    for word in name.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(word if len(word) <= width + 3 else word[: width + 2] + "…")
    return lines[:3] if len(lines) <= 3 else [*lines[:2], lines[2] + " …"]


def _outline(name: str, values: Sequence[float], axes: Sequence[str], *, colour: str) -> str:
    count = len(axes)
    corners = [
        _place(axis, count, max(0.0, min(1.0, value))) if math.isfinite(value) else None
        for axis, value in enumerate(values)
    ]
    parts = []
    if all(corners):
        points = " ".join(f"{corner[0]:.1f},{corner[1]:.1f}" for corner in corners if corner)
        parts.append(f'<polygon points="{points}" fill="{colour}" fill-opacity=".10" stroke="none"/>')
    for start in range(count):
        one, other = corners[start], corners[(start + 1) % count]
        if one and other:
            ends = f'x1="{one[0]:.1f}" y1="{one[1]:.1f}" x2="{other[0]:.1f}" y2="{other[1]:.1f}"'
            parts.append(f'<line class="curve" {ends} stroke="{colour}"/>')
    for corner, value, axis in zip(corners, values, axes, strict=True):
        if corner:
            hover = escape(f"{axis}, {name}: {value:.3f}")
            place = f'cx="{corner[0]:.1f}" cy="{corner[1]:.1f}"'
            parts.append(f'<circle class="dot" {place} r="4" fill="{colour}"><title>{hover}</title></circle>')
    return "".join(parts)
