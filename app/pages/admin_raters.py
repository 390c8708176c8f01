"""Admin page: raters, how far they agree, and leaving votes out."""

import gradio as gr
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.arena_state import Arena
from app.database.tables import Exclusion, Rater
from app.pages.gradio_parts import QUIET, SLOW, acted, actor_of, shown, study_choices, study_field, view
from app.pages.raters_view import raters_html
from app.quality.agreement import question_agreement
from app.quality.exclusions import exclude, lift_exclusion
from app.quality.reliability import rater_reports
from app.studies.study import find_study
from app.voting.clean_votes import clean_votes
from rlhf_video.errors import DataError


def raters_page(pages: gr.Blocks, arena: Arena) -> None:
    """Add the page; arguments as of `studies_page`."""
    study = study_field()
    drawn = view()
    with gr.Row(equal_height=True):
        rater = gr.Dropdown(label="Rater", choices=[], interactive=True)
        reason = gr.Textbox(label="Reason", max_length=64, placeholder="why these votes must not count")
        leave_out = gr.Button("Leave the votes out", scale=0, min_width=170, size="md")
    with gr.Row(equal_height=True):
        exclusion = gr.Dropdown(label="Exclusion", choices=[], interactive=True)
        lift = gr.Button("Count the votes again", scale=0, min_width=170, size="md")
    told = view()

    def draw(slug: str | None) -> str:
        return draw_raters(arena, slug or "")

    def do_exclude(name: str | None, reason: str, request: gr.Request) -> str:
        return leave_out_votes(arena, name or "", reason, actor=actor_of(request))

    def do_lift(exclusion_id: str | None, request: gr.Request) -> str:
        actor = actor_of(request)
        arena.writer.run(lambda session: lift_exclusion(session, exclusion_id or "", actor=actor))
        return "These votes count again."

    def choices() -> tuple[gr.Dropdown, gr.Dropdown]:
        return target_choices(arena)

    ready = pages.load(lambda: study_choices(arena), None, study, **QUIET)
    for event in (
        ready,
        leave_out.click(acted(do_exclude), [rater, reason], told, **QUIET),
        lift.click(acted(do_lift), exclusion, told, **QUIET),
    ):
        event.then(choices, None, [rater, exclusion], **QUIET).then(shown(draw), study, drawn, **SLOW)
    study.input(shown(draw), study, drawn, **SLOW)


def draw_raters(arena: Arena, slug: str) -> str:
    """Return the raters of a study as HTML."""
    with arena.reading() as session:
        study = find_study(session, slug)
        exclusions = session.scalars(select(Exclusion).order_by(Exclusion.created_at.desc(), Exclusion.id)).all()
        return raters_html(
            rater_reports(session, study),
            question_agreement(clean_votes(session, study)),
            exclusions,
            _names(session),
        )


def leave_out_votes(arena: Arena, rater_id: str, reason: str, *, actor: str) -> str:
    """Leave a rater's votes out and return the sentence that says so.

    Raises:
        DataError: No reason, no such rater, or they are left out already.
    """
    if not reason.strip():
        raise DataError("Say why: the reason stands in the audit log, and boards list it with the number of votes.")

    def change(session: Session) -> str:
        exclude(session, actor=actor, reason=reason.strip(), rater_id=rater_id)
        return session.get_one(Rater, rater_id).pseudonym

    return f"The votes of {arena.writer.run(change)} count no longer, in any study."


def target_choices(arena: Arena) -> tuple[gr.Dropdown, gr.Dropdown]:
    """Return the raters that can be left out, and the exclusions that can be lifted."""
    with arena.reading() as session:
        names = _names(session)
        active = session.scalars(
            select(Exclusion).where(Exclusion.lifted_at.is_(None)).order_by(Exclusion.created_at.desc(), Exclusion.id)
        ).all()
    out = {each.rater_id for each in active}
    free = sorted((name, rater) for rater, name in names.items() if rater not in out)
    lines = [
        (f"{names.get(each.rater_id or '', 'one vote')}: {each.reason} ({each.id[:8]})", each.id) for each in active
    ]
    return gr.Dropdown(choices=free, value=None), gr.Dropdown(choices=lines, value=None)


def _names(session: Session) -> dict[str, str]:
    return dict(session.execute(select(Rater.id, Rater.pseudonym).where(~Rater.is_test)).all())
