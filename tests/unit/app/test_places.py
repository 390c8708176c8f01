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


@on_both_databases
def test_a_pair_comes_again_only_when_the_grace_of_its_lease_is_over(arena: Arena, client: TestClient) -> None:
    late = ask(client)
    expire(arena, late, utc_now() - timedelta(seconds=1))
    for _ in range(3):
        vote(client)
    assert not is_anything_left(client)
    assert client.post("/api/v1/votes", json=ballot(late)).status_code == 201
    assert len(set(counted_pairs(arena))) == len(counted_pairs(arena)) == 4


def test_after_the_grace_a_pair_comes_again_and_its_old_lease_takes_no_vote(arena: Arena, client: TestClient) -> None:
    for _ in range(3):
        vote(client)
    late = ask(client)
    expire(arena, late, utc_now() - timedelta(hours=2))
    again = ask(client)
    assert assignment_of(arena, again).pair_id == assignment_of(arena, late).pair_id
    assert client.post("/api/v1/votes", json=ballot(late)).status_code == 410
    assert client.post("/api/v1/votes", json=ballot(again)).status_code == 201


def test_a_gold_pair_waits_for_its_late_vote_and_practice_does_not(arena: Arena, client: TestClient) -> None:
    for kind, policy in (("gold", {"gold_rate": 0.49}), ("practice", {"practice": 1})):
        chosen = select(Pair.id).where(Pair.kind == "real").order_by(Pair.id).limit(1).scalar_subquery()
        change = update(Pair).where(Pair.id == chosen).values(kind=kind).execution_options(synchronize_session=False)
        arena.writer.run(lambda session, change=change: session.execute(change) and None)
        set_policy(arena, **policy)
    kinds = []
    for _ in range(3):
        pair = ask(client)
        kinds.append(pair["kind"])
        expire(arena, pair, utc_now() - timedelta(seconds=1))
    assert kinds == ["practice"] * 3
    assert client.post("/api/v1/votes", json=ballot(pair)).status_code == 201
    policies = []
    while is_anything_left(client):
        pair = ask(client, 200)
        policies.append(assignment_of(arena, pair).policy)
        expire(arena, pair, utc_now() - timedelta(seconds=1))
    assert policies.count("sampled") == 2
    assert policies.count("gold") <= 1


def test_a_pair_that_an_undo_gave_back_takes_no_vote_on_its_old_lease(arena: Arena, client: TestClient) -> None:
    first = vote(client)
    second = ask(client)
    undo = ballot(first, revision=1, withdrawn=True, answers={})
    assert client.post("/api/v1/votes", json=undo).status_code == 201
    reply = client.post("/api/v1/votes", json=ballot(second))
    assert (reply.status_code, reply.json()["error"]["code"]) == (410, "expired")


@on_both_databases
def test_a_second_answer_to_a_pair_is_a_conflict_unless_it_is_a_repeat(arena: Arena, client: TestClient) -> None:
    first = ask(client)
    expire(arena, first, utc_now() - timedelta(seconds=1))
    second = ask(client)
    pair = assignment_of(arena, first).pair_id
    twice = update(Assignment).where(Assignment.id == second["assignment"]).values(pair_id=pair, attempt=1)
    arena.writer.run(lambda session: session.execute(twice) and None)
    sent = ballot(first)
    assert client.post("/api/v1/votes", json=sent).status_code == 201
    refused = client.post("/api/v1/votes", json=ballot(second))
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
    assert refused.json()["stored"]["vote_id"] == sent["vote_id"]
    assert counted_pairs(arena) == [pair]
    third = ask(client)  # not the refused pair for ever
    repeat = update(Assignment).where(Assignment.id == third["assignment"])
    repeat = repeat.values(pair_id=pair, attempt=2, repeats=first["assignment"], policy="repeat")
    arena.writer.run(lambda session: session.execute(repeat) and None)
    assert client.post("/api/v1/votes", json=ballot(third)).status_code == 201
    assert counted_pairs(arena) == [pair]
