"""Markdown tables for cards, READMEs and the terminal."""

from collections.abc import Sequence

_RULES = {"l": ":---", "r": "---:", "c": ":---:"}


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, align: str = "") -> str:
    """Return a Markdown table whose source is aligned too.

    Args:
        header: Column titles.
        rows: Cells, as many per row as columns; vertical bars are escaped and line breaks become spaces.
        align: One letter per column, "l", "r" or "c"; all left where empty.

    Raises:
        ValueError: A row or `align` has another number of columns.
    """
    align = align or "l" * len(header)
    if len(align) != len(header) or any(len(row) != len(header) for row in rows):
        raise ValueError(f"Every row and align={align!r} must have {len(header)} columns.")
    cells = [[_escape(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    widths = [max(width, len(_RULES[side])) for width, side in zip(widths, align, strict=True)]
    rule = [
        _RULES[side].replace("---", "-" * (width - len(_RULES[side]) + 3))
        for width, side in zip(widths, align, strict=True)
    ]
    lines = [_line(cells[0], widths, align), "| " + " | ".join(rule) + " |"]
    lines += [_line(row, widths, align) for row in cells[1:]]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str], widths: Sequence[int], align: str) -> str:
    pad = {"l": str.ljust, "r": str.rjust, "c": str.center}
    padded = (pad[side](cell, width) for cell, width, side in zip(cells, widths, align, strict=True))
    return "| " + " | ".join(padded) + " |"


def _escape(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")
