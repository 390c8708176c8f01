"""Admin page: reward models against people."""

import gradio as gr

from app.arena_state import Arena
from app.lineage.disagreements import disagreements
from app.lineage.reward_alarm import reward_agreement, reward_readings
from app.pages.gradio_parts import QUIET, SLOW, question_field, shown, study_choices, study_field, view
from app.pages.rewards_view import rewards_html
from app.studies.study import find_study, policy_of


def rewards_page(pages: gr.Blocks, arena: Arena) -> None:
    """Add the page; arguments as of `studies_page`."""
    with gr.Row():
        study, question = study_field(), question_field()
    drawn = view()

    def draw(slug: str | None, question: str) -> str:
        with arena.reading() as session:
            study = find_study(session, slug or "")
            asked = policy_of(study).questions
            return rewards_html(
                [line for each in asked for line in reward_agreement(session, study, question=each)],
                reward_readings(session, study, question=question),
                disagreements(session, study, question=question),
            )

    ready = pages.load(lambda: study_choices(arena), None, study, **QUIET)
    ready.then(shown(draw), [study, question], drawn, **SLOW)
    for field in (study, question):
        field.input(shown(draw), [study, question], drawn, **SLOW)
