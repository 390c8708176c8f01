"""A self-contained HTML page: no external resource, light and dark, every text escaped."""

import html
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NewType

from rlhf_video.report.style import SCRIPT, STYLE

Html = NewType("Html", str)
"""Markup that is safe to insert; plain text becomes Html only through `escape`."""

# The browser itself refuses to load anything from outside the file.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; media-src data:"
_BESIDE = " 'self' file:"  # clips that lie beside the page, whether it is opened as a file or served


def escape(text: str) -> Html:
    """Return text as markup: angle brackets, ampersands and both kinds of quotes are escaped."""
    return Html(html.escape(text, quote=True))


def join(parts: Iterable[Html], *, separator: str = "\n") -> Html:
    """Return pieces of markup one after another."""
    return Html(separator.join(parts))


def document(
    title: str, sections: Sequence[Html], *, style: str = "", script: str = "", clips_beside: bool = False
) -> str:
    """Return a whole page.

    Args:
        title: Plain text of the browser's tab.
        sections: Pieces in reading order.
        style: CSS of this kind of page, behind that all share.
        script: JavaScript of this kind of page, behind the one that all share.
        clips_beside: Whether clips may be loaded from files beside the page, not only from within it.
    """
    body = join(sections)
    policy = _POLICY + (_BESIDE if clips_beside else "")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n<script>{SCRIPT}{script}</script>\n</body>\n</html>\n"
    )


def write_report(
    path: str | Path,
    sections: Sequence[Html],
    *,
    title: str = "rlhf-video report",
    style: str = "",
    script: str = "",
    clips_beside: bool = False,
) -> Path:
    """Write a page atomically and return its path.

    Args:
        path: Target .html; missing parent folders are made.
        sections: Pieces in reading order.
        title: Plain text of the browser's tab.
        style: As of `document`.
        script: As of `document`.
        clips_beside: As of `document`.

    Raises:
        OSError: The disk is full or the folder is not writable; an older report is intact.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        text = document(title, sections, style=style, script=script, clips_beside=clips_beside)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)  # a reader who reloads never sees half a page
    finally:
        temporary.unlink(missing_ok=True)
    return path
