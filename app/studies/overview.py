"""Where studies stand: what is in them, how many votes they have and want."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from app.boards.board import make_matches
from app.boards.stopping import votes_left
from app.boards.study_board import study_settings
from app.database.tables import Pair, Prompt, Study, System
from app.studies.study import policy_of
from app.voting.clean_votes import sort_votes


@dataclass(frozen=True)
class StudyLine:
    """One study."""

    slug: str
    name: str
    status: str
    num_systems: int
    num_prompts: int
    num_pairs: int
    """Real ones."""
    num_gold: int
    """With a known answer, practice not among them."""
    num_votes: int
    """That count."""
    num_wanted: int
    """Pairs times overlap."""
    left_out: Mapping[str, int]
    """Reason -> votes that do not count."""
    num_decided: int
    """Pairs of systems that the stopping rule has called, overall question."""
    num_matches: int
    """Pairs of systems."""
    votes_left: int | None
    """At least how many votes decide those pairs that can be foreseen; None where none can."""


def study_lines(session: Session) -> tuple[StudyLine, ...]:
    """Return every study, newest first.

    Args:
        session: Only read from.
    """
    studies = session.scalars(select(Study).order_by(Study.created_at.desc(), Study.slug))
    return tuple(_line(session, study) for study in studies)


def _line(session: Session, study: Study) -> StudyLine:
    policy = policy_of(study)
    votes = sort_votes(session, study)
    pairs = _count(session, select(Pair.id).where(Pair.study_id == study.id, Pair.kind == "real"))
    systems = _count(session, select(System.id).where(System.study_id == study.id, System.is_active))
    settings = study_settings(session, study, {})
    matches = make_matches(votes.clean, settings)
    num_matches, sharing = (count * (count - 1) // 2 for count in (systems, settings.num_systems or systems))
    lefts = [votes_left(match, sharing, error_rate=policy.error_rate) for match in matches if not match.decision.winner]
    known = [left for left in lefts if left is not None]
    return StudyLine(
        slug=study.slug,
        name=study.name,
        status=study.status,
        num_systems=systems,
        num_prompts=_count(session, select(Prompt.id).where(Prompt.study_id == study.id)),
        num_pairs=pairs,
        num_gold=_count(session, select(Pair.id).where(Pair.study_id == study.id, Pair.kind == "gold")),
        num_votes=len(votes.clean),
        num_wanted=pairs * policy.overlap,
        left_out=votes.left_out,
        num_decided=sum(match.decision.winner is not None for match in matches),
        num_matches=num_matches,
        votes_left=sum(known) if known else None,
    )


def _count(session: Session, ids: Select[str]) -> int:
    return session.scalar(select(func.count()).select_from(ids.subquery())) or 0
