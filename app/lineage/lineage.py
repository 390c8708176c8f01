"""The family tree of a study's systems: who was trained from whom, on which votes, and whether people saw it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.tables import Export, Study, System
from app.lineage.export import MANIFEST
from app.lineage.head_to_head import HeadToHead, head_to_head
from app.lineage.systems import TRAINED_PROMPTS, ancestry
from app.studies.study import policy_of
from app.voting.clean_votes import clean_votes
from rlhf_video.preferences.pair import OVERALL


@dataclass(frozen=True)
class ExportFacts:
    """The votes that a system was trained on."""

    id: str
    path: str
    """Below the data folder."""
    manifest_sha256: str
    created_at: datetime
    num_pairs: Mapping[str, int]
    """Part -> pairs; empty where the folder was deleted."""


@dataclass(frozen=True)
class LineageNode:
    """One system."""

    name: str
    parent: str | None
    depth: int
    """Trainings since the first ancestor."""
    is_active: bool
    num_votes: int
    """Votes that count on pairs with it, all opponents together."""
    trained_on: ExportFacts | None
    against_parent: HeadToHead | None
    """None for a first ancestor, and where nobody compared them; without the prompts that it was trained on."""
    against_first: HeadToHead | None
    """The same against the first ancestor; None where that is the parent."""


def lineage_of(session: Session, study: Study, data: Path, *, question: str = OVERALL) -> tuple[LineageNode, ...]:
    """Return the systems of a study, parents before their children, brothers by age.

    Votes on prompts that a system was trained on are left out of what is said about it.

    Args:
        session: Only read from.
        study: Whose systems.
        data: The arena's data folder.
        question: Which answer decides.
    """
    votes = clean_votes(session, study)
    model = policy_of(study).tie_model
    rows = session.scalars(
        select(System).where(System.study_id == study.id).order_by(System.created_at, System.name)
    ).all()
    exports = {row.id: row for row in session.scalars(select(Export).where(Export.study_id == study.id))}
    nodes = []
    for row in rows:
        line = ancestry(rows, row)
        trained: Any = row.origin.get(TRAINED_PROMPTS, ())
        fights = [
            head_to_head(votes, row.name, other.name, question=question, model=model, without_prompts=set(trained))
            for other in (line[1:2] + line[2:][-1:])
        ]
        nodes.append(
            LineageNode(
                name=row.name,
                parent=line[1].name if len(line) > 1 else None,
                depth=len(line) - 1,
                is_active=row.is_active,
                num_votes=sum(row.name in vote.systems for vote in votes),
                trained_on=_facts(exports[row.export_id], data) if row.export_id in exports else None,
                against_parent=fights[0] if fights else None,
                against_first=fights[1] if len(fights) > 1 else None,
            )
        )
    return _in_families(nodes)


def _facts(export: Export, data: Path) -> ExportFacts:
    manifest = data / export.path / MANIFEST
    parts = json.loads(manifest.read_text())["parts"] if manifest.is_file() else {}
    return ExportFacts(
        id=export.id,
        path=export.path,
        manifest_sha256=export.manifest_sha256,
        created_at=export.created_at,
        num_pairs={name: part["num_pairs"] for name, part in parts.items()},
    )


def _in_families(nodes: list[LineageNode]) -> tuple[LineageNode, ...]:
    """Return the nodes in the order of a tree that is read from above."""
    children: dict[str | None, list[LineageNode]] = {}
    for node in nodes:
        children.setdefault(node.parent, []).append(node)
    ordered: list[LineageNode] = []
    waiting = list(reversed(children.get(None, [])))
    while waiting:
        node = waiting.pop()
        ordered.append(node)
        waiting.extend(reversed(children.get(node.name, [])))
    return tuple(ordered)
