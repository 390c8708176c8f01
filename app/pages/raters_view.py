"""Raters, how far they agree, and whose votes are left out, as HTML."""

from collections.abc import Mapping, Sequence

from app.database.tables import Exclusion
from app.pages.html_parts import badge, code, lead, number, page, panel, percent, share, table, when
from app.quality.agreement import QuestionAgreement
from app.quality.reliability import RaterReport
from app.quality.risk_policy import RiskPolicy
from app.studies.study import QUESTIONS
from rlhf_video.report.page import Html, escape
from rlhf_video.stats import Interval

_LEAVE_OUT = RiskPolicy().shadow_at
_LOOK = 20.0
"""Points of risk from which a rater is worth a look; one soft signal has so many."""


def raters_html(
    reports: Sequence[RaterReport],
    agreements: Sequence[QuestionAgreement],
    exclusions: Sequence[Exclusion],
    names: Mapping[str, str],
) -> str:
    """Return who rates how.

    Args:
        reports: Of a study's raters, most risk first.
        agreements: Of its questions.
        exclusions: Newest first, lifted ones too.
        names: Id of a rater -> pseudonym.
    """
    return page(
        panel("Do raters agree?", _agreements(agreements)),
        panel("Raters", _raters(reports)),
        panel("Left out", _exclusions(exclusions, names)),
    )


def _agreements(agreements: Sequence[QuestionAgreement]) -> Html:
    head = (
        *("Question", "Krippendorff's alpha", "Ties as an answer of their own", "Same answer", "Human ceiling"),
        *("Ceiling without ties", "Pairs with two raters", "Votes"),
    )
    rows = [
        (
            escape(QUESTIONS[each.question].title if each.question in QUESTIONS else each.question),
            _alpha(each.alpha_ordinal),
            _alpha(each.alpha_nominal),
            _share(each.percent),
            share(each.ceiling),
            share(each.ceiling_without_ties),
            number(each.num_pairs),
            number(each.num_votes),
        )
        for each in agreements
    ]
    note = lead(
        "Alpha: 0 is chance, 1 is full agreement; below 0.4 people hardly see the same thing. The ceiling is how often "
        "one rater says what most others say."
    )
    return Html(note + table(head, rows, empty="Nobody has voted yet."))


def _raters(reports: Sequence[RaterReport]) -> Html:
    head = (
        *("Rater", "Votes", "Gold right", "Repeats the same", "As others", "Accuracy", "Left side", "Ties", "Seconds"),
        *("Skips / reports", "Risk", "What was seen"),
    )
    note = lead(
        "Seconds: median from seeing a pair to the vote. Accuracy: chance that a vote says what the rater saw, from "
        f"gold pairs and the others. From {_LEAVE_OUT:.0f} points of risk, votes are left out by themselves; another "
        "taste alone never reaches that."
    )
    return Html(note + table(head, [_rater(each) for each in reports], empty="Nobody has voted yet."))


def _rater(report: RaterReport) -> tuple[Html, ...]:
    tone = "bad" if report.risk >= _LEAVE_OUT else "wait" if report.risk >= _LOOK else "calm"
    seconds = report.median_decision_s
    return (
        Html(f"<b>{escape(report.pseudonym)}</b><br>{_state(report)}"),
        Html(f"{report.num_votes:,}<br>{when(report.last_vote_at)}"),
        _of(report.gold_right, report.gold_total),
        _of(report.repeats_same, report.repeats_total),
        _share(report.agreement),
        _share(report.accuracy),
        _share(report.left_share),
        _share(report.tie_share),
        Html("-" if seconds is None else f"{seconds:.1f}"),
        Html(f"{report.num_skips} / {report.num_reports}"),
        badge(f"{report.risk:.0f}", tone),
        _seen(report),
    )


def _exclusions(exclusions: Sequence[Exclusion], names: Mapping[str, str]) -> Html:
    head = ("Exclusion", "Of", "Reason", "Risk", "By", "Since (UTC)", "State")
    rows = [
        (
            code(each.id, shown=8),
            _target(each, names),
            escape(each.reason),
            Html("-") if each.score is None else Html(f"{each.score:.0f}"),
            escape(each.actor),
            when(each.created_at),
            _lifted(each),
        )
        for each in exclusions
    ]
    return table(head, rows, empty="No votes are left out.")


def _target(exclusion: Exclusion, names: Mapping[str, str]) -> Html:
    if exclusion.rater_id is None:
        return Html(f"vote {code(str(exclusion.vote_id), shown=8)}")
    return escape(names.get(exclusion.rater_id, exclusion.rater_id[:8]))


def _state(report: RaterReport) -> Html:
    return badge("counts", "good") if report.excluded is None else badge(f"left out: {report.excluded}", "bad")


def _lifted(exclusion: Exclusion) -> Html:
    if exclusion.lifted_at is None:
        return badge("left out", "bad")
    return Html(f"{badge('counts again', 'calm')} {escape(exclusion.lifted_by or '')}, {when(exclusion.lifted_at)}")


def _seen(report: RaterReport) -> Html:
    lines = "".join(f"<li>{escape(each.told)} ({each.points:.0f})</li>" for each in report.signals)
    return Html(f'<ul class="details">{lines}</ul>') if lines else Html('<span class="calm">nothing</span>')


def _alpha(interval: Interval | None) -> Html:
    if interval is None:
        return Html('<span class="calm">no pair has two raters</span>')
    return Html(f'{interval.mean:.2f} <span class="calm">[{interval.low:.2f}, {interval.high:.2f}]</span>')


def _share(value: float | None) -> Html:
    return Html("-") if value is None else percent(value)


def _of(part: int, total: int) -> Html:
    return Html(f'{part} <span class="calm">of {total}</span>') if total else Html("-")
