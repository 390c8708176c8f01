"""The draw of the next pair: arrays that are remembered say what a plain look at every row says."""

from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.arena_state import Arena
from app.database.tables import Assignment, Pair, Rater, Study, System, Video
from app.voting.assignments import next_assignment
from app.voting.raters import consent
from rlhf_video.stats import outcome_variances, sampling_probabilities
from tests.unit.app.conftest import on_both_databases

SYSTEMS = ("base", "one", "two")


@pytest.fixture
def study_id(arena: Arena, config: Any, make_study: Any) -> str:
    """Return a study of 5 prompts and 3 systems, 15 pairs, two votes wanted for each."""
    return arena.writer.run(
        lambda session: make_study(session, config.data, "three", prompts=5, systems=SYSTEMS, overlap=2).id
    )


def draw(session: Session, arena: Arena, study_id: str, rater: Rater) -> Assignment | None:
    """Lease a pair as the route does."""
    study = session.get_one(Study, study_id)
    leased = next_assignment(session, study, rater, arena.rng, arena.tally, arena.pairs)
    return None if leased is None else leased[0]


def plain_chances(session: Session, study_id: str, rater: Rater) -> dict[str, float]:
    """Return the chance of each pair that may be drawn now, from every row, one after another."""
    systems = {video.id: video.system_id for video in session.scalars(select(Video))}
    active = set(session.scalars(select(System.id).where(System.is_active)))
    pairs = [
        pair
        for pair in session.scalars(select(Pair).where(Pair.study_id == study_id, Pair.kind == "real"))
        if {systems[pair.a_id], systems[pair.b_id]} <= active
    ]
    tests = set(session.scalars(select(Rater.id).where(Rater.is_test)))
    given = session.scalars(select(Assignment).where(Assignment.state != "expired")).all()
    counts = {pair.id: sum(one.pair_id == pair.id and one.rater_id not in tests for one in given) for pair in pairs}
    mine = [session.get_one(Pair, one.pair_id) for one in given if one.rater_id == rater.id]
    free = [pair for pair in pairs if counts[pair.id] < 2 and pair.id not in {each.id for each in mine}]
    fresh = [pair for pair in free if pair.prompt_id not in {each.prompt_id for each in mine}] or free
    rows = sorted({tuple(sorted((systems[pair.a_id], systems[pair.b_id]))) for pair in pairs})
    columns = sorted({pair.prompt_id for pair in pairs})
    cell = {
        pair.id: (
            rows.index(tuple(sorted((systems[pair.a_id], systems[pair.b_id])))),
            columns.index(pair.prompt_id),
        )
        for pair in pairs
    }
    if not fresh:
        return {}
    votes, eligible = np.zeros((len(rows), len(columns))), np.zeros((len(rows), len(columns)), dtype=bool)
    for pair in pairs:
        votes[cell[pair.id]] = counts[pair.id]
    for pair in fresh:
        eligible[cell[pair.id]] = True
    nothing = np.zeros(len(rows))
    chances = sampling_probabilities(votes, outcome_variances(nothing, nothing, nothing), floor=0.2, eligible=eligible)
    return {pair.id: float(chances[cell[pair.id]]) for pair in fresh}


@on_both_databases
def test_every_draw_has_the_chance_of_a_plain_look_at_all_rows(arena: Arena, study_id: str) -> None:
    def rate(session: Session, cookie: str, is_test: bool) -> int:
        rater = consent(session, cookie, version="1", is_test=is_test)
        number = 0
        while True:
            expected = plain_chances(session, study_id, rater)
            assignment = draw(session, arena, study_id, rater)
            if assignment is None:
                assert expected == {}
                return number
            assert sum(expected.values()) == pytest.approx(1.0)
            assert assignment.probability == pytest.approx(expected[assignment.pair_id], rel=1e-12)
            assert assignment.num_choices == len(expected)
            assignment.state = "voted"
            session.flush()
            number += 1

    numbers = [
        arena.writer.run(lambda session, at=at: rate(session, f"cookie-{at}", is_test=at == 1)) for at in range(4)
    ]
    assert numbers == [15, 15, 15, 0]  # the second is a test and takes nobody's place


def test_a_system_that_leaves_and_pairs_that_come_are_seen_at_once(
    arena: Arena, config: Any, make_study: Any, study_id: str
) -> None:
    def ask(session: Session) -> list[str]:
        rater = consent(session, "cookie", version="1")
        found = []
        while (assignment := draw(session, arena, study_id, rater)) is not None:
            assignment.state = "voted"
            session.flush()
            found.append(assignment.pair_id)
        return found

    def leave(session: Session) -> None:
        session.execute(update(System).where(System.study_id == study_id, System.name == "two").values(is_active=False))

    def come(session: Session) -> None:
        other = make_study(session, config.data, "more", prompts=2)
        session.execute(update(Pair).where(Pair.study_id == other.id).values(study_id=study_id))
        session.execute(update(System).where(System.study_id == other.id).values(study_id=study_id, name=System.id))

    arena.writer.run(leave)
    assert len(arena.writer.run(ask)) == 5
    arena.writer.run(come)
    assert len(arena.writer.run(ask)) == 2
    assert arena.writer.run(ask) == []
