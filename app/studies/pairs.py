"""Which clips of a study stand against each other: same prompt, same number, two systems."""

from collections.abc import Iterable
from itertools import combinations

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.tables import Pair, Study, System, Video
from app.studies.study import set_status


def schedule_pairs(
    session: Session, study: Study, *, among: Iterable[frozenset[str]] | None = None, actor: str = "admin"
) -> int:
    """Store every pair that is not there yet, and open the study when it has any.

    Clips of two systems meet where prompt and number are the same: generate.py gives those the same noise, so what
    differs is the system.

    Args:
        session: Of the writer.
        study: Whose active systems meet.
        among: Ids of the systems that meet, two by two; None for everyone against everyone.
        actor: Who brings them; the first pairs open the study.

    Returns:
        How many pairs are new.
    """
    wanted = None if among is None else set(among)
    videos = session.scalars(
        select(Video).join(System, System.id == Video.system_id).where(System.study_id == study.id, System.is_active)
    ).all()
    known = set(session.execute(select(Pair.a_id, Pair.b_id).where(Pair.study_id == study.id, Pair.kind == "real")))
    together: dict[tuple[str, int], list[Video]] = {}
    for video in videos:
        together.setdefault((video.prompt_id, video.sample), []).append(video)
    new = 0
    for (prompt_id, _), clips in together.items():
        for a, b in combinations(sorted(clips, key=lambda clip: clip.id), 2):
            systems = frozenset((str(a.system_id), str(b.system_id)))
            is_same_picture = a.source_sha256 == b.source_sha256  # an adapter that changed nothing: nothing to ask
            if (a.id, b.id) in known or is_same_picture or (wanted is not None and systems not in wanted):
                continue
            session.add(Pair(study_id=study.id, prompt_id=prompt_id, a_id=a.id, b_id=b.id, kind="real"))
            new += 1
    session.flush()
    if study.status == "paused" and new and not known:  # its first pairs; later, who paused it had a reason
        set_status(session, study, "open", actor=actor)
    return new
