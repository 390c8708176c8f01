"""Imports that an admin asks for in the browser: only from below one folder of the server, never by upload."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from app.arena_state import Arena
from app.database.tables import Study
from app.studies.gold import make_gold_pairs
from app.studies.importing import ImportReport, import_folder
from app.studies.study import StudyPolicy, create_study
from rlhf_video.data.files import MANIFEST
from rlhf_video.errors import DataError

NUM_GOLD, NUM_PRACTICE = 12, 3
_DEEPEST = 4
_MOST = 500


@dataclass(frozen=True)
class ImportRequest:
    """What shall be taken in."""

    study: str
    """Short name; made where there is none."""
    system: str
    folder: Path
    parent: str | None = None
    skip_bad: bool = False
    num_gold: int = NUM_GOLD
    """Pairs with a known answer."""
    actor: str = "admin"
    """Who asks, for the audit log."""


def import_and_check(arena: Arena, request: ImportRequest, *, policy: StudyPolicy | None = None) -> ImportReport:
    """Take in the clips of a system; as soon as the study has pairs, gold and practice pairs are made too.

    Args:
        arena: Open for writing.
        request: What.
        policy: Of a new study; None for the usual one.

    Raises:
        DataError: As `import_folder`.
    """
    with arena.reading() as session:
        is_new = session.scalar(select(Study.id).where(Study.slug == request.study)) is None
    if is_new:
        settings = policy or StudyPolicy()
        arena.writer.run(
            lambda session: create_study(session, slug=request.study, name="", policy=settings, actor=request.actor)
        )
    report = import_folder(
        arena,
        request.study,
        request.system,
        request.folder,
        parent=request.parent,
        skip_bad=request.skip_bad,
        actor=request.actor,
    )
    if report.has_pairs:
        make_gold_pairs(arena, request.study, count=request.num_gold, actor=request.actor)
        make_gold_pairs(arena, request.study, count=NUM_PRACTICE, kind="practice", actor=request.actor)
    return report


def importable_folders(root: Path | None) -> list[str]:
    """Return the folders with a manifest below the import folder, as paths below it.

    Args:
        root: `ArenaConfig.import_folder`.
    """
    if root is None or not root.is_dir():
        return []
    found: list[str] = []
    waiting = [(root, 0)]
    while waiting and len(found) < _MOST:
        folder, depth = waiting.pop()
        if (folder / MANIFEST).is_file():
            found.append(folder.relative_to(root).as_posix())
        elif depth < _DEEPEST:
            waiting += [(child, depth + 1) for child in folder.iterdir() if child.is_dir() and not child.is_symlink()]
    return sorted(found)


def allowed_folder(root: Path | None, path: str) -> Path:
    """Return the folder that an admin named.

    Args:
        root: `ArenaConfig.import_folder`.
        path: Below it.

    Raises:
        DataError: Imports in the browser are off, or the path leads out of the folder or nowhere.
    """
    if root is None:
        raise DataError(
            "Imports in the browser are off: set import_folder in the arena's config, or python app/arena.py import."
        )
    folder = (root / path).resolve()
    if not path.strip() or not folder.is_relative_to(root.resolve()):
        raise DataError(f"'{path}' does not lie below the import folder of this arena: choose one of its folders.")
    if not folder.is_dir():
        raise DataError(f"There is no folder '{path}' below the import folder of this arena.")
    return folder
