"""Admin page: the leaderboard with every setting, and its snapshots."""

from collections.abc import Mapping

import gradio as gr
from sqlalchemy import select

from app.arena_state import Arena
from app.boards.snapshot import check_snapshot, take_snapshot
from app.boards.study_board import study_board
from app.database.tables import Snapshot
from app.pages.board_view import board_html
from app.pages.gradio_parts import (
    QUIET,
    SLOW,
    acted,
    actor_of,
    board_fields,
    question_field,
    shown,
    study_choices,
    study_field,
    tag_choices,
    view,
)
from app.pages.snapshots_view import snapshots_html
from app.studies.study import find_study
from rlhf_video.errors import RlhfVideoError

_BOTH_BAD = {"Two bad clips are a tie": "tie", "Two bad clips do not count": "drop"}
_MOST = 20


def boards_page(pages: gr.Blocks, arena: Arena) -> None:
    """Add the page; arguments as of `studies_page`."""
    with gr.Row():
        study, question = study_field(), question_field()
        tag, model, weighting = board_fields()
    with gr.Row():
        both_bad = gr.Dropdown(label="Both unacceptable", choices=list(_BOTH_BAD.items()), value="tie")
        prior = gr.Number(label="Prior of strengths (sd, log-odds)", value=1.0, minimum=0.01, step=0.1)
        per_prompt = gr.Number(label="Votes that complete a prompt; 0: the overlap", value=0, minimum=0, precision=0)
        errors = gr.Number(label="Chance of a false call; 0: the study's", value=0, minimum=0, maximum=0.5, step=0.01)
    with gr.Row():
        take = gr.Button("Take a snapshot", variant="primary")
        check = gr.Button("Compute the snapshots again")
    told, drawn, listed = view(), view(), view()
    fields = [question, tag, model, weighting, both_bad, prior, per_prompt, errors]

    def draw(slug: str | None, *values: object) -> str:
        return draw_board(arena, slug or "", _choices(*values))

    def snapshot(slug: str | None, request: gr.Request, *values: object) -> str:
        taken = take_snapshot(arena, slug or "", _choices(*values), actor=actor_of(request))
        return f"Snapshot {taken[:8]} is taken."

    def show(slug: str | None) -> str:
        return draw_snapshots(arena, slug or "", check=False)

    def check_again(slug: str | None) -> str:
        return draw_snapshots(arena, slug or "", check=True)

    ready = pages.load(lambda: study_choices(arena), None, study, **QUIET)
    ready = ready.then(lambda slug: tag_choices(arena, slug), study, tag, **QUIET)
    ready.then(shown(draw), [study, *fields], drawn, **SLOW).then(shown(show), study, listed, **QUIET)
    for field in fields:
        field.input(  # type: ignore[attr-defined]  # every field is a Dropdown or a Slider
            shown(draw), [study, *fields], drawn, **SLOW
        )
    chosen = study.input(lambda slug: tag_choices(arena, slug), study, tag, **QUIET)
    chosen.then(shown(draw), [study, *fields], drawn, **SLOW).then(shown(show), study, listed, **QUIET)
    take.click(acted(snapshot), [study, *fields], told, **SLOW).then(shown(show), study, listed, **QUIET)
    check.click(shown(check_again), study, listed, **SLOW)


def draw_board(arena: Arena, slug: str, choices: Mapping[str, object]) -> str:
    """Return a study's leaderboard as HTML, public or not; choices as of `study_settings`."""
    with arena.reading() as session:
        return board_html(study_board(session, find_study(session, slug), choices))


def draw_snapshots(arena: Arena, slug: str, *, check: bool) -> str:
    """Return the newest snapshots of a study as HTML; with `check`, each is computed again."""
    checked: dict[str, bool | str] = {}
    with arena.reading() as session:
        study = find_study(session, slug)
        rows = session.scalars(
            select(Snapshot)
            .where(Snapshot.study_id == study.id)
            .order_by(Snapshot.created_at.desc(), Snapshot.id)
            .limit(_MOST)
        ).all()
        for row in rows if check else ():
            try:
                checked[row.id] = check_snapshot(session, row)
            except RlhfVideoError as error:
                checked[row.id] = str(error)
        return snapshots_html(rows, checked)


def _choices(*values: object) -> dict[str, object]:
    names = ("question", "tag", "model", "weighting", "both_bad", "prior_sd", "votes_per_prompt", "error_rate")
    left_open = ("tag", "model", "votes_per_prompt", "error_rate")  # empty or 0: no choice
    plain = dict(zip(names, values, strict=True))
    return {name: value or None if name in left_open else value for name, value in plain.items()}
