"""Which votes count."""

import uuid
from datetime import timedelta
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import select, update

from app.arena_state import Arena
from app.database.tables import Assignment, Exclusion, Pair, Rater, Vote, utc_now
from app.studies.study import find_study
from app.voting.clean_votes import SortedVotes, clean_votes, sort_votes
from tests.unit.app.conftest import on_both_databases

ANSWERS = {"visual_quality": "left", "motion_quality": "same", "text_alignment": "right", "overall": "left"}


def vote(client: TestClient, **changes: Any) -> dict[str, Any]:
    """Judge the next pair; return what was sent."""
    pair = client.post("/api/v1/assignments", json={"study": "demo"}).json()
    sent = {
        "vote_id": uuid.uuid4().hex,
        "assignment": pair["assignment"],
        "token": pair["token"],
        "revision": 0,
        "answers": ANSWERS,
        "watched_ms": {"left": 5000, "right": 5000},
        **changes,
    }
    assert client.post("/api/v1/votes", json=sent).status_code == 201
    return sent


def sorted_now(arena: Arena, **options: Any) -> SortedVotes:
    """Sort the votes of the demo study."""
    with arena.reading() as session:
        return sort_votes(session, find_study(session, "demo"), **options)


def change(arena: Arena, statement: Any) -> None:
    """Change the database behind everybody's back."""
    arena.writer.run(lambda session: session.execute(statement) and None)


def test_clean_vote_holds_what_was_asked_and_answered(arena: Arena, client: TestClient) -> None:
    moments = [{"side": "right", "frame": 3, "tag": "flicker"}]
    sent = vote(client, moments=moments, both_unacceptable=True)
    (clean,) = sorted_now(arena).clean
    with arena.reading() as session:
        pair = session.get_one(Pair, clean.pair)
        assert clean.vote == sent["vote_id"]
        assert clean.videos == (pair.a_id, pair.b_id)
        assert sorted(clean.systems) == ["wan-plain", "wan-tuned"]
        assert clean.prompt == pair.prompt_id
        assert 0 < clean.probability <= 1
    left, right = ("A", "B") if clean.a_is_left else ("B", "A")
    assert clean.answers["overall"] == left
    assert clean.moments == ({"clip": right, "frame": 3, "tag": "flicker"},)
    assert clean.both_bad


def test_a_withdrawn_vote_does_not_count_and_the_answer_after_it_does(arena: Arena, client: TestClient) -> None:
    sent = vote(client)
    taken_back = {**sent, "vote_id": uuid.uuid4().hex, "revision": 1, "withdrawn": True, "answers": {}}
    assert client.post("/api/v1/votes", json=taken_back).status_code == 201
    assert (sorted_now(arena).clean, sorted_now(arena).left_out) == ((), {"withdrawn": 1})
    again = {**sent, "vote_id": uuid.uuid4().hex, "revision": 2}
    assert client.post("/api/v1/votes", json=again).status_code == 201
    assert [clean.vote for clean in sorted_now(arena).clean] == [again["vote_id"]]


def test_gold_practice_repeats_and_test_raters_do_not_count(arena: Arena, client: TestClient) -> None:
    first, second, third, fourth = (vote(client) for _ in range(4))
    with arena.reading() as session:
        pairs = {
            name: session.get_one(Assignment, sent["assignment"]).pair_id
            for name, sent in (("gold", first), ("practice", second))
        }
    for kind, pair in pairs.items():
        change(arena, update(Pair).where(Pair.id == pair).values(kind=kind))
    change(
        arena,
        update(Assignment).where(Assignment.id == third["assignment"]).values(repeats=fourth["assignment"]),
    )
    seen = sorted_now(arena)
    assert [clean.vote for clean in seen.clean] == [fourth["vote_id"]]
    assert seen.left_out == {"gold": 1, "practice": 1, "repeat": 1}
    change(arena, update(Rater).values(is_test=True))
    assert sorted_now(arena).left_out == {"gold": 1, "practice": 1, "repeat": 1, "test rater": 1}


@on_both_databases
def test_exclusions_count_until_they_are_lifted_and_the_past_stays_readable(arena: Arena, client: TestClient) -> None:
    sent = [vote(client) for _ in range(3)]
    before = utc_now()
    with arena.reading() as session:
        rater = session.scalar(select(Rater.id))
    arena.writer.run(
        lambda session: session.add(Exclusion(vote_id=sent[0]["vote_id"], reason="too fast", actor="admin"))
    )
    assert sorted_now(arena).left_out == {"vote excluded: too fast": 1}
    arena.writer.run(lambda session: session.add(Exclusion(rater_id=rater, reason="gold", actor="admin")))
    assert sorted_now(arena).left_out == {"rater excluded: gold": 2, "vote excluded: too fast": 1}
    change(arena, update(Exclusion).values(lifted_at=utc_now(), lifted_by="admin"))
    assert len(sorted_now(arena).clean) == 3
    assert len(sorted_now(arena, at=before).clean) == 3
    change(arena, update(Vote).where(Vote.id == sent[2]["vote_id"]).values(stored_at=before + timedelta(days=1)))
    with arena.reading() as session:
        assert len(clean_votes(session, find_study(session, "demo"), at=before)) == 2
