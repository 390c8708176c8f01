"""The frame of a report: header with the verdict, titled sections, folded details, footer."""

from collections.abc import Mapping, Sequence
from typing import Literal

from rlhf_video.report.page import Html, escape, join

Tone = Literal["good", "bad", "calm"]


def header(
    kicker: str, verdict: str, *, tone: Tone = "calm", facts: Mapping[str, str] | None = None, because: str = ""
) -> Html:
    """Return the top of the page: what this is, the one sentence to remember, and the facts behind it.

    Args:
        kicker: What was run, small, above the verdict.
        verdict: One sentence with its numbers.
        tone: "good" or "bad" colours the edge.
        facts: Label -> value, for example {"prompts": "60 unseen", "seed": "0"}.
        because: What the verdict rests on, smaller, below it.
    """
    items = [f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in (facts or {}).items()]
    below = f'<dl class="facts">{"".join(items)}</dl>' if items else ""
    reason = f'<p class="because">{escape(because)}</p>' if because else ""
    sentence = f'<div class="card verdict {tone}"><p>{escape(verdict)}</p>{reason}</div>'
    return Html(f"<header><h1>{escape(kicker)}</h1>{sentence}{below}</header>")


def section(title: str, parts: Sequence[Html], *, lead: str = "") -> Html:
    """Return a titled section; `lead` says in one or two sentences how to read it."""
    below = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    return Html(f"<section><h2>{escape(title)}</h2>{below}{join(parts)}</section>")


def folded(title: str, text: str, *, is_open: bool = False) -> Html:
    """Return preformatted text (a command, a configuration) behind a title that unfolds it."""
    state = " open" if is_open else ""
    return Html(f'<details class="card"{state}><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>')


def table(header_cells: Sequence[str], rows: Sequence[Sequence[str]], *, align: str, picked: int | None = None) -> Html:
    """Return a plain table.

    Args:
        header_cells: Column titles.
        rows: Plain text cells.
        align: "l" or "r" per column.
        picked: Index of a row to highlight.
    """
    sides = [' class="num"' if letter == "r" else "" for letter in align]
    head = "".join(f"<th{side}>{escape(cell)}</th>" for cell, side in zip(header_cells, sides, strict=True))
    lines = []
    for index, row in enumerate(rows):
        cells = "".join(f"<td{side}>{escape(cell)}</td>" for cell, side in zip(row, sides, strict=True))
        mark = ' class="pick"' if index == picked else ""
        lines.append(f"<tr{mark}>{cells}</tr>")
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return Html(f'<div class="card scroll"><table>{body}</table></div>')


def footer(text: str) -> Html:
    """Return the last line of the page."""
    return Html(f"<footer>{escape(text)}</footer>")
