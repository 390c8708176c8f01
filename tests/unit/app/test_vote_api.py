"""The raters' API: leases, votes that count once, and what is refused."""

import os
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.arena_state import Arena
from app.database.audit_log import first_broken_entry
from app.database.tables import Assignment, AuditEntry, Pair, Rater, Study, Video, Vote, utc_now
from app.studies.study import StudyPolicy
from app.voting import tokens
from app.web.server import create_api
from rlhf_video.errors import ConfigError
from tests.unit.app.conftest import SYSTEMS, on_both_databases

ANSWERS = {"visual_quality": "left", "motion_quality": "same", "text_alignment": "right", "overall": "left"}


def ask(client: TestClient, status: int = 201) -> dict[str, Any]:
    """Ask for a pair."""
    reply = client.post("/api/v1/assignments", json={"study": "demo"})
    assert reply.status_code == status, reply.text
    return reply.json()


def ballot(pair: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a complete vote on a pair."""
    return {
        "vote_id": str(uuid.uuid4()),  # with dashes, as browsers write it
        "assignment": pair["assignment"],
        "token": pair["token"],
        "revision": 0,
        "answers": ANSWERS,
        "watched_ms": {"left": 5000, "right": 5000},
        **changes,
    }


def stored_votes(arena: Arena) -> list[Vote]:
    """Return every vote."""
    with arena.reading() as session:
        return list(session.scalars(select(Vote)))


def test_vote_is_stored_by_clip_and_not_by_side(arena: Arena, client: TestClient) -> None:
    for _ in range(4):
        pair = ask(client)
        assert client.post("/api/v1/votes", json=ballot(pair)).status_code == 201
    with arena.reading() as session:
        rows = session.execute(select(Vote, Assignment).join(Assignment, Assignment.id == Vote.assignment_id)).all()
        assert len(rows) == 4
        for vote, assignment in rows:
            left = "A" if assignment.a_is_left else "B"
            right = "B" if assignment.a_is_left else "A"
            assert vote.answers == {
                "visual_quality": left,
                "motion_quality": "tie",
                "text_alignment": right,
                "overall": left,
            }
    assert client.post("/api/v1/assignments", json={"study": "demo"}).status_code == 204


def test_reload_resumes_the_same_pair_on_the_same_sides(client: TestClient) -> None:
    first, again = ask(client, 201), ask(client, 200)
    for key in ("assignment", "prompt", "kind", "expires_at", "revision"):
        assert first[key] == again[key]


@on_both_databases
def test_retry_is_the_same_vote_and_another_vote_is_not(arena: Arena, client: TestClient) -> None:
    sent = ballot(ask(client))
    first, retry = client.post("/api/v1/votes", json=sent), client.post("/api/v1/votes", json=sent)
    assert (first.status_code, retry.status_code) == (201, 200)
    assert first.json()["stored_at"] == retry.json()["stored_at"]
    other_answers = client.post("/api/v1/votes", json={**sent, "answers": {**ANSWERS, "overall": "right"}})
    other_id = client.post("/api/v1/votes", json={**sent, "vote_id": str(uuid.uuid4())})
    assert (other_answers.status_code, other_id.status_code) == (409, 409)
    assert other_id.json()["stored"]["vote_id"] == sent["vote_id"]
    assert len(stored_votes(arena)) == 1


@on_both_databases
def test_hundred_replays_at_once_give_one_row(arena: Arena, client: TestClient) -> None:
    sent = ballot(ask(client))
    start = threading.Barrier(20)

    def replay(_: int) -> list[int]:
        browser = TestClient(client.app, headers=client.headers, cookies=dict(client.cookies))
        start.wait()
        return [browser.post("/api/v1/votes", json=sent).status_code for _ in range(5)]

    with ThreadPoolExecutor(20) as pool:
        codes = sorted(code for codes in pool.map(replay, range(20)) for code in codes)
    assert len(codes) == 100
    assert codes.count(201) == 1
    assert set(codes) <= {200, 201, 429}  # so many at once are also too many
    assert len(stored_votes(arena)) == 1


@on_both_databases
def test_undo_is_a_new_revision_and_opens_the_pair_again(arena: Arena, client: TestClient) -> None:
    pair = ask(client)
    assert client.post("/api/v1/votes", json=ballot(pair)).status_code == 201
    taken_back = ballot(pair, revision=1, withdrawn=True, answers={})
    assert client.post("/api/v1/votes", json=taken_back).status_code == 201
    again = ask(client, 200)
    assert again["assignment"] == pair["assignment"]
    assert again["revision"] == 2
    assert again["previous"] == ANSWERS
    assert client.post("/api/v1/votes", json=ballot(pair, revision=2)).status_code == 201
    assert [(vote.revision, vote.withdrawn) for vote in stored_votes(arena)] == [(0, False), (1, True), (2, False)]


def test_undo_gives_back_the_pair_that_came_after_it(arena: Arena, client: TestClient) -> None:
    first = ask(client)
    client.post("/api/v1/votes", json=ballot(first))
    second = ask(client)
    assert client.post("/api/v1/votes", json=ballot(first, revision=1, withdrawn=True, answers={})).status_code == 201
    with arena.reading() as session:
        states = dict(session.execute(select(Assignment.id, Assignment.state)).all())
    assert states == {first["assignment"]: "open", second["assignment"]: "expired"}
    assert ask(client, 200)["assignment"] == first["assignment"]
    assert client.post("/api/v1/votes", json=ballot(first, revision=2)).status_code == 201
    judged = {first["assignment"]}
    for _ in range(3):  # the pair that was given back is drawn again
        pair = ask(client)
        assert client.post("/api/v1/votes", json=ballot(pair)).status_code == 201
        judged.add(pair["assignment"])
    assert client.post("/api/v1/assignments", json={"study": "demo"}).status_code == 204
    assert len(judged) == 4


def test_undo_ends_after_its_time(arena: Arena, client: TestClient) -> None:
    pair = ask(client)
    client.post("/api/v1/votes", json=ballot(pair))
    long_ago = utc_now().replace(year=2020)
    arena.writer.run(lambda session: session.execute(update(Vote).values(stored_at=long_ago)) and None)
    late = client.post("/api/v1/votes", json=ballot(pair, revision=1, withdrawn=True, answers={}))
    assert (late.status_code, late.json()["error"]["code"]) == (410, "expired")


@on_both_databases
def test_late_vote_counts_within_the_grace_and_not_after_it(arena: Arena, client: TestClient) -> None:
    pair = ask(client)
    past = utc_now().replace(year=2020)

    def expire(to: Any) -> None:
        arena.writer.run(lambda session: session.execute(update(Assignment).values(expires_at=to)) and None)

    expire(past)
    refused = client.post("/api/v1/votes", json=ballot(pair))
    assert (refused.status_code, refused.json()["error"]["code"]) == (410, "expired")
    expire(utc_now())
    assert client.post("/api/v1/votes", json=ballot(pair)).status_code == 201
    assert [vote.is_late for vote in stored_votes(arena)] == [True]


def test_a_laptop_that_slept_for_a_night_learns_what_became_of_its_votes(
    arena: Arena, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    yesterday = time.time() - 12 * 3600
    with monkeypatch.context() as patch:  # tokens of yesterday
        patch.setattr(tokens, "time", SimpleNamespace(time=lambda: yesterday))
        stored = ballot(ask(client))
        assert client.post("/api/v1/votes", json=stored).status_code == 201
        unsent = ballot(ask(client))
    long_ago = utc_now() - timedelta(hours=12)
    arena.writer.run(lambda session: session.execute(update(Assignment).values(expires_at=long_ago)) and None)
    replay, late = (client.post("/api/v1/votes", json=sent) for sent in (stored, unsent))
    assert (replay.status_code, replay.json()["vote_id"]) == (200, stored["vote_id"])
    assert (late.status_code, late.json()["error"]["code"]) == (410, "expired")


def test_foreign_forged_and_swapped_tokens_are_refused(arena: Arena, client: TestClient) -> None:
    pair = ask(client)
    with TestClient(create_api(arena), headers=client.headers) as other:
        nobody = other.post("/api/v1/votes", json=ballot(pair))
        assert (nobody.status_code, nobody.json()["error"]["code"]) == (403, "not_consented")
        other.post("/api/v1/consent", json={"version": "1"})
        theirs = ask(other)
        stolen = other.post("/api/v1/votes", json=ballot(pair))
        swapped = other.post("/api/v1/votes", json=ballot(pair, token=theirs["token"]))
        forged = other.post("/api/v1/votes", json=ballot(theirs, token=theirs["token"][:-4] + "AAAA"))
    assert [reply.status_code for reply in (stolen, swapped, forged)] == [403] * 3
    assert {reply.json()["error"]["code"] for reply in (stolen, swapped, forged)} == {"foreign"}
    assert not stored_votes(arena)


@pytest.mark.parametrize(
    "changes",
    [
        {"answers": {"overall": "left"}},
        {"answers": {**ANSWERS, "beauty": "left"}},
        {"answers": {**ANSWERS, "overall": "A"}},
        {"watched_ms": {"left": -1, "right": 10}},
        {"moments": [{"side": "left", "frame": 99, "tag": "flicker"}]},
        {"moments": [{"side": "middle", "frame": 0, "tag": "flicker"}]},
        {"system": "base"},
        {"vote_id": "../../etc/passwd"},
        {"comment": "x" * 3000},
    ],
)
def test_vote_that_does_not_fit_is_refused_in_words(
    arena: Arena, client: TestClient, changes: dict[str, object]
) -> None:
    reply = client.post("/api/v1/votes", json=ballot(ask(client), **changes))
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "invalid")
    assert not stored_votes(arena)


def test_both_unacceptable_needs_no_answers(arena: Arena, client: TestClient) -> None:
    reply = client.post("/api/v1/votes", json=ballot(ask(client), answers={}, both_unacceptable=True))
    assert reply.status_code == 201
    assert [(vote.both_bad, vote.answers) for vote in stored_votes(arena)] == [(True, {})]


def test_consent_holds_for_each_study_whose_information_was_accepted(
    arena: Arena, client: TestClient, make_study: Callable[..., Study]
) -> None:
    def add(session: Session) -> None:
        make_study(session, arena.config.data, "second", prompts=2, consent_version="2")

    def agreed() -> dict[str, bool]:
        return {study["slug"]: study["consented"] for study in client.get("/api/v1/session").json()["studies"]}

    def asked(study: str) -> int:
        return client.post("/api/v1/assignments", json={"study": study}).status_code

    arena.writer.run(add)
    assert (agreed(), asked("second")) == ({"demo": True, "second": False}, 403)
    assert client.post("/api/v1/consent", json={"version": "2"}).status_code == 200
    assert agreed() == {"demo": True, "second": True}
    assert (asked("second"), asked("demo"), asked("demo")) == (201, 201, 200)
    with TestClient(create_api(arena), headers=client.headers) as other:
        assert [study["consented"] for study in other.get("/api/v1/session").json()["studies"]] == [False, False]


@pytest.mark.parametrize(
    ("answers", "is_right", "message"),
    [
        ({"overall": "A"}, True, "That is what we see, too."),
        ({"overall": "B"}, False, "We expected Overall: {A}."),
        ({}, None, None),  # both unacceptable, and nothing else said
    ],
)
def test_practice_tells_of_the_questions_on_the_screen_alone(
    arena: Arena,
    client: TestClient,
    make_study: Callable[..., Study],
    answers: dict[str, str],
    is_right: bool | None,
    message: str | None,
) -> None:
    def add(session: Session) -> None:
        settings = {"questions": ("overall",), "practice": 1}
        study = make_study(session, arena.config.data, "one", prompts=2, **settings)
        first = session.scalars(select(Pair).where(Pair.study_id == study.id)).first()
        assert first is not None
        first.kind, first.gold, first.expected = "practice", "blur", {"overall": "A", "visual_quality": "A"}

    arena.writer.run(add)
    pair = client.post("/api/v1/assignments", json={"study": "one"}).json()
    assert (pair["kind"], [question["name"] for question in pair["questions"]]) == ("practice", ["overall"])
    with arena.reading() as session:
        side = {"A": "left", "B": "right"} if session.get_one(Assignment, pair["assignment"]).a_is_left else {}
    side = side or {"A": "right", "B": "left"}
    sent = ballot(pair, answers={name: side[answer] for name, answer in answers.items()}, both_unacceptable=not answers)
    feedback = client.post("/api/v1/votes", json=sent).json()["feedback"]
    told = message and message.format(**side)
    assert feedback == (None if is_right is None else {"is_right": is_right, "message": told})


def test_vote_before_watching_is_refused(arena: Arena, client: TestClient) -> None:
    def wait_longer(session: Any) -> None:
        study = session.scalar(select(Study))
        study.policy = {**study.policy, "min_watch_s": 0.5}

    arena.writer.run(wait_longer)
    pair = ask(client)
    just_now = utc_now() + timedelta(hours=1)  # a slow machine must not have watched long enough
    arena.writer.run(lambda session: session.execute(update(Assignment).values(issued_at=just_now)) and None)
    for watched in ({"left": 5000, "right": 10}, {"left": 5000, "right": 5000}):  # the clock of the server counts too
        reply = client.post("/api/v1/votes", json=ballot(pair, watched_ms=watched))
        assert (reply.status_code, reply.json()["error"]["code"]) == (422, "watched_too_little")


@on_both_databases
def test_pair_is_not_given_to_more_raters_than_wanted(arena: Arena, client: TestClient) -> None:
    for _ in range(2):
        with TestClient(create_api(arena), headers=client.headers) as browser:
            browser.post("/api/v1/consent", json={"version": "1"})
            for _ in range(4):
                browser.post("/api/v1/votes", json=ballot(ask(browser)))
    for _ in range(4):
        client.post("/api/v1/votes", json=ballot(ask(client)))
    with TestClient(create_api(arena), headers=client.headers) as fourth:
        fourth.post("/api/v1/consent", json={"version": "1"})
        assert fourth.post("/api/v1/assignments", json={"study": "demo"}).status_code == 204
    with arena.reading() as session:
        counts = session.scalars(select(func.count()).select_from(Assignment).group_by(Assignment.pair_id)).all()
    assert list(counts) == [3] * 4


def test_skipped_and_reported_pairs_go_to_others(arena: Arena, client: TestClient) -> None:
    first = ask(client)
    url = f"/api/v1/assignments/{first['assignment']}"
    assert client.post(f"{url}/skip", json={"token": first["token"], "reason": "cannot-decide"}).status_code == 200
    assert client.post(f"{url}/skip", json={"token": first["token"], "reason": "again"}).status_code == 409
    second = ask(client)
    assert second["assignment"] != first["assignment"]
    url = f"/api/v1/assignments/{second['assignment']}"
    assert client.post(f"{url}/report", json={"token": second["token"], "reason": "broken"}).json() == {
        "state": "reported"
    }
    assert client.post("/api/v1/votes", json=ballot(second)).status_code == 409


def test_clips_are_served_in_ranges_and_only_by_their_token(client: TestClient) -> None:
    url = ask(client)["left"]["sources"][0]["url"]
    whole = client.get(url)
    assert (whole.status_code, whole.headers["content-type"]) == (200, "video/mp4")
    part = client.get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert client.head(url).headers["content-length"] == str(len(whole.content))
    for condition, status in ((whole.headers["etag"], 206), ('"another"', 200), ("Sat, 01 Jan 2000 00:00:00 GMT", 200)):
        again = client.get(url, headers={"Range": "bytes=10-19", "If-Range": condition})
        assert (again.status_code, len(again.content)) == (status, 10 if status == 206 else len(whole.content))
    for wrong in (url[:-3] + "AAA", "/media/x", "/media/..%2f..%2farena.sqlite", "/media/" + "A" * 200):
        assert client.get(wrong).status_code == 404, wrong


def test_no_byte_before_the_vote_names_a_system(arena: Arena, client: TestClient) -> None:
    with arena.reading() as session:
        paths = [path for (files,) in session.execute(select(Video.play_files)) for path in files.values()]
    secrets = (*SYSTEMS, "source/", *paths, *(Path(path).stem for path in paths))
    pair = ask(client)
    replies = [client.get("/api/v1/session"), client.post("/api/v1/assignments", json={"study": "demo"})]
    replies += [client.get(pair[side]["sources"][0]["url"]) for side in ("left", "right")]
    for reply in replies:
        told = reply.content + repr(sorted(reply.headers.items())).encode() + reply.url.path.encode()
        for secret in secrets:
            assert secret.encode() not in told, secret


def test_headers_of_a_clip_do_not_tell_when_it_was_written(arena: Arena, client: TestClient) -> None:
    pair = ask(client)

    def headers() -> list[dict[str, str]]:
        asked = ({}, {"Range": "bytes=0-9"})
        urls = [pair[side]["sources"][0]["url"] for side in ("left", "right")]
        return [dict(client.get(url, headers=each).headers) for url in urls for each in asked]

    before = headers()  # systems are imported one after the other, and spoiled copies are made last
    for number, file in enumerate((arena.config.data / "play").iterdir()):
        os.utime(file, (number, number))
    assert headers() == before
    assert all("last-modified" not in each for each in before)


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}])
def test_write_from_another_site_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    reply = client.post("/api/v1/assignments", json={"study": "demo"}, headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "cross_origin")


def test_only_json_is_taken(client: TestClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        reply = client.post("/api/v1/assignments", content=b'{"study": "demo"}', headers={"content-type": kind})
        assert reply.status_code == 415, kind


@on_both_databases
def test_erased_rater_keeps_the_tally_and_loses_the_link(arena: Arena, client: TestClient) -> None:
    client.post("/api/v1/votes", json=ballot(ask(client)))
    before = client.get("/api/v1/session").json()["rater"]
    assert client.post("/api/v1/erase", json={}).status_code == 200
    assert client.post("/api/v1/assignments", json={"study": "demo"}).status_code == 403
    with arena.reading() as session:
        assert session.scalar(select(Rater.pseudonym)) != before
        assert session.scalar(select(Rater.status)) == "erased"
        assert session.scalar(select(func.count()).select_from(Vote)) == 1


@on_both_databases
def test_audit_log_shows_a_changed_line(arena: Arena, client: TestClient) -> None:
    client.post("/api/v1/votes", json=ballot(ask(client)))
    with arena.reading() as session:
        assert first_broken_entry(session) is None
        actions = session.scalars(select(AuditEntry.action).order_by(AuditEntry.number)).all()
    assert actions == ["study.created", "rater.consented", "vote.stored"]
    arena.writer.run(
        lambda session: session.execute(update(AuditEntry).where(AuditEntry.number == 2).values(actor="me")) and None
    )
    with arena.reading() as session:
        assert first_broken_entry(session) == 2


def test_a_report_that_comes_after_the_lease_is_kept(arena: Arena, client: TestClient) -> None:
    late = ask(client)
    past = utc_now() - timedelta(minutes=1)
    arena.writer.run(lambda session: session.execute(update(Assignment).values(expires_at=past)) and None)
    with TestClient(create_api(arena), headers=client.headers) as second:
        second.post("/api/v1/consent", json={"version": "1"})
        ask(second)  # ends every lease that is over
    body = {"token": late["token"], "reason": "broken"}
    assert client.post(f"/api/v1/assignments/{late['assignment']}/report", json=body).json() == {"state": "reported"}


@pytest.mark.parametrize("version", ["", "v" * 33])
def test_a_version_that_nobody_could_agree_to_is_refused(version: str) -> None:
    with pytest.raises(ConfigError, match="1 to 32 characters"):
        StudyPolicy(consent_version=version)


@on_both_databases
def test_a_reader_sees_one_moment(arena: Arena, client: TestClient) -> None:
    client.post("/api/v1/votes", json=ballot(ask(client)))
    with arena.reading() as session:
        before = session.scalar(select(func.count()).select_from(AuditEntry))
        assert client.post("/api/v1/votes", json=ballot(ask(client))).status_code == 201
        assert session.scalar(select(func.count()).select_from(Vote)) == 1
        assert session.scalar(select(func.count()).select_from(AuditEntry)) == before
    assert len(stored_votes(arena)) == 2
