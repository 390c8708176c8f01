"""Clips of a report: embedded while they are small, else played from the file beside the page."""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from evaluation.base import ClipEntry
from evaluation.report.pairs import ClipRow
from evaluation.scores import SystemScores
from rlhf_video.data import video_size
from rlhf_video.errors import DataError
from rlhf_video.report import Html, escape, video_element

MAX_CLIP_BYTES = 1 << 20
"""A larger clip stays a file beside the page (1 MiB: about five seconds of 480x832)."""
MAX_PAGE_BYTES = 32 << 20
"""Clips are embedded in the order of the page until this much is used (32 MiB); the rest stay files."""


class ClipShelf:
    """Hands out clips as page elements and keeps count of what is embedded."""

    def __init__(self, folder: Path, scores: Sequence[SystemScores]) -> None:
        """Set up.

        Args:
            folder: Where the page will lie; addresses of clips that are not embedded are relative to it.
            scores: Systems in the order of the rows' indices.
        """
        self.scores = scores
        self.num_embedded = self.embedded_bytes = self.num_beside = self.num_missing = 0
        self._folder = folder
        self._aspects = [_aspect(system.entries) for system in scores]

    def figures(self, row: ClipRow) -> Html:
        """Return the clips of a row, one figure per system."""
        figures = []
        for place, (system, entry) in enumerate(zip(self.scores, row.indices, strict=True)):
            kind = "base" if place == 0 and len(self.scores) > 1 else "adapter"
            label = f"{system.system}: {row.prompt}, {row.label}"
            clip = self._absent("no such clip", place)
            if entry is not None:
                clip = self._clip(system.entries[entry].file, label=label, place=place)
            figures.append(
                f'<figure>{clip}<figcaption class="who {kind}">{escape(system.system)}</figcaption></figure>'
            )
        return Html(f'<div class="two">{"".join(figures)}</div>')

    def note(self) -> str:
        """Say what the page carries and what must stay beside it."""
        parts = [f"{self.num_embedded} clips ({self.embedded_bytes / 1e6:.1f} MB) are embedded in this page"]
        if self.num_beside:
            parts.append(
                f"{self.num_beside} are read from the files beside it, because a clip is embedded up to "
                f"{MAX_CLIP_BYTES >> 20} MiB and a page up to {MAX_PAGE_BYTES >> 20} MiB: move them along with it"
            )
        if self.num_missing:
            parts.append(f"{self.num_missing} are gone from the disk")
        return "; ".join(parts) + "."

    def _clip(self, file: Path, *, label: str, place: int) -> Html:
        if not file.is_file():
            self.num_missing += 1
            return self._absent("file is gone", place)
        size = file.stat().st_size
        source: bytes | str
        if size <= MAX_CLIP_BYTES and self.embedded_bytes + size <= MAX_PAGE_BYTES:
            source = file.read_bytes()
            self.num_embedded += 1
            self.embedded_bytes += size
        else:
            source = quote(os.path.relpath(file.resolve(), self._folder.resolve()))
            self.num_beside += 1
        return video_element(source, label=label, aspect=self._aspects[place], plays_in_view=True)

    def _absent(self, why: str, place: int) -> Html:
        return Html(f'<div class="absent" style="aspect-ratio:{self._aspects[place]:.4f}">{escape(why)}</div>')


def _aspect(entries: Sequence[ClipEntry]) -> float:
    """Return width over height of the first clip that can be read; 1 where none can."""
    for entry in entries[:8]:
        try:
            size = video_size(entry.file)
        except DataError:
            continue
        return size.width / size.height
    return 1.0
