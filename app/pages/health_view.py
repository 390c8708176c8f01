"""The audit log and the arena's health as HTML."""

from collections.abc import Sequence

from app.database.health import ArenaHealth
from app.database.tables import AuditEntry
from app.pages.html_parts import badge, clip, code, lead, page, panel, table, when
from app.voting.reports import PairReport, ReportedClip
from rlhf_video.report.page import Html, escape, join

_MEGABYTE = 1e6


def health_html(health: ArenaHealth, reports: Sequence[PairReport], entries: Sequence[AuditEntry]) -> str:
    """Return how the arena is, what raters reported, and what was done last."""
    return page(
        panel("Health", _facts(health), _leases(health)),
        panel("Reported clips", _reports(reports)),
        panel("Audit log", _chain(health), _entries(entries)),
    )


def problems_html(problems: Sequence[str], *, head: str, num_entries: int) -> str:
    """Return what the verification found.

    Args:
        problems: One sentence each.
        head: Hash of the last audit entry.
        num_entries: Of the audit log.
    """
    if not problems:
        return page(
            Html(
                f'<p class="done" role="status">Database, {num_entries:,} audit entries and every clip are as they '
                f"were written. Head {code(head)}</p>"
            )
        )
    lines = "".join(f"<li>{escape(each)}</li>" for each in problems)
    return page(Html(f'<div class="problem" role="alert">{len(problems)} problems:<ul>{lines}</ul></div>'))


def _facts(health: ArenaHealth) -> Html:
    facts = (
        ("Database", f"{health.database}, {health.database_bytes / _MEGABYTE:,.1f} MB"),
        ("Free disk", f"{health.free_bytes / _MEGABYTE / 1000:,.1f} GB"),
        ("Raters", f"{health.num_raters:,}"),
        ("Votes stored", f"{health.num_votes:,}"),
        ("Excluded", f"{health.excluded_raters:,} raters, {health.excluded_votes:,} votes"),
    )
    return join(
        [
            Html('<dl class="facts">'),
            *(Html(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>") for name, value in facts),
            Html("</dl>"),
        ]
    )


def _leases(health: ArenaHealth) -> Html:
    rows = [(code(each.study), Html(f"{each.num_running:,}"), Html(f"{each.num_overdue:,}")) for each in health.leases]
    return table(("Study", "Pairs with raters now", "Past their time"), rows, empty="No pair is with a rater now.")


def _reports(reports: Sequence[PairReport]) -> Html:
    head = ("Reported (UTC)", "Study", "Prompt", "Left", "Right", "Reason", "Reports of this pair")
    rows = [
        (
            when(each.stored_at),
            Html(f"{code(each.study)}{'' if each.kind == 'real' else ' ' + badge(each.kind, 'calm')}"),
            Html(f'<span class="prompt">{escape(each.prompt)}</span>'),
            _side(each.left),
            _side(each.right),
            Html(f"<b>{escape(each.reason)}</b><br>{escape(each.note or '')}"),
            Html(f"{each.times}"),
        )
        for each in reports
    ]
    return table(head, rows, empty="No rater has reported a clip.")


def _side(side: ReportedClip) -> Html:
    name = side.system or "made for a check"
    return Html(f"{clip(side.video, name)}<br>{escape(name)}")


def _chain(health: ArenaHealth) -> Html:
    if health.broken_entry is not None:
        return Html(
            f'<p class="problem" role="alert">Entry {health.broken_entry} does not follow from the one before: the log '
            "was changed. Compare with a backup and with the heads that snapshots hold.</p>"
        )
    head = code(health.head.sha256, shown=16)
    return Html(f"<p>{badge('chain holds', 'good')} {health.head.number:,} entries, head {head}</p>")


def _entries(entries: Sequence[AuditEntry]) -> Html:
    head = ("No.", "When (UTC)", "Who", "What", "Of", "Details", "Hash")
    rows = [
        (
            Html(f"{entry.number}"),
            escape(entry.at[:19].replace("T", " ")),
            escape(entry.actor),
            escape(entry.action),
            code(entry.subject, shown=8),
            _details(entry.details),
            code(entry.sha256, shown=12),
        )
        for entry in entries
    ]
    return Html(lead("Newest first.") + table(head, rows, empty="Nothing was done yet."))


def _details(details: str) -> Html:
    return Html("" if details == "{}" else f'<span class="details">{escape(details)}</span>')
