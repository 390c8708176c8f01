"""The duel as one `gr.HTML`: markup, style and scripts are read from this folder, with no build step and no library.

The component speaks the arena's HTTP protocol by itself (`/api/v1/*`, `/media/*`, same origin): neither votes nor clips
pass through Gradio's queue. To Gradio it only says what happened: the events `voted`, `finished` and `consent_needed`.
"""

import importlib.metadata
from pathlib import Path

import gradio as gr

FOLDER = Path(__file__).resolve().parent
SCRIPTS = (
    "basics.js",
    "outbox.js",
    "timeline.js",
    "lockstep.js",
    "view.js",
    "questions.js",
    "dialogs.js",
    "keyboard.js",
    "draft.js",
    "panel.js",
    "flow.js",
    "duel.js",
)
"""In the order in which they build on each other; together they are the body of one function (`js_on_load`)."""


def duel_player(study: str = "", elem_id: str = "duel") -> gr.HTML:
    """Return the duel for one study; call it inside `gr.Blocks`.

    Args:
        study: Slug of the study; empty means the page's `?study=` parameter, or else the first open study of the rater.
            A Python handler may change it later (`gr.HTML(study="other")`): the duel then starts there.
        elem_id: Id of the component's element in the page.

    Returns:
        The component, with the events `voted` (data: assignment), `finished` (no pair left) and `consent_needed`:
        for example `duel_player().finished(show_thanks)`.
    """
    return gr.HTML(
        html_template=_text("duel.html"),
        css_template=_text("duel.css"),
        js_on_load="\n".join(_text(name) for name in SCRIPTS),
        apply_default_css=False,
        elem_id=elem_id,
        study=study,
        app_version=importlib.metadata.version("rlhf-video"),
    )


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
