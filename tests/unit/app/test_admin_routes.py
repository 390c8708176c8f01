"""Admins get in by password or by their proxy's header, and everything they change is on record."""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.admin_password import hash_password
from app.arena_state import Arena
from app.database.audit_log import first_broken_entry
from app.database.tables import AuditEntry, Exclusion, Rater
from app.quality.rate_limit import NETWORK_LIMITS, Bucket
from app.quality.risk_policy import RiskPolicy
from app.quality.sweep import sweep
from app.studies.study import find_study
from app.voting.clean_votes import sort_votes
from app.web.server import create_api
from tests.unit.app.conftest import on_both_databases

PASSWORD = "correct horse battery staple"
ROUTES = [
    ("GET", "/session"),
    ("GET", "/studies/demo/raters"),
    ("GET", "/studies/demo/agreement"),
    ("GET", "/studies/demo/refusals"),
    ("GET", "/exclusions"),
    ("POST", "/studies/demo/status"),
    ("POST", "/exclusions"),
    ("POST", "/exclusions/x/lift"),
]


def with_config(arena: Arena, **changes: Any) -> Arena:
    """Return an arena with other settings."""
    return replace(arena, config=replace(arena.config, **changes))


@pytest.fixture
def admin(arena: Arena) -> Iterator[TestClient]:
    """Return the browser of an admin who has logged in."""
    with TestClient(create_api(with_config(arena, admin_password=hash_password(PASSWORD)))) as browser:
        assert browser.post("/api/v1/admin/login", json={"password": PASSWORD}).status_code == 200
        yield browser


def vote(client: TestClient, answer: str = "left") -> str:
    """Judge the next pair; return the vote's id."""
    pair = client.post("/api/v1/assignments", json={"study": "demo"}).json()
    sent = {
        "vote_id": uuid.uuid4().hex,
        "assignment": pair["assignment"],
        "token": pair["token"],
        "answers": {question["name"]: answer for question in pair["questions"]},
        "watched_ms": {"left": 5000, "right": 5000},
    }
    assert client.post("/api/v1/votes", json=sent).status_code == 201
    return str(sent["vote_id"])


def test_everybody_else_gets_401(arena: Arena, client: TestClient) -> None:
    with_password = with_config(arena, admin_password=hash_password(PASSWORD))
    token = arena.signer.sign("admin", "0" * 32, lasts_s=100)
    for app in (create_api(arena), create_api(with_password)):
        for cookies in ({}, {"arena_admin": token}, {"arena_admin": "x"}, dict(client.cookies)):
            with TestClient(app, cookies=cookies, headers={"X-Forwarded-User": "eve"}) as browser:
                for method, path in ROUTES:
                    reply = browser.request(method, f"/api/v1/admin{path}", json={} if method == "POST" else None)
                    assert (reply.status_code, reply.json()["error"]["code"]) == (401, "not_admin"), path


def test_the_password_gives_a_strict_cookie_that_ends(arena: Arena, admin: TestClient) -> None:
    reply = admin.post("/api/v1/admin/login", json={"password": PASSWORD})
    cookie = reply.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "samesite=strict", "max-age=43200", "path=/"))
    assert PASSWORD not in reply.text + cookie
    assert admin.get("/api/v1/admin/session").json() == {"admin": "admin"}
    other_password = with_config(arena, admin_password=hash_password("another"))
    with TestClient(create_api(other_password), cookies=dict(admin.cookies)) as old:
        assert old.get("/api/v1/admin/session").status_code == 401
    assert admin.post("/api/v1/admin/logout", json={}).status_code == 200
    assert admin.get("/api/v1/admin/session").status_code == 401


def test_guesses_are_refused_and_slowed_down(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORK_LIMITS, "login", Bucket(3, 0.01))
    with TestClient(create_api(with_config(arena, admin_password=hash_password(PASSWORD)))) as browser:
        codes = [
            browser.post("/api/v1/admin/login", json={"password": word}).status_code
            for word in ("", "x", "y", "z", PASSWORD)
        ]
        late = browser.post("/api/v1/admin/login", json={"password": PASSWORD})
    assert codes[0] == 422
    assert codes[1:3] == [401, 401]
    assert codes[-1] == late.status_code == 429
    assert int(late.headers["retry-after"]) > 60


def test_a_proxy_names_the_admin_only_where_the_config_says_so(arena: Arena) -> None:
    with TestClient(create_api(with_config(arena, admin_header="X-Forwarded-User"))) as browser:
        assert browser.get("/api/v1/admin/session").status_code == 401
        assert browser.get("/api/v1/admin/session", headers={"X-Forwarded-User": " "}).status_code == 401
        reply = browser.get("/api/v1/admin/session", headers={"x-forwarded-user": "ada"})
        assert reply.json() == {"admin": "ada"}


def test_exclusions_are_made_lifted_and_kept_on_record(arena: Arena, client: TestClient, admin: TestClient) -> None:
    sent = vote(client)
    vote(client)
    with arena.reading() as session:
        rater = session.scalar(select(Rater.id))
    url = "/api/v1/admin/exclusions"
    for kind, target, left in (("vote", sent, 1), ("rater", rater, 0)):
        made = admin.post(url, json={"kind": kind, "id": target, "reason": "by hand"})
        assert made.status_code == 201, made.text
        assert admin.post(url, json={"kind": kind, "id": target, "reason": "again"}).status_code == 409
        with arena.reading() as session:
            assert len(sort_votes(session, find_study(session, "demo")).clean) == left
        lifted = admin.post(f"{url}/{made.json()['id']}/lift", json={})
        assert (lifted.status_code, lifted.json()["lifted_by"]) == (200, "admin")
        assert admin.post(f"{url}/{made.json()['id']}/lift", json={}).status_code == 409
        with arena.reading() as session:
            assert len(sort_votes(session, find_study(session, "demo")).clean) == 2
    assert admin.post(url, json={"kind": "rater", "id": "nobody", "reason": "x"}).status_code == 409
    assert admin.post(f"{url}/nothing/lift", json={}).status_code == 409
    assert [row["lifted_by"] for row in admin.get(url).json()] == ["admin", "admin"]
    with arena.reading() as session:
        assert first_broken_entry(session) is None
        actions = session.scalars(select(AuditEntry.action).order_by(AuditEntry.number)).all()
    assert actions[-4:] == ["exclusion.made", "exclusion.lifted"] * 2
    assert client.get("/api/v1/session").json()["consented"]  # the rater notices nothing


def test_studies_are_paused_and_opened(client: TestClient, admin: TestClient) -> None:
    url = "/api/v1/admin/studies/demo/status"
    assert admin.post(url, json={"status": "paused"}).json() == {"study": "demo", "status": "paused"}
    assert client.post("/api/v1/assignments", json={"study": "demo"}).status_code == 409
    assert admin.post(url, json={"status": "paused"}).status_code == 409
    assert admin.post(url, json={"status": "half-open"}).status_code == 422
    assert admin.post(url, json={"status": "open"}).status_code == 200
    assert client.post("/api/v1/assignments", json={"study": "demo"}).status_code == 201
    assert admin.post("/api/v1/admin/studies/none/status", json={"status": "open"}).status_code == 404


def test_reports_tell_what_each_rater_did(arena: Arena, client: TestClient, admin: TestClient) -> None:
    vote(client, "left")
    vote(client, "same")
    pair = client.post("/api/v1/assignments", json={"study": "demo"}).json()
    body = {"token": pair["token"], "reason": "broken", "note": "black"}
    assert client.post(f"/api/v1/assignments/{pair['assignment']}/report", json=body).status_code == 200
    (report,) = admin.get("/api/v1/admin/studies/demo/raters").json()
    assert report["num_votes"] == 2
    assert (report["tie_share"], report["left_share"], report["num_reports"], report["num_skips"]) == (0.5, 1.0, 1, 0)
    assert (report["gold"], report["agreement"], report["excluded"], report["risk"]) == (None, None, None, 0)
    (refusal,) = admin.get("/api/v1/admin/studies/demo/refusals").json()
    assert (refusal["kind"], refusal["reason"], refusal["note"]) == ("report", "broken", "black")
    rows = admin.get("/api/v1/admin/studies/demo/agreement").json()
    assert rows[0]["question"] == "overall"
    assert all(row["alpha_ordinal"] is None and row["num_votes"] == 2 for row in rows)


@on_both_databases
def test_the_sweep_leaves_out_a_script_in_silence_and_does_not_overrule_an_admin(
    arena: Arena, client: TestClient, admin: TestClient
) -> None:
    for _ in range(4):
        vote(client)
    assert sweep(arena) == []
    strict = RiskPolicy(hasty_windows=((60.0, 2),), hasty_points=60.0)
    with arena.reading() as session:
        rater = session.scalar(select(Rater.id))
    assert sweep(arena, policy=strict) == [rater]
    assert sweep(arena, policy=strict) == []
    with arena.reading() as session:
        assert sort_votes(session, find_study(session, "demo")).left_out == {"rater excluded: risk": 4}
        exclusion = session.scalar(select(Exclusion))
        assert (exclusion.actor, exclusion.score) == ("sweep", 60.0)
        assert exclusion.details["signals"][0]["name"] == "hasty"
    (report,) = admin.get("/api/v1/admin/studies/demo/raters").json()
    assert report["excluded"] == "risk"
    assert client.get("/api/v1/session").json()["consented"]
    assert admin.post(f"/api/v1/admin/exclusions/{exclusion.id}/lift", json={}).status_code == 200
    assert sweep(arena, policy=strict) == []
