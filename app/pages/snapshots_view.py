"""Snapshots of leaderboards as HTML."""

from collections.abc import Mapping, Sequence

from app.database.tables import Snapshot
from app.pages.html_parts import badge, code, lead, page, panel, table, when
from rlhf_video.report.page import Html, escape


def snapshots_html(snapshots: Sequence[Snapshot], checked: Mapping[str, bool | str]) -> str:
    """Return the snapshots of a study.

    Args:
        snapshots: Newest first.
        checked: Id -> whether computing it again gave the same, or why it could not be computed.
    """
    head = ("Taken (UTC)", "Settings", "Leader", "Votes", "Audit log at", "Version", "Computed again")
    rows = [
        (
            when(row.created_at),
            escape(_settings(row)),
            escape(row.result["rows"][0]["system"]),
            Html(f"{row.result['num_votes']:,}"),
            Html(f"{row.last_audit_number} {code(row.last_audit_sha256, shown=12)}"),
            escape(row.code_version),
            _verdict(checked.get(row.id)),
        )
        for row in snapshots
    ]
    return page(
        panel(
            "Snapshots",
            lead("A snapshot notes settings, every number and where the audit log stood; it can be computed again."),
            table(head, rows, empty="No snapshot was taken of this study yet."),
        )
    )


def _settings(row: Snapshot) -> str:
    tag = row.settings.get("tag")
    words = [row.settings["question"], f"tag {tag}" if tag else "all prompts", row.settings["model"]]
    if row.settings["weighting"] != "none":
        words.append(f"weights by {row.settings['weighting']}")
    return ", ".join(words)


def _verdict(checked: bool | str | None) -> Html:
    if checked is None:
        return Html('<span class="calm">not yet</span>')
    if isinstance(checked, str):
        return Html(f"{badge('failed', 'bad')} {escape(checked)}")
    return badge("the same", "good") if checked else badge("differs", "bad")
