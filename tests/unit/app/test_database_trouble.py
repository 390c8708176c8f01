"""A database that takes no write: the browser tries again, no acknowledged vote is lost, and no thread dies of it."""

import asyncio
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event, func, select

from app.arena_config import ArenaConfig
from app.arena_state import Arena, open_arena
from app.database import engine as engine_module
from app.database.audit_log import first_broken_entry
from app.database.tables import AuditEntry, Rater, Vote
from app.voting.votes import Ballot, store_vote
from app.web.server import create_api
from tests.unit.app.conftest import make_study


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return where the database is."""
    return tmp_path / "arena" / "arena.sqlite"


@pytest.fixture
def arena(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Arena]:
    """Return an arena on SQLite that waits 0.2 s for locks."""
    monkeypatch.setattr(engine_module, "BUSY_MS", 200)
    with open_arena(ArenaConfig(data=tmp_path / "arena"), create=True) as arena:
        arena.writer.run(lambda session: make_study(session, tmp_path / "arena", "demo", prompts=2))
        yield arena


def ballot(pair: dict[str, Any]) -> dict[str, Any]:
    """Return a vote on a pair."""
    return {
        "vote_id": uuid.uuid4().hex,
        "assignment": pair["assignment"],
        "token": pair["token"],
        "answers": {question["name"]: "left" for question in pair["questions"]},
        "watched_ms": {"left": 5000, "right": 5000},
    }


def ask(client: TestClient) -> dict[str, Any]:
    """Ask for a pair."""
    reply = client.post("/api/v1/assignments", json={"study": "demo"})
    assert reply.status_code in (200, 201), reply.text
    return dict(reply.json())


def refused_then_stored_once(arena: Arena, client: TestClient, sent: dict[str, Any], mend: Any) -> None:
    """Vote while the database is in trouble, then again when it is not."""
    for _ in range(2):
        reply = client.post("/api/v1/votes", json=sent)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "busy"), reply.text
        assert int(reply.headers["retry-after"]) > 0
    mend()
    assert [client.post("/api/v1/votes", json=sent).status_code for _ in range(2)] == [201, 200]
    with arena.reading() as session:
        assert session.scalars(select(Vote.id)).all() == [sent["vote_id"]]
        assert first_broken_entry(session) is None


def test_a_locked_database_is_waited_for_and_then_busy(arena: Arena, client: TestClient, file: Path) -> None:
    sent = ballot(ask(client))
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        refused_then_stored_once(arena, client, sent, lambda: other.execute("ROLLBACK"))


def before_each_transaction(arena: Arena, pragma: str) -> Callable[[str], None]:
    """Run a pragma before every transaction; return what sets another one."""
    state = {"pragma": pragma}

    def run(connection: Any, *_: object) -> None:
        connection.execute(f"PRAGMA {state['pragma']}")

    event.listen(arena.engine.pool, "checkout", run)
    return lambda other: state.update(pragma=other)


def test_a_read_only_database_is_busy(arena: Arena, client: TestClient) -> None:
    sent = ballot(ask(client))
    set_pragma = before_each_transaction(arena, "query_only = ON")
    assert client.get("/api/v1/session").status_code == 200
    refused_then_stored_once(arena, client, sent, lambda: set_pragma("query_only = OFF"))


def test_a_full_disk_is_busy(arena: Arena, client: TestClient) -> None:
    sent = {**ballot(ask(client)), "comment": "x" * 2000}
    set_pragma = before_each_transaction(arena, "max_page_count = 1")  # SQLite takes the number that there are
    for _ in range(50):  # what is free within the pages that there are is used up first
        if client.post("/api/v1/consent", json={"version": "x" * 32}).status_code == 503:
            break
    refused_then_stored_once(arena, client, sent, lambda: set_pragma("max_page_count = 1000000"))


def test_a_database_that_cannot_be_read_is_busy_too(arena: Arena, client: TestClient, file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("ALTER TABLE rater RENAME TO gone")
        reply = client.get("/api/v1/session")
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "busy")
        assert "gone" not in reply.text
        other.execute("ALTER TABLE gone RENAME TO rater")
    assert client.get("/api/v1/session").status_code == 200


def test_a_commit_without_an_answer_is_answered_by_the_retry(arena: Arena, client: TestClient) -> None:
    sent = ballot(ask(client))
    with TestClient(create_api(arena), cookies=dict(client.cookies)) as before:
        assert before.post("/api/v1/votes", json=sent).status_code == 201  # and the server dies before it is read
    with arena.reading() as session:
        assert session.scalar(select(func.count()).select_from(Vote)) == 1
    assert client.post("/api/v1/votes", json=sent).status_code == 200
    with arena.reading() as session:
        assert session.scalar(select(func.count()).select_from(Vote)) == 1
        assert session.scalar(select(func.count()).where(AuditEntry.action == "vote.stored")) == 1


def test_the_writer_outlives_browsers_that_went_away_and_defects(arena: Arena) -> None:
    async def go_away() -> None:
        tasks = [
            asyncio.ensure_future(asyncio.wrap_future(arena.writer.submit(lambda session: session.scalar(select(1)))))
            for _ in range(50)
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(go_away())

    def defect(_: object) -> None:
        raise SystemExit("a change must not end the server")

    with pytest.raises(SystemExit):
        arena.writer.run(defect)
    assert arena.writer.run(lambda session: session.scalar(select(1))) == 1


def test_a_refused_change_undoes_itself_alone(arena: Arena, client: TestClient) -> None:
    pair = ask(client)
    with arena.reading() as session:
        rater = session.scalar(select(Rater.id))
    wrong = Ballot(vote_id="b" * 32, assignment_id="nothing", revision=0, answers={})
    refused = arena.writer.submit(lambda session: store_vote(session, wrong, session.get_one(Rater, rater)))
    assert client.post("/api/v1/votes", json=ballot(pair)).status_code == 201
    assert type(refused.exception()).__name__ == "BallotRefusedError"
