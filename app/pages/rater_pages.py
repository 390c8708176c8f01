"""What raters see, in Gradio: the duel after their consent, their progress, leaderboards that a study shows them."""

from collections.abc import Mapping
from pathlib import Path

import gradio as gr
from sqlalchemy import select

from app.arena_state import Arena
from app.boards.study_board import study_board
from app.database.tables import Study
from app.duel.component import duel_player
from app.pages.board_view import board_html
from app.pages.gradio_parts import QUIET, board_fields, question_field, study_field, tag_choices
from app.studies.study import find_study, policy_of
from app.voting.assignments import progress_of
from app.voting.raters import find_rater
from app.web.cookies import RATER_COOKIE
from rlhf_video.errors import RlhfVideoError
from rlhf_video.report.page import escape

FOLDER = Path(__file__).parent


def build_rater_pages(arena: Arena) -> gr.Blocks:
    """Return the pages; nothing in their configuration names a system."""
    with gr.Blocks(title="Video arena", analytics_enabled=False) as pages:
        gr.Navbar(main_page_name="Judge")
        gr.HTML(
            html_template=_text("consent.html"),
            css_template=_text("consent.css"),
            js_on_load=_text("consent.js"),
            apply_default_css=False,
            elem_id="consent",
        )
        duel_player()
    with pages.route("My progress", "/progress"):
        gr.Navbar(main_page_name="Judge")
        mine = gr.HTML(css_template=_text("board.css"))
        gr.HTML(html_template=_text("forget.html"), css_template=_text("board.css"), js_on_load=_text("forget.js"))

        def draw(request: gr.Request) -> str:
            return draw_progress(arena, request.cookies.get(RATER_COOKIE))

        pages.load(draw, None, mine, **QUIET)
    with pages.route("Leaderboard", "/leaderboard"):
        gr.Navbar(main_page_name="Judge")
        _leaderboard(pages, arena)
    return pages


def _leaderboard(pages: gr.Blocks, arena: Arena) -> None:
    with gr.Row():
        study = study_field()
        question = question_field()
        tag, model, weighting = board_fields()
    shown = gr.HTML("<p>Counting the votes ...</p>", css_template=_text("board.css"))

    def draw(slug: str | None, question: str, tag: str, model: str, weighting: str) -> str:
        choices = {"question": question, "tag": tag or None, "model": model or None, "weighting": weighting}
        return draw_board(arena, slug, choices)

    def studies() -> gr.Dropdown:
        with arena.reading() as session:
            shown = [each for each in session.scalars(select(Study)) if policy_of(each).public_board]
        names = [(each.name, each.slug) for each in shown]
        return gr.Dropdown(choices=names, value=names[0][1] if names else None)

    def categories(slug: str | None) -> gr.Dropdown:
        return tag_choices(arena, slug)

    fields = [study, question, tag, model, weighting]
    loaded = pages.load(studies, None, study, **QUIET).then(categories, study, tag, **QUIET)
    for chosen in (loaded, study.input(categories, study, tag, **QUIET)):
        chosen.then(draw, fields, shown, **QUIET)  # only now: a board has no category of another study
    for each in (question, tag, model, weighting):
        each.input(draw, fields, shown, **QUIET)


def draw_board(arena: Arena, slug: str | None, choices: Mapping[str, object]) -> str:
    """Return a study's leaderboard as HTML, or why there is none; choices as of `study_settings`."""
    if not slug:
        return "<p>No study shows its leaderboard.</p>"
    try:
        with arena.reading() as session:
            study = find_study(session, slug)
            if not policy_of(study).public_board:
                return "<p>This study does not show its leaderboard.</p>"
            return board_html(study_board(session, study, choices))
    except RlhfVideoError as error:
        return f"<p>{escape(str(error))}</p>"


def draw_progress(arena: Arena, cookie: str | None) -> str:
    """Return a rater's progress as HTML.

    Nothing of pairs whose answer is known is counted: a number that grows with a vote says that the pair was one, and
    whether the answer was right, while it can still be taken back.
    """
    with arena.reading() as session:
        rater = find_rater(session, cookie)
        if rater is None:
            return "<p>You have not judged anything yet.</p>"
        lines = []
        for study in session.scalars(select(Study).order_by(Study.created_at)):
            progress = progress_of(session, study, rater)
            done = f"{progress.voted} of {progress.wanted} pairs judged"
            lines.append(f"<li><b>{escape(study.name)}</b>: {done}</li>")
        name = escape(rater.pseudonym)
    who = f"<p>You are <b>{name}</b> here; nobody knows more about you.</p>"
    return f'<div class="board">{who}<ul>{"".join(lines)}</ul></div>'


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
