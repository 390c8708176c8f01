"""An admin's morning in a browser: log in, open every page, act on it; nothing fails, nothing comes from elsewhere."""

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.arena_state import Arena
from app.database.tables import AuditEntry, Exclusion, Pair, Study, System
from app.web.server import create_app
from rlhf_video.data import sha256_file
from rlhf_video.testing.barcode_clips import write_barcode_clip
from tests.unit.app.pages.conftest import PASSWORD, RATERS

PATIENCE_MS = 90_000


@pytest.fixture
def address(judged: Arena) -> Iterator[str]:
    """Return where the arena is served."""
    server = uvicorn.Server(uvicorn.Config(create_app(judged), host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < deadline and thread.is_alive(), "the server did not start"
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=20)


class Desk:
    """A browser window of an admin; `problems` collects what must never happen."""

    def __init__(self, page: Any, address: str, shots: Path) -> None:
        self.page, self.address, self.shots = page, address, shots
        self.problems: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("console", lambda message: message.type == "error" and self.problems.append(message.text))
        self.under_way: set[Any] = set()
        page.on("request", self._note_request)
        page.on("requestfinished", lambda request: self.under_way.discard(request))
        page.on("requestfailed", lambda request: self.under_way.discard(request))

    def _note_request(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.problems.append(f"external request: {request.url}")
        if "/heartbeat/" not in request.url:  # it stays open as long as the page
            self.under_way.add(request)

    def settle(self) -> None:
        """Wait until nothing has been under way for a second: leaving a page aborts what it still loads."""
        deadline = time.monotonic() + PATIENCE_MS / 1000
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < 1.0:
            assert time.monotonic() < deadline, [request.url for request in self.under_way]
            self.page.wait_for_timeout(50)
            if self.under_way:
                quiet_since = time.monotonic()

    def log_in(self) -> None:
        """Fail once, then succeed."""
        self.page.goto(f"{self.address}/admin/health")
        assert self.page.url == f"{self.address}/admin/login"
        self.page.get_by_label("Password").fill("wrong")
        self.page.get_by_role("button", name="Log in").click()
        self.page.wait_for_selector("[role=alert]:not(:empty)")
        assert len(self.problems) == 1 and "401" in self.problems.pop()  # the browser's own line on the refusal
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Log in").click()
        self.page.wait_for_url(f"{self.address}/admin/")

    def open(self, path: str, words: str) -> None:
        """Open a page and wait for some of its words."""
        self.settle()
        self.page.goto(f"{self.address}/admin/{path}")
        self.sees(words)

    def sees(self, words: str) -> None:
        """Wait until some words are on the page, and nothing is under way."""
        self.page.get_by_text(words).first.wait_for()
        self.page.wait_for_function("!document.querySelector('.pending')")

    def has_chosen(self, study: str) -> None:
        """Wait until a study is chosen on the page."""
        field = self.page.get_by_label("Study", exact=True).first
        field.wait_for()
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while not field.input_value().startswith(study):
            assert time.monotonic() < deadline, field.input_value()
            self.page.wait_for_timeout(50)

    def has_checked(self, label: str) -> None:
        """Wait until a box is checked: what an import draws comes piece by piece."""
        self.page.locator("input:checked").and_(self.page.get_by_label(label)).wait_for(
            state="attached", timeout=PATIENCE_MS
        )

    def press(self, name: str) -> None:
        """Press a button."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def choose(self, label: str, option: str) -> None:
        """Choose in a dropdown."""
        self.page.get_by_label(label, exact=True).click()
        self.page.get_by_role("option", name=option).first.click()

    def shot(self, name: str) -> None:
        """Keep a picture."""
        self.page.screenshot(path=self.shots / f"admin-{name}.png", full_page=True)


@pytest.fixture
def desk(browser: Any, address: str, shots: Path) -> Iterator[Desk]:
    """Return a window; at the end nothing may have gone wrong in it."""
    context = browser.new_context(viewport={"width": 1360, "height": 1000})
    desk = Desk(context.new_page(), address, shots)
    yield desk
    context.close()
    assert desk.problems == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_admin_logs_in_and_works_through_every_page(desk: Desk, judged: Arena) -> None:
    desk.log_in()
    _studies(desk, judged)
    _raters(desk, judged)
    desk.open("rewards", "people prefer it in")
    assert desk.page.locator("video").count() >= 2
    desk.shot("rewards")
    _exports(desk)
    _board(desk)
    desk.open("health", "chain holds")
    desk.press("Verify database, audit log and every clip")
    desk.sees("are as they were written")
    assert desk.page.locator(".admin b b, .admin i").count() == 0  # the note's tags are text
    desk.shot("health")
    _import(desk, judged)
    _public_board(desk, judged)
    desk.open("", "pairs of systems")
    desk.settle()
    desk.page.get_by_role("button", name="Log out").click()
    desk.page.wait_for_url(f"{desk.address}/admin/login")
    desk.page.goto(f"{desk.address}/admin/raters")
    assert desk.page.url == f"{desk.address}/admin/login"


def _studies(desk: Desk, arena: Arena) -> None:
    desk.sees("pairs of systems")
    desk.has_chosen("Which moves better?")
    desk.settle()  # what loads last sets the state
    desk.page.get_by_label("Paused: nobody gets a pair").check()
    desk.press("Set the state")
    desk.sees("'motion' is paused now.")
    with arena.reading() as session:
        assert session.scalars(select(Study.status)).one() == "paused"
        last = session.scalars(select(AuditEntry).order_by(AuditEntry.number.desc()).limit(1)).one()
    assert (last.actor, last.action) == ("admin", "study.status")
    desk.page.get_by_label("Open: raters get its pairs").check()
    desk.press("Set the state")
    desk.sees("'motion' is open now.")
    desk.page.get_by_text("Plan a study: how many votes?").click()
    desk.press("How many votes?")
    desk.sees("Looking once, at the end")
    desk.settle()
    desk.shot("studies")


def _import(desk: Desk, arena: Arena) -> None:
    root = arena.config.import_folder
    assert root is not None
    for number, name in enumerate(("model-y", "model-z")):  # they come while the server runs
        write_generated_folder(root / name, tint=(60 + 90 * number, 90, 140))
    desk.open("", "pairs of systems")
    desk.page.get_by_text("Import the clips of a system").click()
    form = desk.page.locator("#import")
    form.get_by_role("textbox", name=re.compile("^Study")).fill("boats")
    form.get_by_label("Gold pairs").fill("2")
    for folder, told in (
        ("../outside", "does not lie below the import folder"),
        ("model-y", "2 new clips, 0 known ones, 0 new pairs"),
        ("model-z", "2 new clips, 0 known ones, 2 new pairs"),
    ):
        form.get_by_role("textbox", name=re.compile("^System")).fill(Path(folder).name)
        form.get_by_label("Folder", exact=True).fill(folder)
        form.get_by_label("Folder", exact=True).press("Enter")
        desk.press("Import")
        desk.sees(told)
    desk.settle()
    desk.has_chosen("boats")
    desk.has_checked("Open: raters get its pairs")
    desk.shot("import")
    with arena.reading() as session:
        study = session.scalars(select(Study).where(Study.slug == "boats")).one()
        kinds = session.scalars(select(Pair.kind).where(Pair.study_id == study.id)).all()
        names = session.scalars(select(System.name).where(System.study_id == study.id)).all()
    assert (study.status, sorted(names)) == ("open", ["model-y", "model-z"])
    assert (kinds.count("real"), kinds.count("gold")) == (2, 2)


def _public_board(desk: Desk, arena: Arena) -> None:
    def publish(session: Session) -> None:
        for study in session.scalars(select(Study)):
            study.policy = {**study.policy, "public_board": True}

    arena.writer.run(publish)
    desk.open("../leaderboard", "Category")
    desk.settle()
    for study, told in (("Which moves better?", "Who beats whom"), ("boats", "There is no vote on 'overall' yet.")):
        desk.choose("Study", study)
        desk.sees(told)  # a board of one study has no category of another
        desk.settle()
        assert desk.page.get_by_label("Category", exact=True).input_value() == "All prompts"
        if study != "boats":
            desk.choose("Category", "shapes")
            desk.settle()


def write_generated_folder(folder: Path, *, tint: tuple[int, int, int]) -> None:
    """Write two barcode clips and their manifest, as generate.py does."""
    folder.mkdir()
    records = []
    for number in range(2):
        colour = tuple(value + 20 * number for value in tint)
        file = write_barcode_clip(folder / f"{number}.mp4", 12, 12, height=64, width=96, tint=colour)
        records.append({"file": file.name, "prompt": f"a boat {number}", "seed": 1, "sha256": sha256_file(file)})
    (folder / "manifest.json").write_text(json.dumps({"model": folder.name, "clips": records}))


def _raters(desk: Desk, arena: Arena) -> None:
    desk.open("raters", RATERS[0])
    desk.choose("Rater", RATERS[0])
    desk.page.get_by_label("Reason").fill("asks <b>friends</b>")
    desk.press("Leave the votes out")
    desk.sees("left out: asks <b>friends</b>")
    with arena.reading() as session:
        assert (
            session.scalars(select(Exclusion.reason).where(Exclusion.lifted_at.is_(None))).one()
            == "asks <b>friends</b>"
        )
    desk.shot("raters")
    desk.choose("Exclusion", RATERS[0])
    desk.press("Count the votes again")
    desk.sees("These votes count again.")
    desk.sees("counts again")


def _exports(desk: Desk) -> None:
    desk.open("exports", "Systems and where they come from")
    assert desk.page.locator("svg.tree rect").count() == 3
    desk.page.get_by_text("Export votes as training data").click()
    desk.press("Write the export")
    desk.sees("pairs for train")
    desk.sees("intact")
    desk.shot("exports")


def _board(desk: Desk) -> None:
    desk.open("board", "Who beats whom")
    desk.press("Take a snapshot")
    desk.sees("is taken.")
    desk.sees("not yet")
    desk.press("Compute the snapshots again")
    desk.sees("the same")
    desk.shot("board")
