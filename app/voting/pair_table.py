"""The real pairs of a study as arrays, remembered: the sampler looks at all of them at every assignment."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from app.database.tables import Pair, Study, System, Video

Systems = frozenset[str]
"""Ids of two systems."""
AGE = timedelta(minutes=1)


@dataclass(frozen=True)
class PairTable:
    """The real pairs of a study whose systems are both active, in the order of their ids."""

    ids: tuple[str, ...]
    """Of the pairs, n of them."""
    place: Mapping[str, int]
    """Id -> where it stands in `ids`."""
    systems: tuple[Systems, ...]
    """Every two systems that meet, in the order of their sorted ids."""
    system_of: NDArray[np.intp]
    """Which of `systems` each pair is of, shape (n,)."""
    prompts: tuple[str, ...]
    """Ids, sorted."""
    prompt_of: NDArray[np.intp]
    """Which of `prompts` each pair is of, shape (n,)."""


class PairTables:
    """A table for each study; used by the writer's thread alone."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, datetime, PairTable]] = {}

    def table(self, session: Session, study: Study, now: datetime) -> PairTable:
        """Return a study's table: read again when a pair was added, a system came or went, or after `AGE`."""
        state = (
            session.scalar(select(func.count()).where(Pair.study_id == study.id, Pair.kind == "real")),
            *session.scalars(
                select(System.id).where(System.study_id == study.id, System.is_active).order_by(System.id)
            ),
        )
        known = self._known.get(study.id)
        if known is None or known[0] != state or now - known[1] > AGE:
            known = self._known[study.id] = (state, now, read_pairs(session, study))
        return known[2]


def read_pairs(session: Session, study: Study) -> PairTable:
    """Return a study's table as it stands; `PairTables` remembers it."""
    first, second = aliased(Video), aliased(Video)
    first_system, second_system = aliased(System), aliased(System)
    rows = session.execute(
        select(Pair.id, Pair.prompt_id, first.system_id, second.system_id)
        .join(first, first.id == Pair.a_id)
        .join(second, second.id == Pair.b_id)
        .join(first_system, first_system.id == first.system_id)
        .join(second_system, second_system.id == second.system_id)
        .where(Pair.study_id == study.id, Pair.kind == "real", first_system.is_active, second_system.is_active)
        .order_by(Pair.id)
    ).all()
    meetings = [tuple(sorted((str(row[2]), str(row[3])))) for row in rows]
    systems, prompts = sorted(set(meetings)), sorted({row[1] for row in rows})
    system_place, prompt_place = ({name: at for at, name in enumerate(names)} for names in (systems, prompts))
    return PairTable(
        ids=tuple(row[0] for row in rows),
        place={row[0]: at for at, row in enumerate(rows)},
        systems=tuple(frozenset(names) for names in systems),
        system_of=np.array([system_place[names] for names in meetings], dtype=np.intp),
        prompts=tuple(prompts),
        prompt_of=np.array([prompt_place[row[1]] for row in rows], dtype=np.intp),
    )
