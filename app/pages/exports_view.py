"""Exports of votes as HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.lineage.export import WrittenExport
from app.pages.html_parts import badge, code, lead, page, panel, table, when
from rlhf_video.report.page import Html, escape


@dataclass(frozen=True)
class ExportLine:
    """One export."""

    created_at: datetime
    path: str
    """Below the data folder."""
    manifest_sha256: str
    settings: Mapping[str, Any]
    """ExportConfig."""
    num_pairs: Mapping[str, int]
    """Part -> pairs; empty where the folder is gone."""
    is_intact: bool | None
    """Whether the manifest on the disk is the one that was noted; None where it is gone."""
    children: tuple[str, ...]
    """Systems that were trained on it."""


def exports_html(lines: Sequence[ExportLine]) -> str:
    """Return the exports of a study, newest first."""
    head = (
        "Written (UTC)",
        "Folder",
        "Question",
        "Pairs",
        "Layouts",
        "Manifest, sha256",
        "On the disk",
        "Trained on it",
    )
    rows = [
        (
            when(line.created_at),
            code(line.path),
            escape(str(line.settings.get("votes", {}).get("question", ""))),
            escape(", ".join(f"{count} {part}" for part, count in line.num_pairs.items()) or "-"),
            escape(", ".join(["canonical", *line.settings.get("layouts", ())])),
            code(line.manifest_sha256, shown=16),
            _state(line.is_intact),
            escape(", ".join(line.children) or "-"),
        )
        for line in lines
    ]
    return page(
        panel(
            "Exports",
            lead(
                "The same votes and settings give the same bytes; `sha256sum -c SHA256SUMS` in the folder checks them."
            ),
            table(head, rows, empty="Nothing was exported from this study yet."),
        )
    )


def written_html(export: WrittenExport) -> str:
    """Return what was written and what became no pair."""
    pairs = ", ".join(f"{count} pairs for {part}" for part, count in export.num_pairs.items())
    rows = [(escape(reason), Html(f"{count:,}")) for reason, count in export.left_out.items()]
    return page(
        Html(f'<p class="done" role="status">{escape(pairs)} in {code(export.folder.name)}.</p>'),
        table(("Became no pair because", "How many"), rows, empty="Every comparison became a pair."),
    )


def _state(is_intact: bool | None) -> Html:
    if is_intact is None:
        return badge("folder gone", "wait")
    return badge("intact", "good") if is_intact else badge("changed", "bad")
