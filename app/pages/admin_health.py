"""Admin page: the audit log, the arena's health, and what raters reported."""

import gradio as gr

from app.arena_state import Arena
from app.database.audit_log import read_head
from app.database.health import last_entries, read_health
from app.database.verification import find_problems
from app.pages.gradio_parts import QUIET, SLOW, shown, view
from app.pages.health_view import health_html, problems_html
from app.voting.reports import pair_reports


def health_page(pages: gr.Blocks, arena: Arena) -> None:
    """Add the page; arguments as of `studies_page`."""
    data = arena.config.data
    with gr.Row():
        again = gr.Button("Look again")
        check = gr.Button("Verify database, audit log and every clip", variant="primary")
    told, drawn = view(), view()

    def draw() -> str:
        with arena.reading() as session:
            return health_html(read_health(session, data), pair_reports(session), last_entries(session))

    def verify() -> str:
        with arena.reading() as session:
            problems, head = list(find_problems(session, data)), read_head(session)
        return problems_html(problems, head=head.sha256, num_entries=head.number)

    pages.load(shown(draw), None, drawn, **QUIET)
    again.click(shown(draw), None, drawn, **QUIET)
    check.click(shown(verify), None, told, **SLOW)
