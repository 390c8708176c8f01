"""The votes that count: what leaderboards, exports and stopping rules all read, and how many others there are, and why.

Of every assignment the highest revision counts, and nothing where that is withdrawn. Left out are practice, gold pairs
(they check attention), repeats (they check the rater against an answer that counts already), test raters, and votes
and raters that are excluded. A lifted exclusion excludes no longer.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, func, or_, select
from sqlalchemy.orm import Session, aliased

from app.database.tables import Assignment, Exclusion, Pair, Prompt, Rater, Study, System, Video, Vote


@dataclass(frozen=True)
class CleanVote:
    """One vote that counts."""

    vote: str
    """Id."""
    pair: str
    """Id."""
    prompt: str
    """Id; votes on one prompt are not independent."""
    tags: tuple[str, ...]
    """Categories of the prompt."""
    systems: tuple[str, str]
    """Names of the systems of A and B, unique within the study."""
    system_ids: tuple[str, str]
    """Their ids."""
    videos: tuple[str, str]
    """Ids of A and B."""
    rater: str
    """Id."""
    answers: Mapping[str, str]
    """Question -> A, tie or B; may lack questions where both clips are bad."""
    both_bad: bool
    """Whether the rater called both clips unacceptable."""
    a_is_left: bool
    """How it was shown."""
    probability: float
    """That this pair was drawn for this rater, in (0, 1]."""
    num_choices: int
    """How many pairs could have been drawn for them."""
    stored_at: datetime
    """UTC."""
    moments: tuple[Mapping[str, Any], ...]
    """Bad moments: {clip: A or B, frame, tag}."""


@dataclass(frozen=True)
class SortedVotes:
    """All votes of a study."""

    clean: tuple[CleanVote, ...]
    """In the order in which they were stored."""
    left_out: Mapping[str, int]
    """Reason -> number of votes; the first that holds of: withdrawn, practice, gold, repeat, test rater, excluded."""


CurrentRow = Row[Vote, Assignment, Pair, bool, list[Any], System, System]


def clean_votes(session: Session, study: Study, *, at: datetime | None = None) -> tuple[CleanVote, ...]:
    """Return the votes of a study that count, in the order in which they were stored.

    Args:
        session: Only read from.
        study: Whose votes.
        at: As things stood then (votes, withdrawals and exclusions); None for now.
    """
    return sort_votes(session, study, at=at).clean


def sort_votes(session: Session, study: Study, *, at: datetime | None = None) -> SortedVotes:
    """Return the votes that count, and how many do not, by reason; arguments as of `clean_votes`."""
    bad_votes, bad_raters = active_exclusions(session, at)
    left_out: Counter[str] = Counter()
    clean = []
    for row in current_rows(session, study, at):
        reason = _reason(row, bad_votes, bad_raters)
        if reason is None:
            clean.append(_clean(row))
        else:
            left_out[reason] += 1
    return SortedVotes(tuple(clean), dict(sorted(left_out.items())))


def current_rows(session: Session, study: Study, at: datetime | None = None) -> list[CurrentRow]:
    """Return the highest revision of every assignment with all that is asked of it."""
    last = (
        select(Vote.assignment_id, func.max(Vote.revision).label("revision"))
        .where(*([] if at is None else [Vote.stored_at <= at]))
        .group_by(Vote.assignment_id)
        .subquery()
    )
    first, second = aliased(Video), aliased(Video)
    first_system, second_system = aliased(System), aliased(System)
    rows = session.execute(
        select(Vote, Assignment, Pair, Rater.is_test, Prompt.tags, first_system, second_system)
        .join(last, and_(last.c.assignment_id == Vote.assignment_id, last.c.revision == Vote.revision))
        .join(Assignment, Assignment.id == Vote.assignment_id)
        .join(Pair, Pair.id == Assignment.pair_id)
        .join(Rater, Rater.id == Assignment.rater_id)
        .join(Prompt, Prompt.id == Pair.prompt_id)
        .join(first, first.id == Pair.a_id)
        .join(second, second.id == Pair.b_id)
        .outerjoin(first_system, first_system.id == first.system_id)
        .outerjoin(second_system, second_system.id == second.system_id)
        .where(Assignment.study_id == study.id)
        .order_by(Vote.stored_at, Vote.id)
    )
    return list(rows)


def active_exclusions(session: Session, at: datetime | None = None) -> tuple[dict[str, str], dict[str, str]]:
    """Return the reasons of active exclusions by vote and by rater; the earliest of several."""
    unlifted = Exclusion.lifted_at.is_(None)
    active = [unlifted] if at is None else [Exclusion.created_at <= at, or_(unlifted, Exclusion.lifted_at > at)]
    votes: dict[str, str] = {}
    raters: dict[str, str] = {}
    for exclusion in session.scalars(select(Exclusion).where(*active).order_by(Exclusion.created_at, Exclusion.id)):
        if exclusion.vote_id is not None:
            votes.setdefault(exclusion.vote_id, exclusion.reason)
        elif exclusion.rater_id is not None:
            raters.setdefault(exclusion.rater_id, exclusion.reason)
    return votes, raters


def _reason(row: CurrentRow, bad_votes: Mapping[str, str], bad_raters: Mapping[str, str]) -> str | None:
    """Return why a vote does not count; None where it does."""
    vote, assignment, pair, is_test, *_ = row
    if vote.withdrawn:
        return "withdrawn"
    if pair.kind != "real":
        return str(pair.kind)
    if assignment.repeats is not None:
        return "repeat"
    if is_test:
        return "test rater"
    if vote.id in bad_votes:
        return f"vote excluded: {bad_votes[vote.id]}"
    if assignment.rater_id in bad_raters:
        return f"rater excluded: {bad_raters[assignment.rater_id]}"
    return None


def _clean(row: CurrentRow) -> CleanVote:
    vote, assignment, pair, _, tags, first, second = row
    return CleanVote(
        vote=vote.id,
        pair=pair.id,
        prompt=pair.prompt_id,
        tags=tuple(tags),
        systems=(first.name, second.name),
        system_ids=(first.id, second.id),
        videos=(pair.a_id, pair.b_id),
        rater=assignment.rater_id,
        answers=vote.answers,
        both_bad=vote.both_bad,
        a_is_left=assignment.a_is_left,
        probability=assignment.probability,
        num_choices=assignment.num_choices,
        stored_at=vote.stored_at,
        moments=tuple(vote.moments),
    )
