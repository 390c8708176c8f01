"""Admin page: studies, importing clips, planning."""

import gradio as gr
from sqlalchemy import select

from app.arena_state import Arena
from app.database.tables import Study
from app.pages.gradio_parts import QUIET, SLOW, acted, actor_of, shown, study_choices, study_field, view
from app.pages.studies_view import import_off_html, plan_html, studies_html
from app.studies.import_requests import (
    NUM_GOLD,
    ImportRequest,
    allowed_folder,
    import_and_check,
    importable_folders,
)
from app.studies.overview import study_lines
from app.studies.study import StudyStatus, find_study, set_status

_STATES = {"Open: raters get its pairs": "open", "Paused: nobody gets a pair": "paused", "Closed: it is over": "closed"}


def studies_page(pages: gr.Blocks, arena: Arena) -> None:
    """Add the page.

    Args:
        pages: The admin's pages.
        arena: Open for as long as the server runs.
    """
    listed = view()
    with gr.Row(equal_height=True):
        study = study_field()
        status = gr.Radio(label="State", choices=list(_STATES.items()), value="open", scale=3)
        turn = gr.Button("Set the state", scale=0, min_width=150, size="md")
    told = view()

    def draw() -> str:
        with arena.reading() as session:
            return studies_html(study_lines(session))

    def turn_to(slug: str | None, status: StudyStatus, request: gr.Request) -> str:
        actor = actor_of(request)
        arena.writer.run(lambda session: set_status(session, find_study(session, slug or ""), status, actor=actor))
        return f"'{slug}' is {status} now."

    def status_of(slug: str | None) -> str:
        with arena.reading() as session:
            return session.scalar(select(Study.status).where(Study.slug == (slug or ""))) or "open"

    def newest() -> tuple[gr.Dropdown, str]:
        with arena.reading() as session:  # `study_choices` chooses the same one
            status = session.scalar(select(Study.status).order_by(Study.created_at.desc(), Study.slug).limit(1))
        return study_choices(arena), status or "open"

    turn.click(acted(turn_to), [study, status], told, **QUIET).then(shown(draw), None, listed, **QUIET)
    study.input(status_of, study, status, **QUIET)
    imported = _import(pages, arena)
    if imported is not None:
        imported.then(shown(draw), None, listed, **QUIET).then(newest, None, [study, status], **QUIET)
    _plan()
    pages.load(shown(draw), None, listed, **QUIET)
    pages.load(newest, None, [study, status], **QUIET)


def _import(pages: gr.Blocks, arena: Arena) -> gr.events.Dependency | None:
    """Add the import; return its event, or None where imports in the browser are off."""
    root = arena.config.import_folder
    with gr.Accordion("Import the clips of a system", open=False, elem_id="import"):
        if root is None:
            gr.HTML(import_off_html())
            return None
        with gr.Row():
            slug = gr.Textbox(label="Study", info="Short name; a new one makes a new study.", max_length=64)
            system = gr.Textbox(label="System", info="Raters never see it before they vote.", max_length=200)
            parent = gr.Textbox(label="Trained from", info="A system of this study; may stay empty.", max_length=200)
        with gr.Row(equal_height=True):
            folder = gr.Dropdown(
                label="Folder",
                info="Below the import folder, with manifest.json.",
                choices=[],
                allow_custom_value=True,
                scale=2,
            )
            gold = gr.Number(
                label="Gold pairs", info="Pairs with a known answer.", value=NUM_GOLD, minimum=0, precision=0
            )
            skip = gr.Checkbox(label="Leave out clips that cannot be used")
        start = gr.Button("Import", variant="primary")
        told = view()

    def take_in(
        slug: str, system: str, parent: str, folder: str | None, gold: float, skip: bool, request: gr.Request
    ) -> str:
        wanted = ImportRequest(
            study=slug.strip(),
            system=system.strip(),
            folder=allowed_folder(root, folder or ""),
            parent=parent.strip() or None,
            skip_bad=skip,
            num_gold=int(gold),
            actor=actor_of(request),
        )
        report = import_and_check(arena, wanted)
        left_out = "".join(f" Left out: {problem}." for problem in report.problems)
        return f"{report.new_clips} new clips, {report.known_clips} known ones, {report.new_pairs} new pairs.{left_out}"

    pages.load(lambda: gr.Dropdown(choices=importable_folders(root)), None, folder, **QUIET)
    return start.click(acted(take_in), [slug, system, parent, folder, gold, skip], told, **SLOW)


def _plan() -> None:
    with gr.Accordion("Plan a study: how many votes?", open=False):
        with gr.Row():
            win_rate = gr.Slider(0.51, 0.95, value=0.6, step=0.01, label="Win rate of the better system, ties aside")
            tie_rate = gr.Slider(0.0, 0.9, value=0.2, step=0.01, label="Share of ties")
            power = gr.Slider(0.5, 0.99, value=0.8, step=0.01, label="Chance to find the difference")
        with gr.Row():
            systems = gr.Slider(2, 30, value=2, step=1, label="Systems")
            errors = gr.Slider(0.01, 0.2, value=0.05, step=0.01, label="Chance of a false call, all pairs together")
        start = gr.Button("How many votes?")
        told = view()

    def plan(win_rate: float, tie_rate: float, power: float, systems: float, errors: float) -> str:
        return plan_html(win_rate=win_rate, tie_rate=tie_rate, power=power, num_systems=int(systems), error_rate=errors)

    start.click(shown(plan), [win_rate, tie_rate, power, systems, errors], told, **SLOW)
