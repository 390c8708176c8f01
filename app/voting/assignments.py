"""Who sees which pair next. An assignment is a lease: a reload resumes it, others get it when it runs out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import CompoundSelect, bindparam, exists, func, or_, select, union_all, update
from sqlalchemy.orm import Session, aliased, joinedload

from app.database.tables import Assignment, Exclusion, Pair, Rater, Refusal, Study, Vote, utc_now
from app.studies.study import StudyPolicy, policy_of
from app.voting.outcome_tally import OutcomeTally
from app.voting.pair_table import PairTable, PairTables, Systems, read_pairs
from app.voting.sampling import pair_probabilities
from rlhf_video.errors import DataError

# Written once: building these statements takes longer than running them.
_NEVER_COUNTED: CompoundSelect[Any] = union_all(  # raters who take nobody's place: tests, and those who are excluded
    select(Rater.id).where(Rater.is_test),
    select(Exclusion.rater_id).where(Exclusion.rater_id.is_not(None), Exclusion.lifted_at.is_(None)),
)
_TAKEN = (
    select(Assignment.pair_id, func.count())
    .where(Assignment.study_id == bindparam("study"), Assignment.policy == "sampled")
    .where(Assignment.state.in_(("open", "voted")))
    .where(Assignment.rater_id.not_in(_NEVER_COUNTED))
    .group_by(Assignment.pair_id)
)
_later = aliased(Vote)
# By itself, so that the count above stays within its index; of all studies, or SQLite would begin at a study's votes.
_TAKEN_BY_EXCLUDED_VOTES = (
    select(Assignment.pair_id, func.count(Assignment.id.distinct()))
    .select_from(Exclusion)
    .join(Vote, Vote.id == Exclusion.vote_id)
    .join(Assignment, Assignment.id == Vote.assignment_id)
    .where(Exclusion.lifted_at.is_(None))
    .where(~exists().where(_later.assignment_id == Vote.assignment_id, _later.revision > Vote.revision))
    .where(Assignment.policy == "sampled", Assignment.state == "voted")
    .where(Assignment.rater_id.not_in(_NEVER_COUNTED))
    .group_by(Assignment.pair_id)
)
_MINE = (
    select(Assignment.pair_id, Pair.prompt_id)
    .join(Pair, Pair.id == Assignment.pair_id)
    .where(Assignment.study_id == bindparam("study"), Assignment.rater_id == bindparam("rater"))
    .where(or_(Assignment.state != "expired", Assignment.expires_at >= bindparam("grace_began")), Pair.kind == "real")
)


@dataclass(frozen=True)
class Draw:
    """A pair that was drawn."""

    pair_id: str
    policy: str
    """How: sampled, gold, repeat or practice."""
    probability: float
    """That this pair was drawn at all, given that one was asked for."""
    repeats: Assignment | None = None
    num_choices: int = 1
    """How many pairs could have been drawn."""


@dataclass(frozen=True)
class Progress:
    """How far a rater has come in a study."""

    voted: int
    wanted: int


def next_assignment(
    session: Session,
    study: Study,
    rater: Rater,
    rng: np.random.Generator,
    tally: OutcomeTally,
    pairs: PairTables,
    *,
    now: datetime | None = None,
) -> tuple[Assignment, bool] | None:
    """Lease a pair to a rater, or return the one that is open.

    Args:
        session: Of the writer: two raters must not be counted for one place.
        study: Must be open.
        rater: Who asks.
        rng: Draws the pair and the sides.
        tally: How votes stand between systems, for the sampler.
        pairs: Which pairs there are, for the sampler.
        now: The time; None for the clock.

    Returns:
        The assignment and whether it is new; None where nothing is left for this rater.

    Raises:
        DataError: The study is paused or closed.
    """
    now = now or utc_now()
    if study.status != "open":
        raise DataError(f"The study '{study.slug}' is {study.status}: nothing is asked at the moment.")
    policy = policy_of(study)
    session.execute(
        update(Assignment)
        .where(Assignment.study_id == study.id, Assignment.state == "open", Assignment.expires_at < now)
        .values(state="expired")
    )
    open_one = session.scalar(
        select(Assignment)
        .where(Assignment.study_id == study.id, Assignment.rater_id == rater.id, Assignment.state == "open")
        .options(joinedload(Assignment.pair))
    )
    if open_one is not None:
        return open_one, False
    grace_began = now - timedelta(seconds=policy.grace_s)
    table, outcomes = pairs.table(session, study, now), tally.outcomes(session, study, now)
    draw = _draw(session, study, rater, policy, rng, table, outcomes, grace_began)
    if draw is None:
        return None
    is_left = not draw.repeats.a_is_left if draw.repeats else bool(rng.random() < 0.5)
    attempts = session.scalar(
        select(func.count()).where(Assignment.pair_id == draw.pair_id, Assignment.rater_id == rater.id)
    )
    assignment = Assignment(
        study_id=study.id,
        pair_id=draw.pair_id,
        rater_id=rater.id,
        attempt=attempts,
        repeats=draw.repeats.id if draw.repeats else None,
        a_is_left=is_left,
        probability=draw.probability,
        num_choices=draw.num_choices,
        policy=draw.policy,
        issued_at=now,
        expires_at=now + timedelta(seconds=policy.lease_s),
        state="open",
    )
    session.add(assignment)
    session.flush()
    return assignment, True


def progress_of(session: Session, study: Study, rater: Rater) -> Progress:
    """Count a rater's answers of a study and all that it could still ask them."""
    voted = session.scalar(
        select(func.count())
        .select_from(Assignment)
        .where(Assignment.study_id == study.id, Assignment.rater_id == rater.id, Assignment.state == "voted")
        .where(Assignment.policy != "practice")
    )
    total = session.scalar(select(func.count()).where(Pair.study_id == study.id, Pair.kind == "real"))
    return Progress(voted=voted or 0, wanted=total or 0)


def practice_left(session: Session, study: Study, rater: Rater) -> int:
    """Return how many practice pairs a rater has still to answer before votes."""
    wanted = policy_of(study).practice
    if not wanted:
        return 0
    done = session.scalar(
        select(func.count(func.distinct(Assignment.pair_id)))
        .join(Pair, Pair.id == Assignment.pair_id)
        .where(Pair.study_id == study.id, Pair.kind == "practice", Assignment.rater_id == rater.id)
        .where(Assignment.state == "voted")
    )
    there = session.scalar(select(func.count()).where(Pair.study_id == study.id, Pair.kind == "practice"))
    return max(0, min(wanted, there or 0) - (done or 0))


def give_up(session: Session, assignment: Assignment, *, kind: str, reason: str, note: str | None) -> None:
    """End an assignment without a vote: skipped, or reported; the pair goes to somebody else.

    One whose lease ran out too: why a clip does not play is worth knowing late.
    """
    if assignment.state not in ("open", "expired"):
        raise DataError(f"This assignment is {assignment.state} already.")
    assignment.state = "skipped" if kind == "skip" else "reported"
    session.add(Refusal(assignment_id=assignment.id, kind=kind, reason=reason[:64], note=note))


def _draw(
    session: Session,
    study: Study,
    rater: Rater,
    policy: StudyPolicy,
    rng: np.random.Generator,
    table: PairTable,
    outcomes: Mapping[Systems, tuple[int, int, int]],
    grace_began: datetime,
) -> Draw | None:
    given = select(Assignment.pair_id).where(Assignment.rater_id == rater.id)
    answered = given.where(Assignment.state != "expired")  # practice comes again at once: it never counts
    if practice_left(session, study, rater):
        pairs = session.scalars(
            select(Pair.id).where(Pair.study_id == study.id, Pair.kind == "practice", Pair.id.not_in(answered))
        ).all()
        if pairs:
            return Draw(pairs[int(rng.integers(len(pairs)))], "practice", 1.0 / len(pairs))
    sampled = _sample(session, study, rater, policy, rng, table, outcomes, grace_began)
    if sampled is None:
        return None  # gold and repeats only ever stand among real pairs
    theirs = given.where(or_(Assignment.state != "expired", Assignment.expires_at >= grace_began))
    gold = session.scalars(
        select(Pair.id).where(Pair.study_id == study.id, Pair.kind == "gold", Pair.id.not_in(theirs))
    ).all()
    earlier = _repeatable(session, study, rater) if policy.repeat_rate else []
    gold_rate = policy.gold_rate if gold else 0.0
    repeat_rate = policy.repeat_rate if earlier else 0.0
    fate = rng.random()
    if fate < gold_rate:
        return Draw(gold[int(rng.integers(len(gold)))], "gold", gold_rate / len(gold))
    if fate < gold_rate + repeat_rate:
        chosen = session.get_one(Assignment, earlier[int(rng.integers(len(earlier)))])
        return Draw(chosen.pair_id, "repeat", repeat_rate / len(earlier), chosen)
    return replace(sampled, probability=sampled.probability * (1.0 - gold_rate - repeat_rate))


def _sample(
    session: Session,
    study: Study,
    rater: Rater,
    policy: StudyPolicy,
    rng: np.random.Generator,
    table: PairTable,
    outcomes: Mapping[Systems, tuple[int, int, int]],
    grace_began: datetime,
) -> Draw | None:
    """Draw one real pair that is free."""
    num_votes, free, seen_prompts = _free(session, study, rater, policy, table, grace_began)
    # One rater sees a prompt once, while there are others: a second look is not independent of the first.
    is_new = np.array([prompt_id not in seen_prompts for prompt_id in table.prompts], dtype=bool)
    fresh = free & is_new[table.prompt_of]
    eligible = fresh if fresh.any() else free
    if not eligible.any():
        return None
    probabilities = pair_probabilities(table, num_votes, eligible, outcomes, floor=policy.uniform_share)
    chosen = int(rng.choice(len(table.ids), p=probabilities))
    return Draw(table.ids[chosen], "sampled", float(probabilities[chosen]), num_choices=int(eligible.sum()))


def _free(
    session: Session, study: Study, rater: Rater, policy: StudyPolicy, table: PairTable, grace_began: datetime
) -> tuple[NDArray[np.float64], NDArray[np.bool_], set[str]]:
    """Return each pair's votes and whether this rater could be given it, and the prompts that they have seen.

    A pair is free while it wants votes and the rater has not had it; one whose lease ran out after `grace_began` is
    not: its vote may still come.
    """
    num_votes = np.zeros(len(table.ids))
    for pair_id, count in session.execute(_TAKEN, {"study": study.id}):
        if pair_id in table.place:
            num_votes[table.place[pair_id]] = count
    for pair_id, count in session.execute(_TAKEN_BY_EXCLUDED_VOTES):
        if pair_id in table.place:
            num_votes[table.place[pair_id]] -= count
    mine = session.execute(_MINE, {"study": study.id, "rater": rater.id, "grace_began": grace_began}).all()
    seen_pairs, seen_prompts = {row[0] for row in mine}, {row[1] for row in mine}
    free = num_votes < policy.overlap
    free[[table.place[pair_id] for pair_id in seen_pairs if pair_id in table.place]] = False
    return num_votes, free, seen_prompts


def has_finished(session: Session, study: Study, rater: Rater) -> bool:
    """Return whether a rater has voted, holds no pair, and would be given none; nothing is drawn."""
    states = set(
        session.scalars(
            select(Assignment.state).where(Assignment.study_id == study.id, Assignment.rater_id == rater.id).distinct()
        )
    )
    if "voted" not in states or "open" in states:
        return False
    policy = policy_of(study)
    grace_began = utc_now() - timedelta(seconds=policy.grace_s)
    return not _free(session, study, rater, policy, read_pairs(session, study), grace_began)[1].any()


def _repeatable(session: Session, study: Study, rater: Rater) -> list[str]:
    """Return answered assignments of a rater that were not repeated yet, without the last five: they are remembered."""
    repeated = select(Assignment.repeats).where(Assignment.rater_id == rater.id, Assignment.repeats.is_not(None))
    voted = session.scalars(
        select(Assignment.id)
        .where(Assignment.study_id == study.id, Assignment.rater_id == rater.id, Assignment.state == "voted")
        .where(Assignment.policy == "sampled", Assignment.id.not_in(repeated))
        .order_by(Assignment.issued_at)
    ).all()
    return list(voted[:-5])
