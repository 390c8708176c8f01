"""The family tree of systems as a drawing and as a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.lineage.head_to_head import HeadToHead
from app.lineage.lineage import LineageNode
from app.pages.html_parts import change, code, lead, number, page, panel, share, table, when
from rlhf_video.report.page import Html, escape

_WIDTH, _HEIGHT, _ACROSS, _DOWN, _EDGE = 200, 66, 350, 88, 8
_LONGEST = 22


@dataclass(frozen=True)
class _Place:
    x: float
    y: float


def lineage_html(nodes: Sequence[LineageNode]) -> str:
    """Return the tree and what each training brought.

    Args:
        nodes: Parents before their children.
    """
    if not nodes:
        return page(panel("Systems and where they come from", lead("This study has no systems yet.")))
    return page(
        panel(
            "Systems and where they come from",
            lead(
                "Each line is a training; on it, how often people prefer the child to its parent, with the 95% "
                "interval. Votes on prompts that a system was trained on are left out."
            ),
            tree_svg(nodes),
            _table(nodes),
        )
    )


def tree_svg(nodes: Sequence[LineageNode]) -> Html:
    """Draw the tree from left to right: a box for each system, a line for each training."""
    places = _places(nodes)
    width = max(place.x for place in places.values()) + _WIDTH + _EDGE
    height = max(place.y for place in places.values()) + _HEIGHT + _EDGE
    lines = [_edge(node, places) for node in nodes if node.parent in places]
    boxes = [_box(node, places[node.name]) for node in nodes]
    return Html(
        f'<div class="wide"><svg class="tree" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-label="Family tree of {len(nodes)} systems">'
        f"{''.join(lines)}{''.join(boxes)}</svg></div>"
    )


def _places(nodes: Sequence[LineageNode]) -> dict[str, _Place]:
    """Return where boxes stand: leaves below one another, parents at the middle of their children."""
    children: dict[str, list[str]] = {}
    for node in nodes:
        if node.parent is not None:
            children.setdefault(node.parent, []).append(node.name)
    heights: dict[str, float] = {}
    for node in nodes:  # leaves, in reading order
        if node.name not in children:
            heights[node.name] = _EDGE + _DOWN * len(heights)
    for node in reversed(nodes):  # children before their parents
        if node.name in children:
            below = [heights[name] for name in children[node.name]]
            heights[node.name] = (min(below) + max(below)) / 2
    return {node.name: _Place(_EDGE + _ACROSS * node.depth, heights[node.name]) for node in nodes}


def _edge(node: LineageNode, places: dict[str, _Place]) -> str:
    parent, child = places[str(node.parent)], places[node.name]
    x0, y0, x1, y1 = parent.x + _WIDTH, parent.y + _HEIGHT / 2, child.x, child.y + _HEIGHT / 2
    middle, label = (x0 + x1) / 2, _label(node.against_parent)
    curve = f"M{x0:.1f} {y0:.1f} C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
    text = (
        f'<text class="edge" x="{middle:.1f}" y="{(y0 + y1) / 2 - 8:.1f}" text-anchor="middle">{escape(label)}</text>'
    )
    return f'<path class="{_tone(node.against_parent)}" d="{curve}"/>{text}'


def _box(node: LineageNode, place: _Place) -> str:
    name = node.name if len(node.name) <= _LONGEST else f"{node.name[: _LONGEST - 1]}…"
    trained = (
        f"{node.trained_on.num_pairs.get('train', 0)} pairs of people" if node.trained_on else "no votes of this study"
    )
    origin = "first of its line" if node.parent is None else f"trained on {trained}"
    return (
        f'<g class="system{"" if node.is_active else " retired"}"><title>{escape(node.name)}</title>'
        f'<rect x="{place.x:.1f}" y="{place.y:.1f}" width="{_WIDTH}" height="{_HEIGHT}" rx="10"/>'
        f'<text class="name" x="{place.x + 12:.1f}" y="{place.y + 22:.1f}">{escape(name)}</text>'
        f'<text class="calm" x="{place.x + 12:.1f}" y="{place.y + 40:.1f}">{node.num_votes:,} votes</text>'
        f'<text class="calm" x="{place.x + 12:.1f}" y="{place.y + 56:.1f}">{escape(origin)}</text></g>'
    )


def _label(fight: HeadToHead | None) -> str:
    if fight is None:
        return "not compared"
    rate = fight.win_rate
    if rate.high - rate.low > 1.0:  # infinite: a single prompt
        return f"{rate.mean:.0%}"
    return f"{rate.mean:.0%} [{rate.low:.0%}, {rate.high:.0%}]"


def _tone(fight: HeadToHead | None) -> str:
    """Return the colour of a line by what people are sure of."""
    if fight is None:
        return "calm"
    return "good" if fight.win_rate.low > 0.5 else "bad" if fight.win_rate.high < 0.5 else "wait"


def _table(nodes: Sequence[LineageNode]) -> Html:
    head = (
        "System",
        "Trained from",
        "On the votes of",
        "Against its parent",
        "Won / tied / lost",
        "Rating gained (log-odds)",
        "Against the first",
        "Raters",
    )
    rows = []
    for node in nodes:
        fight, export = node.against_parent, node.trained_on
        rows.append(
            (
                Html(f"{'&emsp;' * node.depth}{escape(node.name)}"),
                escape(node.parent or "-"),
                Html(f"{code(export.manifest_sha256, shown=12)} {when(export.created_at)}") if export else Html("-"),
                share(fight.win_rate if fight else None),
                Html(f"{fight.wins} / {fight.ties} / {fight.losses}") if fight else Html("-"),
                change(fight.rating if fight else None),
                share(node.against_first.win_rate if node.against_first else None),
                number(fight.num_raters) if fight else Html("-"),
            )
        )
    return table(head, rows, empty="")
