"""Admin page: votes as training data, and the systems that came of it."""

import hashlib
import json

import gradio as gr
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.arena_state import Arena
from app.database.tables import Export, Study, System
from app.lineage.export import MANIFEST, ExportConfig, export_votes
from app.lineage.lineage import lineage_of
from app.lineage.vote_records import PARETO, WEIGHTED
from app.pages.exports_view import ExportLine, exports_html, written_html
from app.pages.gradio_parts import QUIET, SLOW, actor_of, question_field, shown, study_choices, study_field, view
from app.pages.lineage_view import lineage_html
from app.studies.study import QUESTIONS, find_study
from rlhf_video.preferences.layouts import LAYOUTS
from rlhf_video.settings.building import build_config

_DECIDED_BY = {
    **{question.title: question.name for question in QUESTIONS.values()},
    "The dimensions' mean": WEIGHTED,
    "Better in one dimension, worse in none": PARETO,
}


def exports_page(pages: gr.Blocks, arena: Arena) -> None:
    """Add the page; arguments as of `studies_page`."""
    with gr.Row():
        study, question = study_field(), question_field()
    tree, listed = view(), view()

    def draw_tree(slug: str | None, question: str) -> str:
        with arena.reading() as session:
            return lineage_html(
                lineage_of(session, find_study(session, slug or ""), arena.config.data, question=question)
            )

    def draw_exports(slug: str | None) -> str:
        with arena.reading() as session:
            return exports_html(export_lines(arena, session, find_study(session, slug or "")))

    written = _write(arena, study)
    written.then(shown(draw_exports), study, listed, **QUIET)
    ready = pages.load(lambda: study_choices(arena), None, study, **QUIET)
    ready.then(shown(draw_tree), [study, question], tree, **SLOW).then(shown(draw_exports), study, listed, **QUIET)
    for field in (study, question):
        field.input(shown(draw_tree), [study, question], tree, **SLOW)
    study.input(shown(draw_exports), study, listed, **QUIET)


def _write(arena: Arena, study: gr.Dropdown) -> gr.events.Dependency:
    """Add the fields of an export; return the event that writes it."""
    with gr.Accordion("Export votes as training data", open=False):
        with gr.Row():
            decides = gr.Dropdown(label="What decides a pair", choices=list(_DECIDED_BY.items()), value="overall")
            rule = gr.Dropdown(label="Rule", choices=["posterior", "margin"], value="posterior")
            threshold = gr.Number(label="Threshold", value=0.8, minimum=0.0, maximum=1.0, step=0.01)
            least = gr.Number(label="Least votes on a pair", value=1, minimum=1, precision=0)
        with gr.Row():
            ties = gr.Dropdown(label="Ties", choices=["drop", "soft"], value="drop")
            both_bad = gr.Dropdown(label="Two bad clips", choices=["drop", "unpaired"], value="drop")
            validation = gr.Slider(0.0, 0.5, value=0.1, step=0.01, label="Share of prompts for validation")
            soft = gr.Checkbox(label="Soft labels", info="The posterior mean beside each decision.")
        layouts = gr.CheckboxGroup(label="Further layouts", choices=list(LAYOUTS))
        start = gr.Button("Write the export", variant="primary")
        told = view()

    def write(
        slug: str | None,
        decides: str,
        rule: str,
        threshold: float,
        least: float,
        ties: str,
        both_bad: str,
        validation: float,
        soft: bool,
        layouts: list[str],
        request: gr.Request,
    ) -> str:
        votes = {
            "question": decides,
            "rule": rule,
            "threshold": float(threshold),
            "min_votes": int(least),
            "ties": ties,
            "both_bad": both_bad,
            "soft_labels": soft,
        }
        plain = {"votes": votes, "split": {"validation_share": float(validation)}, "layouts": layouts}
        config = build_config(ExportConfig, plain)
        return written_html(export_votes(arena, slug or "", config, actor=actor_of(request)))

    fields = [study, decides, rule, threshold, least, ties, both_bad, validation, soft, layouts]
    return start.click(shown(write), fields, told, **SLOW)


def export_lines(arena: Arena, session: Session, study: Study) -> list[ExportLine]:
    """Return the exports of a study, newest first, with what is left of them on the disk."""
    rows = session.scalars(
        select(Export).where(Export.study_id == study.id).order_by(Export.created_at.desc(), Export.id)
    ).all()
    children: dict[str | None, list[str]] = {}
    for system in session.scalars(select(System).where(System.study_id == study.id).order_by(System.name)):
        children.setdefault(system.export_id, []).append(system.name)
    lines = []
    for row in rows:
        manifest = arena.config.data / row.path / MANIFEST
        content = manifest.read_bytes() if manifest.is_file() else None
        parts = json.loads(content)["parts"] if content else {}
        lines.append(
            ExportLine(
                created_at=row.created_at,
                path=row.path,
                manifest_sha256=row.manifest_sha256,
                settings=row.settings,
                num_pairs={name: part["num_pairs"] for name, part in parts.items()},
                is_intact=None if content is None else hashlib.sha256(content).hexdigest() == row.manifest_sha256,
                children=tuple(children.get(row.id, ())),
            )
        )
    return lines
