"""What the duel's files must hold to survive Gradio's templates, without starting a browser."""

import re

import gradio as gr

from app.duel.component import FOLDER, SCRIPTS, duel_player

MARKUP = ("duel.html", "duel.css")
FORBIDDEN = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|https?://"


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def test_markup_and_style_are_safe_inside_the_template_strings_of_gradio() -> None:
    # Gradio runs them through Handlebars and then as a JavaScript template string.
    found = {name: re.findall(r"`|\\|\$\{|\{\{", _text(name)) for name in MARKUP}
    assert found == {name: [] for name in MARKUP}


def test_style_has_no_rule_that_cannot_be_nested() -> None:
    assert re.findall(r"@(?!media\b)[a-z-]+|:root|\bhtml\b|\bbody\b", _text("duel.css")) == []


def test_every_script_is_loaded_and_none_reaches_for_another_host_or_writes_markup() -> None:
    assert set(SCRIPTS) == {path.name for path in FOLDER.glob("*.js")}
    for name in (*SCRIPTS, *MARKUP):
        assert (
            re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|https?://", _text(name)) == []
        )


def test_component_holds_the_study_and_the_events_and_nothing_of_any_system() -> None:
    with gr.Blocks():
        duel = duel_player("my-study")
        for event in ("voted", "finished", "consent_needed"):
            getattr(duel, event)(lambda: None)
    config = duel.get_config()
    assert config["props"]["study"] == "my-study" and config["props"]["app_version"]
    assert config["value"] is None


def test_every_action_of_the_markup_and_every_key_has_a_handler() -> None:
    scripts = "".join(_text(name) for name in SCRIPTS)
    actions = set(re.findall(r'data-act="([a-z-]+)"', _text("duel.html")))
    keys = re.search(r"const KEYS = \{(.*?)\};", scripts, re.DOTALL)
    assert keys is not None
    actions |= set(re.findall(r': "([a-z0-9-]+)"', keys[1]))
    handled = {name.strip('"') for name in re.findall(r'(?:^|[\s,{])("[a-z0-9-]+"|[a-z]+): \(\) =>', scripts)}
    assert actions - handled == {"close"}  # dialogs.js
