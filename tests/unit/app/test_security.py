"""What other sites, forged requests, hostile names and Gradio's own routes cannot do."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update
from starlette.requests import Request

from app.arena_config import ArenaConfig
from app.arena_state import Arena, open_arena
from app.boards.board import BoardSettings, make_board
from app.database.tables import Prompt, RaterSession, Study, System, Video
from app.pages.board_view import board_html
from app.pages.rater_pages import draw_board
from app.studies.study import find_study
from app.voting.clean_votes import clean_votes
from app.web.security import CONTENT_SECURITY_POLICY, is_closed
from app.web.server import create_api, create_app
from app.web.sessions import network_hash
from tests.unit.app.conftest import ORIGIN, SYSTEMS, make_study

EVIL = "<img src=x onerror=alert(1)>\"'</script><script>alert(2)</script>"
ASK = {"study": "demo"}


@pytest.fixture(scope="module")
def site_arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """Return an arena for tests that leave it as it is."""
    config = ArenaConfig(data=tmp_path_factory.mktemp("site") / "arena")
    with open_arena(config, create=True) as arena:
        arena.writer.run(lambda session: make_study(session, config.data, "demo", prompts=4))
        yield arena


@pytest.fixture(scope="module")
def site(site_arena: Arena) -> Iterator[TestClient]:
    """Return a rater's browser of the whole server, Gradio's pages and routes included."""
    with TestClient(create_app(site_arena), headers={"origin": ORIGIN}, raise_server_exceptions=False) as client:
        assert client.post("/api/v1/consent", json={"version": "1"}).status_code == 200
        yield client


@pytest.fixture
def https(arena: Arena) -> Iterator[TestClient]:
    """Return a browser of an arena that is reached by https."""
    secure = replace(arena, config=replace(arena.config, public_url="https://arena.example.org"))
    with TestClient(create_api(secure), base_url="https://arena.example.org") as client:
        yield client


FOREIGN = (
    {"origin": "null"},
    {"origin": "https://evil.example"},
    {"origin": "http://testserver:8080"},
    {"origin": "http://testserver.evil.example"},
    {"origin": "http://testserver@evil.example"},
    {"origin": ""},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
)


def test_writes_of_other_sites_are_refused_on_every_route(site: TestClient) -> None:
    for path in ("/api/v1/assignments", "/gradio_api/queue/join", "/gradio_api/reset", "/"):
        for headers in FOREIGN:
            reply = site.post(path, json=ASK, headers=headers)
            assert (reply.status_code, reply.json()["error"]["code"]) == (403, "cross_origin"), (path, headers)
            assert "access-control-allow-origin" not in reply.headers


def test_behind_a_proxy_the_public_address_is_the_origin_and_its_scheme_counts(https: TestClient) -> None:
    for origin, status in (
        ("https://arena.example.org", 200),
        ("http://arena.example.org", 403),
        ("https://arena.example.org:444", 403),
    ):
        reply = https.post("/api/v1/consent", json={"version": "1"}, headers={"origin": origin})
        assert reply.status_code == status, origin


def test_cookies_are_out_of_reach_and_secure_on_https(https: TestClient, arena: Arena) -> None:
    cookie = https.post("/api/v1/consent", json={"version": "1"}).headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "samesite=lax", "secure", "path=/"))
    assert "domain" not in cookie
    assert "strict-transport-security" in https.get("/health").headers
    with TestClient(create_api(arena)) as plain:
        assert "secure" not in plain.post("/api/v1/consent", json={"version": "1"}).headers["set-cookie"].lower()


def test_a_planted_cookie_does_not_become_a_session(arena: Arena) -> None:
    with TestClient(create_api(arena), cookies={"arena_session": "planted"}) as browser:
        reply = browser.post("/api/v1/consent", json={"version": "1"})
    assert "planted" not in reply.headers["set-cookie"]
    with TestClient(create_api(arena), cookies={"arena_session": "planted"}) as thief:
        assert thief.get("/api/v1/session").json()["rater"] is None
    with arena.reading() as session:
        assert len(session.scalars(select(RaterSession)).all()) == 1


def test_every_answer_carries_the_policy(site: TestClient) -> None:
    clip = site.post("/api/v1/assignments", json=ASK).json()["left"]["sources"][0]["url"]

    @site.app.get("/api/v1/broken")  # type: ignore[attr-defined]
    def broken() -> None:
        raise RuntimeError("a defect")

    site.app.router.routes.insert(0, site.app.router.routes.pop())  # type: ignore[attr-defined]
    asked = [
        ("GET", "/", 200),
        ("GET", "/health", 200),
        ("GET", "/api/v1/session", 200),
        ("GET", clip, 200),
        ("HEAD", clip, 200),
        ("GET", "/config", 200),
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/media/x", 404),
        ("DELETE", "/api/v1/votes", 415),
        ("GET", "/api/v1/votes", 404),
        ("OPTIONS", "/api/v1/votes", 404),
        ("POST", "/gradio_api/upload", 404),
        ("GET", "/api/v1/admin/exclusions", 401),
    ]
    for method, path, status in [*asked, ("GET", "/api/v1/broken", 500)]:
        reply = site.request(method, path)
        assert reply.status_code == status, (method, path, reply.text[:200])
        assert reply.headers["content-security-policy"] == CONTENT_SECURITY_POLICY, path
        assert reply.headers["x-content-type-options"] == "nosniff", path
        assert reply.headers["cross-origin-resource-policy"] == "same-origin", path
        assert "a defect" not in reply.text


CLOSED = (
    "/gradio_api/upload",
    "/gradio_api/upload_progress?upload_id=x",
    "/gradio_api/proxy=https://example.com/",
    "/gradio_api/file=http://example.com/",
    "/gradio_api/file=https://example.com/",
    "/gradio_api/file=/etc/passwd",
    "/gradio_api/file=../../etc/passwd",
    "/gradio_api/file=..%2f..%2fetc/passwd",
    "/gradio_api/file/etc/passwd",
    "/gradio_api/stream/x/y/z/playlist.m3u8",
    "/gradio_api/run/predict",
    "/gradio_api/api/predict",
    "/gradio_api/call/draw",
    "/gradio_api/call/v2/draw",
    "/gradio_api/component_server",
    "/gradio_api/runs",
    "/gradio_api/run-history/records",
    "/gradio_api/deep_link",
    "/gradio_api/openapi.json",
    "/gradio_api/process_recording",
    "/gradio_api/vibe-edit",
    "/gradio_api/dev/reload",
    "/gradio_api/custom_component/x/client/component/index.js",
    "/monitoring",
    "/monitoring/summary",
    "/login",
)


def test_gradio_routes_that_nobody_needs_are_closed(site: TestClient) -> None:
    for path in CLOSED:
        for method in ("GET", "POST", "HEAD"):
            reply = site.request(method, path, json={} if method == "POST" else None)
            assert reply.status_code == 404, (method, path)


def test_no_spelling_of_a_path_leads_to_a_file(site_arena: Arena, site: TestClient) -> None:
    secret = (site_arena.config.data / "token.key").read_bytes()
    for path in (
        "//gradio_api/file=/etc/passwd",
        "/./gradio_api/file=/etc/passwd",
        "/gradio_api//file=/etc/passwd",
        "/gradio_api/%66ile=/etc/passwd",
        "/GRADIO_API/file=/etc/passwd",
        "/file=/etc/passwd",
        f"/file={site_arena.config.data}/token.key",
        f"/gradio_api/file={site_arena.config.data}/token.key",
        f"/static/..%2f..%2f{site_arena.config.data}/token.key",
        "/assets/..%2f..%2f..%2f..%2fetc/passwd",
        "/static/../../../../etc/passwd",
        "/media/..%2f..%2ftoken.key",
        "/media/%2e%2e/token.key",
        "/svelte/..%2f..%2fetc/passwd",
    ):
        reply = site.get(f"http://testserver{path}")
        assert b"root:" not in reply.content, path
        assert secret not in reply.content, path


def test_gradio_pages_still_get_what_they_ask_for() -> None:
    for path in ("/", "/config", "/assets/index.js", "/theme.css", "/gradio_api/queue/join", "/gradio_api/heartbeat/x"):
        assert not is_closed(path), path


def test_gradio_pages_name_no_system_before_the_vote(site_arena: Arena, site: TestClient) -> None:
    for path in ("/", "/config", "/gradio_api/info", "/progress", "/leaderboard"):
        reply = site.get(path)
        for secret in (*SYSTEMS, str(site_arena.config.data)):
            assert secret not in reply.text, path


def test_bodies_that_are_too_large_or_of_unknown_size_are_refused(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"study": "demo"}'

    json = {"content-type": "application/json"}
    for path in ("/api/v1/assignments", "/gradio_api/queue/join"):
        assert client.post(path, content=b" " * (256 * 1024 + 1), headers=json).status_code == 413
        assert client.post(path, content=chunks(), headers=json).status_code == 413
        assert client.post(path, content=b"{}", headers={**json, "content-length": "-1"}).status_code == 413
    deep = b'{"study": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    reply = client.post("/api/v1/assignments", content=deep, headers=json)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid")


def test_bodies_that_are_no_request_are_told_so(client: TestClient) -> None:
    for body in (b"", b"null", b"[]", b"{", b'{"study": NaN}', b"\xff\xfe", b'{"study": "a\\u0000b"}'):
        reply = client.post("/api/v1/assignments", content=body, headers={"content-type": "application/json"})
        assert reply.status_code in (400, 404, 422), reply.text
        assert reply.json()["error"]["code"] in ("invalid", "unknown_study"), body


def test_hostile_names_and_prompts_are_text_in_every_page(arena: Arena, client: TestClient) -> None:
    def spoil(session: Any) -> None:
        session.execute(update(System).where(System.name == "wan-tuned").values(name=EVIL))
        session.execute(update(Prompt).values(text=EVIL))
        study = session.scalar(select(Study))
        study.name = EVIL
        study.policy = {**study.policy, "public_board": True}

    pair = client.post("/api/v1/assignments", json=ASK).json()
    for _ in range(3):
        sent = {
            "vote_id": pair["assignment"],
            "assignment": pair["assignment"],
            "token": pair["token"],
            "answers": {question["name"]: "left" for question in pair["questions"]},
            "watched_ms": {"left": 5000, "right": 5000},
            "comment": EVIL,
        }
        assert client.post("/api/v1/votes", json=sent).status_code == 201
        pair = client.post("/api/v1/assignments", json=ASK).json()
    arena.writer.run(spoil)
    with arena.reading() as session:
        board = make_board(clean_votes(session, find_study(session, "demo")), BoardSettings())
    for page in (
        board_html(board),
        draw_board(arena, "demo", {}),
        draw_board(arena, EVIL, {}),
    ):
        assert "<img" not in page
        assert "<script" not in page
    assert "&lt;img src=x" in board_html(board)
    with TestClient(create_app(arena), cookies=dict(client.cookies)) as site:
        for path in ("/", "/config", "/progress"):
            assert EVIL not in site.get(path).text
    reply = client.post("/api/v1/assignments", json=ASK)  # JSON is no page: the duel's template escapes it
    assert (reply.headers["content-type"], reply.json()["prompt"]) == ("application/json", EVIL)


def test_a_clip_that_is_gone_is_told_and_names_nothing(arena: Arena, client: TestClient) -> None:
    clip = client.post("/api/v1/assignments", json=ASK).json()["left"]["sources"][0]["url"]
    with arena.reading() as session:
        for video in session.scalars(select(Video)):
            for path in video.play_files.values():
                (arena.config.data / path).unlink(missing_ok=True)
    reply = client.get(clip)
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "missing")
    assert "play/" not in reply.text


def test_one_subscriber_of_ipv6_is_one_network(arena: Arena) -> None:
    def hashed(host: str) -> str | None:
        return network_hash(Request({"type": "http", "client": (host, 1), "headers": []}), arena)

    assert hashed("2001:db8:1:2::1") == hashed("2001:db8:1:2:ffff::9")
    assert hashed("2001:db8:1:2::1") != hashed("2001:db8:1:3::1")
    assert hashed("::ffff:192.0.2.1") == hashed("192.0.2.1") != hashed("192.0.2.2")
