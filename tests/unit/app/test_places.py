"""Whose a pair is: places of votes that do not count are free, and one rater has one vote that counts on a pair."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from app.arena_state import Arena
from app.database.tables import Assignment, Pair, Study, utc_now
from app.quality.exclusions import exclude, lift_exclusion
from app.studies.study import find_study
from app.voting.clean_votes import clean_votes
from app.web.server import create_api
from tests.unit.app.conftest import on_both_databases
from tests.unit.app.test_vote_api import ask, ballot


@pytest.fixture
def other(arena: Arena, client: TestClient) -> Iterator[TestClient]:
    """Return the browser of a second rater; one vote is wanted for each pair."""
    set_policy(arena, overlap=1)
    with TestClient(create_api(arena), headers=client.headers) as other:
        assert other.post("/api/v1/consent", json={"version": "1"}).status_code == 200
        yield other


def set_policy(arena: Arena, **fields: Any) -> None:
    """Change what the demo study asks."""

    def change(session: Any) -> None:
        study = session.scalar(select(Study))
        study.policy = {**study.policy, **fields}

    arena.writer.run(change)


def expire(arena: Arena, pair: dict[str, Any], to: datetime) -> None:
    """Say when a lease ends."""
    statement = update(Assignment).where(Assignment.id == pair["assignment"]).values(expires_at=to)
    arena.writer.run(lambda session: session.execute(statement) and None)


def assignment_of(arena: Arena, pair: dict[str, Any]) -> Assignment:
    """Read an assignment."""
    with arena.reading() as session:
        return session.get_one(Assignment, pair["assignment"])


def vote(client: TestClient) -> dict[str, Any]:
    """Judge the next pair; return what was sent."""
    sent = ballot(ask(client))
    assert client.post("/api/v1/votes", json=sent).status_code == 201
    return sent


def is_anything_left(client: TestClient) -> bool:
    """Ask for a pair."""
    return client.post("/api/v1/assignments", json={"study": "demo"}).status_code != 204


def counted_pairs(arena: Arena) -> list[str]:
    """Return the pair of each vote that counts."""
    with arena.reading() as session:
        return [vote.pair for vote in clean_votes(session, find_study(session, "demo"))]


@on_both_databases
def test_places_of_an_excluded_rater_are_free_until_the_exclusion_is_lifted(
    arena: Arena, client: TestClient, other: TestClient
) -> None:
    sent = [vote(client) for _ in range(4)]
    assert not is_anything_left(other)
    rater = assignment_of(arena, sent[0]).rater_id
    made = arena.writer.run(lambda session: exclude(session, actor="admin", reason="gold", rater_id=rater).id)
    vote(other)
    arena.writer.run(lambda session: lift_exclusion(session, made, actor="admin") and None)
    assert not is_anything_left(other)


@on_both_databases
def test_the_place_of_an_excluded_vote_is_free_unless_a_later_answer_stands_there(
    arena: Arena, client: TestClient, other: TestClient
) -> None:
    sent = [vote(client) for _ in range(4)]
    revised, excluded = sent[3], sent[1]
    for revision in (1, 2):
        again = ballot(revised, revision=revision, withdrawn=revision == 1)
        assert client.post("/api/v1/votes", json=again).status_code == 201
    for one in (revised, excluded):
        name = one["vote_id"]
        arena.writer.run(lambda session, name=name: exclude(session, actor="admin", reason="x", vote_id=name) and None)
    given = vote(other)
    assert assignment_of(arena, given).pair_id == assignment_of(arena, excluded).pair_id
    assert not is_anything_left(other)
    assert len(set(counted_pairs(arena))) == len(counted_pairs(arena)) == 4
