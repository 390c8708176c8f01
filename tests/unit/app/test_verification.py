"""`verify` finds what was changed behind the arena's back: votes, snapshots, clips; and nothing else."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.arena_state import Arena
from app.boards.snapshot import take_snapshot
from app.command_line import parse_request
from app.commands import execute
from app.database.audit_log import append_entry
from app.database.tables import AuditEntry, Snapshot, Video, Vote, utc_now
from app.database.verification import find_problems, votes_without_facts
from app.web.server import create_api
from tests.unit.app.test_vote_api import ANSWERS, ask, ballot


@pytest.fixture
def voted(arena: Arena, client: TestClient) -> Arena:
    """Return an arena with votes of two raters, one taken back, one with two bad clips; and a snapshot."""
    with TestClient(create_api(arena), headers=client.headers) as other:
        other.post("/api/v1/consent", json={"version": "1"})
        for browser in (client, other):
            for bad in (False, True):
                sent = ballot(ask(browser), both_unacceptable=bad)
                assert browser.post("/api/v1/votes", json=sent).status_code == 201
    pair = ask(client)
    assert client.post("/api/v1/votes", json=ballot(pair)).status_code == 201
    taken_back = {"revision": 1, "withdrawn": True, "answers": {}, "watched_ms": {"left": 0, "right": 0}}
    assert client.post("/api/v1/votes", json=ballot(pair, **taken_back)).status_code == 201
    take_snapshot(arena, "demo", {})
    assert problems(arena) == []
    return arena


def problems(arena: Arena) -> list[str]:
    """Return what is wrong, without the clips' originals, which this arena has not."""
    with arena.reading() as session:
        return [line for line in find_problems(session, arena.config.data) if "clip source/" not in line]


def change_answers(session: Session) -> None:
    vote = session.scalars(select(Vote).where(Vote.withdrawn.is_(False))).first()
    vote.answers = {**vote.answers, "overall": "tie"}


def change_one(**values: Any) -> Callable[[Session], None]:
    def change(session: Session) -> None:
        vote = session.scalars(select(Vote).where(Vote.withdrawn.is_(False), Vote.both_bad.is_(False))).first()
        for name, value in values.items():
            setattr(vote, name, value)

    return change


def put_one_in(session: Session) -> None:
    vote = session.scalars(select(Vote).where(Vote.revision == 0)).first()
    session.add(
        Vote(
            id="f" * 32,
            assignment_id=vote.assignment_id,
            revision=7,
            answers=vote.answers,
            body_sha256="0" * 64,
            stored_at=vote.stored_at,
        )
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (change_answers, "is not as the audit log has it: answers"),
        (change_one(both_bad=True), "is not as the audit log has it: both_bad"),
        (change_one(withdrawn=True), "is not as the audit log has it: withdrawn"),
        (put_one_in, f"vote {'f' * 32} is not in the audit log"),
    ],
)
def test_vote_that_was_changed_past_the_log_is_found(
    voted: Arena, change: Callable[[Session], None], told: str
) -> None:
    voted.writer.run(change)
    found = [line for line in problems(voted) if line.startswith("vote ")]
    assert len(found) == 1
    assert told in found[0]


def test_votes_that_vanished_are_found(voted: Arena) -> None:
    voted.writer.run(lambda session: session.execute(delete(Vote)) and None)
    found = problems(voted)
    assert sum("is in the audit log and nowhere else" in line for line in found) == 6
    assert any("snapshot" in line for line in found)


def test_two_entries_of_one_vote_are_found(voted: Arena) -> None:
    def repeat(session: Session) -> None:
        entry = session.scalars(select(AuditEntry).where(AuditEntry.action == "vote.stored")).first()
        details = json.loads(entry.details)
        append_entry(session, actor="x", action=entry.action, subject=entry.subject, details=details)

    voted.writer.run(repeat)
    (found,) = problems(voted)
    assert "two entries" in found


def test_erasing_a_rater_leaves_nothing_to_complain_about(voted: Arena, client: TestClient) -> None:
    assert client.post("/api/v1/erase", json={}).status_code == 200
    assert problems(voted) == []


def test_entries_without_answers_are_counted_and_pass(voted: Arena, capsys: pytest.CaptureFixture[str]) -> None:
    def log_as_before(session: Session) -> None:
        vote = session.scalars(select(Vote).where(Vote.revision == 0)).first()
        fields = {"assignment_id": vote.assignment_id, "revision": 7, "answers": ANSWERS, "stored_at": utc_now()}
        session.add(Vote(id="f" * 32, body_sha256="0" * 64, withdrawn=True, **fields))
        details = {"assignment": vote.assignment_id, "revision": 7, "body_sha256": "0" * 64}
        append_entry(session, actor="x", action="vote.withdrawn", subject="f" * 32, details=details)

    voted.writer.run(log_as_before)
    assert problems(voted) == []
    with voted.reading() as session:
        assert votes_without_facts(session) == 1
    execute(*parse_request(["verify", "--data", str(voted.config.data)]))
    assert "1 votes are older than the log's record of answers" in capsys.readouterr().out


def test_forged_snapshot_and_log_that_was_cut_are_found(voted: Arena) -> None:
    def forge(session: Session) -> None:
        row = session.scalars(select(Snapshot)).one()
        row.result = {**row.result, "num_votes": 99}

    def cut(session: Session) -> None:
        seen = session.scalars(select(Snapshot.last_audit_number)).one()
        session.execute(delete(AuditEntry).where(AuditEntry.number >= seen))

    voted.writer.run(forge)
    (found,) = problems(voted)
    assert "does not come out again" in found
    voted.writer.run(cut)
    assert any("is not the one that snapshot" in line for line in problems(voted))


def test_clip_for_raters_that_was_changed_is_found(voted: Arena) -> None:
    with voted.reading() as session:
        path = next(iter(session.scalars(select(Video)).first().play_files.values()))
    file = voted.config.data / path
    file.write_bytes(file.read_bytes() + b"x")
    found = problems(voted)
    assert found
    assert all(f"clip {path} is not the file that was made for raters" in line for line in found)
