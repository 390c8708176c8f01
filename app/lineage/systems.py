"""A model that was trained on votes comes back to be judged, registered under its parent with the export it learned."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.arena_state import Arena
from app.database.audit_log import append_entry
from app.database.tables import Export, Prompt, Study, System
from app.lineage.export import MANIFEST
from app.studies.importing import import_folder
from app.studies.study import find_study
from evaluation.clips.clip_listing import read_manifest
from rlhf_video.errors import DataError
from rlhf_video.preferences.store import PreferenceStore, prompt_key
from rlhf_video.settings import read_tree

TRAINED_PROMPTS = "trained_prompts"
"""Key of `System.origin`: ids of the study's prompts that a system, or one that it comes from, was trained on."""


@dataclass(frozen=True)
class TrainingRun:
    """What a run directory says of itself."""

    adapter_sha256: str
    pairs_sha256: str
    """Of the file that it was trained on."""
    backbone: str
    start_sha256: str | None
    """Of the adapter that it started from; None for the base."""


@dataclass(frozen=True)
class RegisteredSystem:
    """A trained model among the competitors."""

    name: str
    parent: str
    export: str
    """Id of the export that it was trained on."""
    new_clips: int
    new_pairs: int
    trained_prompts: int
    """Prompts of its clips that it, or what it comes from, was trained on: the lineage leaves their votes out."""


def read_run(run: Path) -> TrainingRun:
    """Read a finished run of train_dpo.py.

    Raises:
        DataError: It is not finished, or was not trained on preference pairs.
    """
    card = run / "card.json"
    if not card.is_file():
        raise DataError(f"'{run}' has no card.json: it is no run directory, or the run has not finished.")
    from rlhf_video.lora.files import adapter_sha256  # loads peft and diffusers: 10 s that no other command needs

    pairs = json.loads(card.read_text()).get("pairs", {}).get("file_sha256")
    tree: Mapping[str, Any] = read_tree(run / "config.yaml")
    if pairs is None or "backbone" not in tree:
        raise DataError(f"The run '{run}' was not trained on preference pairs: register runs of train_dpo.py.")
    start = (tree.get("reference") or {}).get("start_adapter")
    return TrainingRun(
        adapter_sha256=adapter_sha256(run / "adapter"),
        pairs_sha256=pairs,
        backbone=str(tree["backbone"]),
        start_sha256=None if start is None else adapter_sha256(Path(start)),
    )


def register_trained(
    arena: Arena, slug: str, name: str, *, run: Path, clips: Path, parent: str | None = None, skip_bad: bool = False
) -> RegisteredSystem:
    """Let a trained adapter compete with its parent and with what that came from; doing it again changes nothing.

    Args:
        arena: Open for writing.
        slug: The study whose votes it was trained on.
        name: The new system's.
        run: Run directory of the training.
        clips: Folder that generate.py made with the run's adapter.
        parent: Name of the system that the training started from; None finds it by the adapter's hash, or by the model.
        skip_bad: As `import_folder`.

    Raises:
        DataError: The run was not trained on an export of this study, the clips are not of its adapter, there is no
            such parent or several, or as `import_folder`.
    """
    trained = read_run(run)
    made_with = read_manifest(clips / MANIFEST).get("adapter_sha256") if (clips / MANIFEST).is_file() else None
    if made_with != trained.adapter_sha256:
        raise DataError(
            f"The clips in '{clips}' were not made with the adapter of '{run}': generate them with "
            f"adapter={run / 'adapter'}."
        )
    with arena.reading() as session:
        study = find_study(session, slug)
        systems = session.scalars(select(System).where(System.study_id == study.id)).all()
        export, pairs = find_export(session, study, trained.pairs_sha256, arena.config.data)
        ancestor = _parent(systems, trained, parent)
        line = ancestry(systems, ancestor)
        inherited = {key for row in line for key in row.origin.get(TRAINED_PROMPTS, ())}
        prompts = sorted(inherited | _prompts_of(session, study, pairs))
        own = {" ".join(record["prompt"].split()) for record in read_manifest(clips / MANIFEST)["clips"]}
        known = session.scalars(select(Prompt.text).where(Prompt.id.in_(prompts), Prompt.text.in_(own))).all()
    report = import_folder(
        arena, slug, name, clips, parent=ancestor.name, skip_bad=skip_bad, opponents={line[0].name, line[-1].name}
    )

    def change(session: Session) -> None:
        row = session.scalars(select(System).where(System.study_id == study.id, System.name == name)).one()
        if row.export_id == export.id:
            return
        row.export_id = export.id
        row.origin = {**row.origin, TRAINED_PROMPTS: prompts}
        details = {"study": slug, "system": name, "parent": ancestor.name, "export": export.id}
        append_entry(session, actor="admin", action="system.registered", subject=row.id, details=details)

    arena.writer.run(change)
    return RegisteredSystem(name, ancestor.name, export.id, report.new_clips, report.new_pairs, len(known))


def find_export(session: Session, study: Study, pairs_sha256: str, data: Path) -> tuple[Export, Path]:
    """Return the export that holds a file of pairs, and that file, by its hash.

    Raises:
        DataError: None of this study does.
    """
    exports = session.scalars(select(Export).where(Export.study_id == study.id).order_by(Export.created_at)).all()
    for export in exports:
        manifest = data / export.path / MANIFEST
        if manifest.is_file():
            for name, part in json.loads(manifest.read_text())["parts"].items():
                if part["sha256"] == pairs_sha256:
                    return export, data / export.path / f"{name}.jsonl"
    raise DataError(
        f"None of the {len(exports)} exports of the study '{study.slug}' holds the pairs of this run (sha256 "
        f"{pairs_sha256[:12]}): train on train.jsonl of an export, as it is."
    )


def ancestry(systems: Sequence[System], system: System) -> list[System]:
    """Return a system, its parent, and so on up to the first one."""
    by_id = {row.id: row for row in systems}
    line = [system]
    while (parent := by_id.get(line[-1].parent_id or "")) is not None and parent not in line:
        line.append(parent)
    return line


def _parent(systems: Sequence[System], trained: TrainingRun, name: str | None) -> System:
    """Return the system that a training started from."""
    names = ", ".join(sorted(row.name for row in systems)) or "none yet"
    if name is not None:
        found = [row for row in systems if row.name == name]
        if not found:
            raise DataError(f"There is no system '{name}' in this study. There are: {names}.")
        return found[0]
    if trained.start_sha256 is not None:
        found, what = (
            [r for r in systems if r.origin.get("adapter_sha256") == trained.start_sha256],
            "its start adapter",
        )
    else:
        found = [
            row
            for row in systems
            if row.origin.get("model") == trained.backbone and row.origin.get("adapter_sha256") is None
        ]
        what = f"the base '{trained.backbone}'"
    if len(found) != 1:
        raise DataError(
            f"{len(found)} systems of this study are {what}, which the training started from: name the parent. "
            f"There are: {names}."
        )
    return found[0]


def _prompts_of(session: Session, study: Study, pairs: Path) -> set[str]:
    """Return the ids of the study's prompts that a file of pairs is about."""
    keys = {prompt_key(pair.prompt) for pair in PreferenceStore(pairs).read()}
    rows = session.execute(select(Prompt.id, Prompt.text).where(Prompt.study_id == study.id))
    return {key for key, text in rows if prompt_key(text) in keys}
