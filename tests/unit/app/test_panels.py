"""Raters of a panel: whose browser it is, and who gets to see where the study ends."""

from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.arena_state import Arena
from app.database.tables import Study, System, Vote
from app.quality.exclusions import exclude
from app.studies.study import StudyPolicy
from app.web.server import create_api
from rlhf_video.errors import ConfigError
from tests.unit.app.test_vote_api import ask, ballot


def test_completion_address_is_shown_to_those_alone_who_are_done(arena: Arena, client: TestClient) -> None:
    url = "https://panel.example/done?cc=CODE"

    def plan(session: Any) -> None:
        study = session.scalars(select(Study)).one()
        study.policy = {**study.policy, "completion_url": url}

    def shown(browser: TestClient) -> str | None:
        return browser.get("/api/v1/session").json()["studies"][0]["completion_url"]

    arena.writer.run(plan)
    with TestClient(create_api(arena), headers=client.headers) as stranger:
        assert shown(stranger) is None
        for _ in range(4):
            assert shown(client) is None
            pair = ask(client)
            assert shown(client) is None
            assert client.post("/api/v1/votes", json=ballot(pair)).status_code == 201
        assert client.post("/api/v1/assignments", json={"study": "demo"}).status_code == 204
        assert shown(client) == url
        assert shown(stranger) is None


def test_completion_address_is_shown_to_nobody_whom_a_pair_waits_for(arena: Arena, client: TestClient) -> None:
    def ask_for_one_vote_each(session: Session) -> None:
        study = session.scalars(select(Study)).one()
        study.policy = {**study.policy, "completion_url": "https://panel.example/done", "overlap": 1}

    def is_done(browser: TestClient) -> bool:
        return browser.get("/api/v1/session").json()["studies"][0]["completion_url"] is not None

    def may_ask(browser: TestClient) -> bool:
        return browser.post("/api/v1/assignments", json={"study": "demo"}).status_code == 201

    arena.writer.run(ask_for_one_vote_each)
    with TestClient(create_api(arena), headers=client.headers) as second:
        second.post("/api/v1/consent", json={"version": "1"})
        for browser in (client, second, second, second):
            assert browser.post("/api/v1/votes", json=ballot(ask(browser))).status_code == 201
        with TestClient(create_api(arena), headers=client.headers) as late:
            late.post("/api/v1/consent", json={"version": "1"})
            assert not may_ask(late) and not is_done(late)  # everything is taken, but they have not voted
        assert is_done(client) and is_done(second)
        with arena.reading() as session:
            first_vote = session.scalars(select(Vote).order_by(Vote.stored_at).limit(1)).one().id
        arena.writer.run(lambda session: exclude(session, actor="admin", reason="test", vote_id=first_vote) and None)
        assert not is_done(second) and is_done(client)  # its place is free again, for the other one
        arena.writer.run(lambda session: session.execute(update(System).values(is_active=False)) and None)
        assert is_done(second) and not may_ask(second)


def test_a_panels_id_says_who_sits_at_the_browser(arena: Arena, client: TestClient) -> None:
    """The cookie is the browser's: whoever comes next with an id of their own is somebody else."""

    def agree(browser: TestClient, person: str | None = None) -> str:
        panel = {"PROLIFIC_PID": person} if person else {}
        reply = browser.post("/api/v1/consent", json={"version": "1", "panel": panel})
        assert reply.status_code == 200
        return str(reply.json()["rater"])

    def session(browser: TestClient, person: str | None = None) -> tuple[str | None, bool]:
        headers = {"X-Panel-Person": quote(person)} if person else {}
        body = browser.get("/api/v1/session", headers=headers).json()
        return body["rater"], body["consented"]

    unknown = agree(client)  # without an id: as the fixture did
    assert session(client, "ann é") == (None, False)
    assert agree(client, "ann é") == unknown  # the id becomes theirs
    assert session(client, "ann é") == (unknown, True) == session(client)
    assert session(client, "bob") == (None, False)
    bob = agree(client, "bob")
    assert bob != unknown and session(client, "bob") == (bob, True)
    with TestClient(create_api(arena), headers=client.headers) as elsewhere:
        assert agree(elsewhere) not in (unknown, bob)
        assert agree(elsewhere, "ann é") == unknown  # the same person on another machine
        assert session(elsewhere) == (unknown, True)


def test_completion_address_without_https_is_refused() -> None:
    with pytest.raises(ConfigError, match="https"):
        StudyPolicy(completion_url="http://panel.example/done")
