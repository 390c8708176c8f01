"""Nobody but an admin gets anything from /admin, and raters' pages name no system."""

import json
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.arena_state import Arena
from app.database.tables import Video
from app.web.cookies import ADMIN_COOKIE
from app.web.server import create_app
from tests.unit.app.conftest import ORIGIN
from tests.unit.app.pages.conftest import LINE, PASSWORD

CLOSED = (
    "/admin",
    "/admin/",
    "/admin/config",
    "/admin/raters",
    "/admin/health",
    "/admin/theme.css",
    "/admin/gradio_api/info",
    "/admin/gradio_api/startup-events",
    "/admin/gradio_api/heartbeat/x",
    "/admin/gradio_api/queue/data",
    f"/admin/clips/{'0' * 32}",
)
POSTS = (
    "/admin/gradio_api/queue/join",
    "/admin/gradio_api/upload",
    "/admin/gradio_api/component_server",
)


@pytest.fixture(scope="module")
def visitor(judged: Arena) -> Iterator[TestClient]:
    """Return a browser of nobody."""
    with TestClient(create_app(judged), headers={"origin": ORIGIN}, follow_redirects=False) as client:
        yield client


@pytest.fixture(scope="module")
def cookie(visitor: TestClient) -> str:
    """Return an admin's cookie; logging in is limited, so all tests share it."""
    assert visitor.post("/api/v1/admin/login", json={"password": PASSWORD}).status_code == 200
    cookie = visitor.cookies[ADMIN_COOKIE]
    visitor.cookies.clear()
    return cookie


@pytest.fixture
def admin(visitor: TestClient, cookie: str) -> Iterator[TestClient]:
    """Return the browser while it is logged in."""
    visitor.cookies.set(ADMIN_COOKIE, cookie)
    yield visitor
    visitor.cookies.clear()


@pytest.mark.parametrize("path", CLOSED)
def test_nobody_gets_anything_without_a_login(visitor: TestClient, path: str) -> None:
    refused = visitor.get(path)
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "not_admin"
    sent_away = visitor.get(path, headers={"accept": "text/html"})
    assert (sent_away.status_code, sent_away.headers["location"]) == (303, "/admin/login")
    assert sent_away.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", POSTS)
def test_nobody_does_anything_without_a_login(visitor: TestClient, path: str) -> None:
    assert visitor.post(path, json={}, headers={"accept": "text/html"}).status_code in (401, 404)


def test_a_forged_cookie_opens_nothing(visitor: TestClient, judged: Arena) -> None:
    for cookie in (
        "",
        "admin",
        judged.signer.sign("vote", "admin", lasts_s=60),
        judged.signer.sign("admin", lasts_s=60),
    ):
        assert visitor.get("/admin/config", headers={"cookie": f"arena_admin={cookie}"}).status_code == 401


def test_an_admin_gets_the_pages_and_the_wrong_password_does_not(visitor: TestClient, admin: TestClient) -> None:
    assert admin.get("/admin").headers["location"] == "/admin/"
    assert admin.get("/admin/").status_code == 200
    config = admin.get("/admin/config").json()
    assert {name for _, name, *_ in config["pages"]} >= {"Raters", "Rewards", "Leaderboard"}
    admin.cookies.clear()
    assert visitor.post("/api/v1/admin/login", json={"password": "wrong"}).status_code == 401
    assert visitor.get("/admin/config").status_code == 401


def test_files_and_uploads_of_gradio_are_closed_to_everyone(admin: TestClient) -> None:
    assert admin.get("/admin/gradio_api/file=/etc/hostname").status_code == 404
    assert admin.post("/admin/gradio_api/upload", content=b"x").status_code == 404


def test_admins_see_clips_and_an_unknown_one_is_not_found(admin: TestClient, judged: Arena) -> None:
    with judged.reading() as session:
        video = session.scalars(select(Video.id).limit(1)).one()
    clip = admin.get(f"/admin/clips/{video}", headers={"range": "bytes=0-99"})
    assert (clip.status_code, clip.headers["content-type"], len(clip.content)) == (206, "video/mp4", 100)
    assert admin.get(f"/admin/clips/{'0' * 32}").status_code == 404


def test_another_site_cannot_act_for_an_admin(admin: TestClient) -> None:
    foreign = {"origin": "https://elsewhere.example"}
    assert admin.post("/admin/gradio_api/queue/join", json={}, headers=foreign).status_code == 403


def test_no_page_configuration_names_a_system_or_a_function(visitor: TestClient, admin: TestClient) -> None:
    public = visitor.get("/config").text
    mine = admin.get("/admin/config").text
    for name in (*LINE, "hps_v2"):
        assert json.dumps(name) not in public
        assert json.dumps(name) not in mine  # they come by events, which the gate guards too
    assert all(each["api_visibility"] == "private" for each in admin.get("/admin/config").json()["dependencies"])
