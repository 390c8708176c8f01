"""What pages share in Gradio: choosing a study and how its board is made, saying what went wrong, and who is acting."""

import functools
from collections.abc import Callable
from typing import Any

import gradio as gr
from sqlalchemy import select

from app.arena_state import Arena
from app.boards.study_board import board_tags
from app.database.tables import Study
from app.pages.html_parts import done, problem
from app.studies.study import QUESTIONS
from rlhf_video.errors import RlhfVideoError

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""Of events that take a moment: not in the public list of functions, nothing spins."""
SLOW: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
"""Of events that take longer."""


_MODELS = {
    "As the study says": "",
    "Davidson's model": "davidson",
    "Rao and Kupper's": "rao_kupper",
    "Half a win each": "bradley_terry",
    "Left out": "bradley_terry_without_ties",
}
_WEIGHTS = {
    "All the same": "none",
    "By reliability": "reliability",
    "As if drawn evenly": "sampling",
}


def view() -> gr.HTML:
    """Return a place for what a view function makes; Gradio's own style of tables stays away."""
    return gr.HTML(apply_default_css=False)


def study_field(label: str = "Study") -> gr.Dropdown:
    """Return a field that chooses a study; `study_choices` fills it when the page opens."""
    return gr.Dropdown(label=label, choices=[], interactive=True, min_width=220)


def question_field() -> gr.Dropdown:
    """Return a field that chooses a question."""
    choices = [(question.title, question.name) for question in QUESTIONS.values()]
    return gr.Dropdown(label="Question", choices=choices, value="overall", min_width=180)


def board_fields() -> tuple[gr.Dropdown, gr.Dropdown, gr.Dropdown]:
    """Return the fields category, ties and weights of a leaderboard; `tag_choices` fills the first."""
    return (
        gr.Dropdown(label="Category", choices=[("All prompts", "")], value=""),
        gr.Dropdown(label="Ties", choices=list(_MODELS.items()), value=""),
        gr.Dropdown(label="Weights", choices=list(_WEIGHTS.items()), value="none"),
    )


def study_choices(arena: Arena) -> gr.Dropdown:
    """Return the studies, newest first; the newest is chosen."""
    with arena.reading() as session:
        found = session.execute(select(Study.name, Study.slug).order_by(Study.created_at.desc(), Study.slug)).all()
    choices = [(f"{name} ({slug})" if name != slug else slug, slug) for name, slug in found]
    return gr.Dropdown(choices=choices, value=choices[0][1] if choices else None)


def tag_choices(arena: Arena, slug: str | None) -> gr.Dropdown:
    """Return the categories of a study's prompts."""
    with arena.reading() as session:
        tags = board_tags(session, slug)
    return gr.Dropdown(choices=[("All prompts", ""), *((tag, tag) for tag in tags)], value="")


def shown(draw: Callable[..., str]) -> Callable[..., str]:
    """Return a function that draws, or says what the user can mend."""

    @functools.wraps(draw)
    def draw_or_tell(*fields: Any, **named: Any) -> str:
        try:
            return draw(*fields, **named)
        except RlhfVideoError as error:
            return problem(error)

    return draw_or_tell


def acted(act: Callable[..., str]) -> Callable[..., str]:
    """Return a function that does something and shows the sentence that says so, or what the user can mend."""

    @functools.wraps(act)
    def act_or_tell(*fields: Any, **named: Any) -> str:
        try:
            return done(act(*fields, **named))
        except RlhfVideoError as error:
            return problem(error)

    return act_or_tell


def actor_of(request: gr.Request) -> str:
    """Return the name of the admin who asks; the gate has let them through."""
    assert request.username, "the gate lets nobody through without a name"
    return str(request.username)
