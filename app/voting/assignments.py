"""Who sees which pair next. An assignment is a lease: a reload resumes it, others get it when it runs out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, aliased, joinedload

from app.database.tables import Assignment, Pair, Rater, Refusal, Study, System, Video, Vote, utc_now
from app.studies.study import StudyPolicy, policy_of
from app.voting.outcome_tally import OutcomeTally
from app.voting.sampling import Candidate, Systems, pair_probabilities
from rlhf_video.errors import DataError


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
    draw = _draw(session, study, rater, policy, rng, tally.outcomes(session, study, now))
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
    done = session.scalar(
        select(func.count(func.distinct(Assignment.pair_id)))
        .join(Pair, Pair.id == Assignment.pair_id)
        .where(Pair.study_id == study.id, Pair.kind == "practice", Assignment.rater_id == rater.id)
        .where(Assignment.state == "voted")
    )
    there = session.scalar(select(func.count()).where(Pair.study_id == study.id, Pair.kind == "practice"))
    return max(0, min(policy_of(study).practice, there or 0) - (done or 0))


def give_up(session: Session, assignment: Assignment, *, kind: str, reason: str, note: str | None) -> None:
    """End an assignment without a vote: skipped, or reported; the pair goes to somebody else."""
    if assignment.state != "open":
        raise DataError(f"This assignment is {assignment.state} already.")
    assignment.state = "skipped" if kind == "skip" else "reported"
    session.add(Refusal(assignment_id=assignment.id, kind=kind, reason=reason[:64], note=note))


def _draw(
    session: Session,
    study: Study,
    rater: Rater,
    policy: StudyPolicy,
    rng: np.random.Generator,
    outcomes: Mapping[Systems, tuple[int, int, int]],
) -> Draw | None:
    answered = select(Assignment.pair_id).where(Assignment.rater_id == rater.id, Assignment.state != "expired")
    if practice_left(session, study, rater):
        pairs = session.scalars(
            select(Pair.id).where(Pair.study_id == study.id, Pair.kind == "practice", Pair.id.not_in(answered))
        ).all()
        if pairs:
            return Draw(pairs[int(rng.integers(len(pairs)))], "practice", 1.0 / len(pairs))
    sampled = _sample(session, study, rater, policy, rng, outcomes)
    if sampled is None:
        return None  # gold and repeats only ever stand among real pairs
    gold = session.scalars(
        select(Pair.id).where(Pair.study_id == study.id, Pair.kind == "gold", Pair.id.not_in(answered))
    ).all()
    earlier = _repeatable(session, study, rater)
    gold_rate = policy.gold_rate if gold else 0.0
    repeat_rate = policy.repeat_rate if earlier else 0.0
    fate = rng.random()
    if fate < gold_rate:
        return Draw(gold[int(rng.integers(len(gold)))], "gold", gold_rate / len(gold))
    if fate < gold_rate + repeat_rate:
        chosen = earlier[int(rng.integers(len(earlier)))]
        return Draw(chosen.pair_id, "repeat", repeat_rate / len(earlier), chosen)
    return replace(sampled, probability=sampled.probability * (1.0 - gold_rate - repeat_rate))


def _sample(
    session: Session,
    study: Study,
    rater: Rater,
    policy: StudyPolicy,
    rng: np.random.Generator,
    outcomes: Mapping[Systems, tuple[int, int, int]],
) -> Draw | None:
    """Draw one real pair that still wants votes."""
    first, second = aliased(Video), aliased(Video)
    first_system, second_system = aliased(System), aliased(System)
    taken = (
        select(Assignment.pair_id, func.count().label("count"))
        .where(Assignment.study_id == study.id, Assignment.state.in_(("open", "voted")), Assignment.policy == "sampled")
        .group_by(Assignment.pair_id)
        .subquery()
    )
    rows = session.execute(
        select(Pair.id, Pair.prompt_id, first.system_id, second.system_id, func.coalesce(taken.c.count, 0))
        .join(first, first.id == Pair.a_id)
        .join(second, second.id == Pair.b_id)
        .join(first_system, first_system.id == first.system_id)
        .join(second_system, second_system.id == second.system_id)
        .outerjoin(taken, taken.c.pair_id == Pair.id)
        .where(Pair.study_id == study.id, Pair.kind == "real", first_system.is_active, second_system.is_active)
    ).all()
    mine = session.execute(
        select(Assignment.pair_id, Pair.prompt_id)
        .join(Pair, Pair.id == Assignment.pair_id)
        .where(Assignment.study_id == study.id, Assignment.rater_id == rater.id, Assignment.state != "expired")
        .where(Pair.kind == "real")
    ).all()
    seen_pairs, seen_prompts = {row[0] for row in mine}, {row[1] for row in mine}
    free = {row[0] for row in rows if row[4] < policy.overlap and row[0] not in seen_pairs}
    # One rater sees a prompt once, while there are others: a second look is not independent of the first.
    fresh = {row[0] for row in rows if row[0] in free and row[1] not in seen_prompts}
    eligible = fresh or free
    if not eligible:
        return None
    candidates = [
        Candidate(pair_id, prompt_id, frozenset((system_a, system_b)), count, pair_id in eligible)
        for pair_id, prompt_id, system_a, system_b, count in rows
    ]
    probabilities = pair_probabilities(candidates, outcomes, floor=policy.uniform_share)
    chosen = int(rng.choice(len(candidates), p=probabilities))
    return Draw(candidates[chosen].pair_id, "sampled", float(probabilities[chosen]), num_choices=len(eligible))


def _repeatable(session: Session, study: Study, rater: Rater) -> list[Assignment]:
    """Return answered assignments of a rater that were not repeated yet, without the last five: they are remembered."""
    repeated = select(Assignment.repeats).where(Assignment.rater_id == rater.id, Assignment.repeats.is_not(None))
    voted = session.scalars(
        select(Assignment)
        .join(Vote, Vote.assignment_id == Assignment.id)
        .where(Assignment.study_id == study.id, Assignment.rater_id == rater.id, Assignment.state == "voted")
        .where(Assignment.policy == "sampled", Assignment.id.not_in(repeated))
        .order_by(Assignment.issued_at)
        .distinct()
    ).all()
    return list(voted[:-5])
