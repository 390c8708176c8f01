"""The whole arena: a real server process, clips that were imported, and raters in Chromium."""

import contextlib
import itertools
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.arena_config import ArenaConfig
from app.arena_state import open_arena
from app.database.audit_log import first_broken_entry
from app.database.tables import Assignment, System, Video, Vote
from app.studies.gold import make_gold_pairs
from app.studies.importing import import_folder
from app.studies.media import MediaPolicy
from app.studies.study import StudyPolicy, create_study
from rlhf_video.data import sha256_file
from rlhf_video.testing.barcode_clips import READ_BARCODE_JS, write_barcode_clip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SYSTEMS = {"zephyrine-xl-base": (38, 70, 110), "quokka-lora-step-900": (40, 92, 74)}
"""Name -> tint of its clips; nobody may read these names before a vote."""
NUM_PROMPTS, NUM_FRAMES, FPS = 5, 24, 12
WAIT_MS = 120_000  # far above what it takes on an idle machine
DESKTOP = {"viewport": {"width": 1280, "height": 860}}
PHONE = {
    "viewport": {"width": 412, "height": 839},
    "device_scale_factor": 2.625,
    "is_mobile": True,
    "has_touch": True,
    "user_agent": "Mozilla/5.0 (Linux; Android 14; Pixel 7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156 Mobile",
}
READ_SHOWN = f"""() => [...document.querySelectorAll('.duel canvas')].map((canvas) => {{
  Object.assign(canvas, {{ videoWidth: canvas.width, videoHeight: canvas.height }});
  return ({READ_BARCODE_JS})(canvas);
}})"""
ADVANCED = """(before) => [...document.querySelectorAll(".duel video")].every(
  (video, index) => video.getVideoPlaybackQuality().totalVideoFrames > before[index])"""
SETTLED = f"""() => {{
  const named = parseInt(document.querySelector(".duel [data-el=frame]").textContent) - 1;
  const isMoving = [...document.querySelectorAll(".duel video")].some((video) => video.seeking);
  return !isMoving && ({READ_SHOWN})().every((frame) => frame === named);
}}"""
"""Whether both clips stand still on the frame that the page names."""
SAMPLE_SHOWN = f"""async (milliseconds) => {{
  const samples = [];
  for (const start = performance.now(); performance.now() - start < milliseconds; ) {{
    await new Promise(requestAnimationFrame);
    samples.push(({READ_SHOWN})());
  }}
  return samples;
}}"""


@dataclass
class Site:
    """A served arena of two systems."""

    config: ArenaConfig
    start: Callable[[ArenaConfig], Any]
    server: Any

    @property
    def url(self) -> str:
        return str(self.server.url)

    def restart(self) -> None:
        self.server = self.start(self.config)

    def votes(self, assignment: str | None = None) -> list[Vote]:
        """Return the votes of one assignment, or all."""
        wanted = select(Vote).order_by(Vote.stored_at)
        with open_arena(self.config) as arena, arena.reading() as session:
            return list(session.scalars(wanted.where(Vote.assignment_id == assignment) if assignment else wanted))

    def secrets(self) -> list[str]:
        """Return every word that would tell where a clip is from."""
        with open_arena(self.config) as arena, arena.reading() as session:
            videos = session.scalars(select(Video)).all()
            stems = {Path(path).stem for video in videos for path in (video.source_path, *video.play_files.values())}
            ids = [*session.scalars(select(System.id)), *(video.id for video in videos)]
        return [*SYSTEMS, *stems, *ids, str(self.config.data)]


def write_folder(folder: Path, tint: tuple[int, int, int]) -> Path:
    """Write barcode clips and their manifest, as generate.py does."""
    folder.mkdir(parents=True)
    records = []
    for number in range(NUM_PROMPTS):
        colour = tuple(min(255, value + 4 * number) for value in tint)
        file = write_barcode_clip(folder / f"{number}.mp4", NUM_FRAMES, FPS, height=192, width=320, tint=colour)
        prompt = f"A paper boat number {number} drifts to the right"
        records.append({"file": file.name, "prompt": prompt, "seed": number, "sha256": sha256_file(file)})
    (folder / "manifest.json").write_text(json.dumps({"model": folder.name, "clips": records}))
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, start_server: Callable[[ArenaConfig], Any]) -> Site:
    """Return a server process with a study of 5 pairs and one practice pair, each vote wanted from many raters."""
    folder = tmp_path_factory.mktemp("site")
    config = ArenaConfig(data=folder / "arena")
    policy = StudyPolicy(
        min_watch_s=0.5,
        practice=1,
        gold_rate=0.0,
        repeat_rate=0.0,
        overlap=20,
        public_board=True,
        media=MediaPolicy(height=192, width=320),
    )
    with open_arena(config, create=True) as arena:
        arena.writer.run(lambda session: create_study(session, slug="boats", name="Boats", policy=policy) and None)
        for name, tint in SYSTEMS.items():
            import_folder(arena, "boats", name, write_folder(folder / name, tint))
        make_gold_pairs(arena, "boats", count=1, kind="practice")
    server = start_server(config)
    return Site(replace(config, port=int(server.url.rpartition(":")[2])), start_server, server)


class RaterPage:
    """The arena in one browser; `problems` collects what must never happen."""

    def __init__(self, context: Any, site: Site, shots: Path) -> None:
        self.context, self.site, self.shots = context, site, shots
        self.problems: list[str] = []
        self.responses: list[Any] = []
        self.is_server_down = False
        self.page = context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("console", self._note_console)
        self.page.on("request", self._note_request)
        self.page.on("response", lambda response: self.responses.append(response))

    def _note_console(self, message: Any) -> None:
        is_expected = self.is_server_down and "Failed to load resource" in message.text
        if message.type == "error" and not is_expected:
            self.problems.append(f"console: {message.text} {message.location}")

    def _note_request(self, request: Any) -> None:
        if not request.url.startswith((self.site.url, "data:", "blob:")):
            self.problems.append(f"external request: {request.url}")

    def open(self) -> "RaterPage":
        self.page.goto(self.site.url)
        self.page.get_by_role("button", name="I agree").wait_for()
        return self

    def wait_for_pair(self, after: str = "") -> str:
        """Wait until a pair is on the stage that is not the given one, and return its assignment."""
        other = f":not([data-assignment='{after}'])" if after else ""
        self.page.wait_for_selector(f".duel[data-state=duel][data-assignment]{other}:not([data-waiting])")
        return str(self.page.locator(".duel").get_attribute("data-assignment"))

    def wait_until_watched(self) -> None:
        self.page.wait_for_selector(".duel[data-watched]")

    def wait_until_both_play(self) -> None:
        """Wait until each clip has put further frames on the screen."""
        before = self.videos("getVideoPlaybackQuality().totalVideoFrames")
        self.page.wait_for_function(ADVANCED, arg=before)

    def settled_frame(self) -> int:
        """Wait until both clips stand still on the frame that the page names, and return it."""
        self.page.wait_for_function(SETTLED)
        return int(self.page.locator("[data-el=frame]").inner_text().split("/")[0]) - 1

    def videos(self, expression: str) -> list[Any]:
        """Return a property of both videos, for example "currentTime"."""
        return list(
            self.page.evaluate(f"[...document.querySelectorAll('.duel video')].map((video) => video.{expression})")
        )

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def choose(self, how: str, **answers: str) -> None:
        for question, value in answers.items():
            getattr(self.page.locator(f"[data-question={question}] [data-value={value}]"), how)()

    def shot(self, name: str) -> None:
        self.page.screenshot(path=self.shots / f"arena-{name}.png")

    def practise(self) -> str:
        """Answer the practice pair by keys and return the first real assignment."""
        practice = self.wait_for_pair()
        self.wait_until_watched()
        self.keys("1", "1", "1", "1", "Enter")
        self.page.wait_for_selector(".duel[data-state=message]")
        self.keys("Enter")
        return self.wait_for_pair(after=practice)


@pytest.fixture
def open_arena_page(browser: Any, site: Site, shots: Path) -> Iterator[Callable[..., RaterPage]]:
    """Return a function that opens the arena as a new rater; at the end, nothing may have gone wrong in any page."""
    contexts, pages = [], []

    def open_page(**options: Any) -> RaterPage:
        contexts.append(browser.new_context(**(options or DESKTOP)))
        pages.append(RaterPage(contexts[-1], site, shots))
        return pages[-1].open()

    yield open_page
    for context in contexts:
        context.close()
    assert [problem for page in pages for problem in page.problems] == []


def test_duel_by_mouse_from_consent_to_leaderboard(open_arena_page: Callable[..., RaterPage], site: Site) -> None:
    rater = open_arena_page()
    assert not rater.page.locator(".duel").is_visible()
    rater.shot("consent")
    rater.page.get_by_role("button", name="I agree").click()
    practice = rater.wait_for_pair()
    assert "practice" in rater.page.locator("[data-el=kind]").inner_text().lower()
    rater.wait_until_watched()
    rater.choose("click", visual_quality="left", motion_quality="same", text_alignment="same", overall="left")
    rater.shot("practice")
    rater.page.get_by_role("button", name=re.compile("^Submit")).click()
    rater.page.get_by_role("heading", name=re.compile("^(Right|Look again)$")).wait_for()
    rater.shot("feedback")
    rater.page.get_by_role("button", name="Next pair").click()

    assignment = rater.wait_for_pair(after=practice)
    rater.wait_until_both_play()
    rater.wait_until_watched()
    rater.choose("click", visual_quality="left", motion_quality="same", text_alignment="right", overall="left")
    rater.shot("duel")
    rater.page.get_by_role("button", name=re.compile("^Submit")).click()
    rater.wait_for_pair(after=assignment)
    (vote,) = site.votes(assignment)
    with open_arena(site.config) as arena, arena.reading() as session:
        left, right = ("A", "B") if session.get_one(Assignment, assignment).a_is_left else ("B", "A")
    expected = {"visual_quality": left, "motion_quality": "tie", "text_alignment": right, "overall": left}
    assert vote.answers == expected

    rater.page.get_by_role("link", name="My progress").click()
    rater.page.get_by_text(f"1 of {NUM_PROMPTS} pairs judged").wait_for()
    rater.shot("progress")
    rater.page.get_by_role("link", name="Leaderboard").click()
    rater.page.locator(".board, p", has_text=re.compile("system|vote|judged", re.IGNORECASE)).first.wait_for()
    rater.shot("leaderboard")


def test_another_study_asks_for_its_own_consent(
    open_arena_page: Callable[..., RaterPage], site: Site, tmp_path: Path
) -> None:
    policy = StudyPolicy(practice=0, min_watch_s=0.5, consent_version="2", media=MediaPolicy(height=192, width=320))
    with open_arena(site.config) as arena:
        arena.writer.run(lambda session: create_study(session, slug="more", name="More", policy=policy) and None)
        for name, tint in SYSTEMS.items():
            import_folder(arena, "more", name, write_folder(tmp_path / name, tint))
    rater = open_arena_page()
    agree = rater.page.get_by_role("button", name="I agree")
    agree.click()
    first = rater.wait_for_pair()
    rater.page.goto(f"{site.url}/?study=more")
    agree.wait_for()
    assert not rater.page.locator(".duel").is_visible()
    agree.click()
    rater.wait_for_pair(after=first)
    rater.page.goto(site.url)
    assert rater.wait_for_pair() == first
    assert not agree.is_visible()


def test_duel_by_keyboard_alone(open_arena_page: Callable[..., RaterPage], site: Site) -> None:
    rater = open_arena_page(**DESKTOP, color_scheme="dark")
    for _ in range(40):
        rater.keys("Tab")
        if rater.page.evaluate("document.activeElement.matches('.agree')"):
            break
    rater.keys("Enter")
    assignment = rater.practise()
    rater.wait_until_watched()
    rater.keys(" ", ".", ".", ",", "1", "3", "2", "1")
    rater.shot("keyboard-dark")
    rater.keys("Enter")
    rater.wait_for_pair(after=assignment)
    (vote,) = site.votes(assignment)
    assert sorted(vote.answers.values()).count("tie") == 1 and len(vote.answers) == 4
    assert vote.telemetry["steps"] == 3
    rater.keys("z")
    assert rater.wait_for_pair() == assignment
    rater.page.locator(".duel [role=radio][aria-checked=true]").first.wait_for()
    assert [(vote.revision, vote.withdrawn) for vote in site.votes(assignment)] == [(0, False), (1, True)]


def test_duel_on_a_phone(open_arena_page: Callable[..., RaterPage], site: Site) -> None:
    rater = open_arena_page(**PHONE)
    rater.shot("phone-consent")
    rater.page.get_by_role("button", name="I agree").tap()
    assignment = rater.practise()
    rater.wait_until_watched()
    left, right = (rater.page.locator(f".clip[data-side={side}] .screen").bounding_box() for side in ("left", "right"))
    assert right["y"] >= left["y"] + left["height"]  # above each other
    assert min(box["x"] for box in (left, right)) >= 0
    assert max(box["x"] + box["width"] for box in (left, right)) <= 412
    assert rater.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    rater.choose("tap", visual_quality="right", motion_quality="right", text_alignment="same", overall="right")
    rater.shot("phone")
    rater.page.get_by_role("button", name=re.compile("^Submit")).tap()
    rater.wait_for_pair(after=assignment)
    assert len(site.votes(assignment)) == 1


def test_clips_show_the_same_frame_after_steps_and_over_loops(open_arena_page: Callable[..., RaterPage]) -> None:
    rater = open_arena_page()
    rater.page.get_by_role("button", name="I agree").click()
    rater.practise()
    frames: list[int] = []
    while len(set(frames)) <= NUM_FRAMES // 3 or not any(now < was for was, now in itertools.pairwise(frames)):
        samples = rater.page.evaluate(SAMPLE_SHOWN, 2000)  # until it went round; the test's time limit ends it
        assert [(left, right) for left, right in samples if left != right] == []
        frames += [left for left, _ in samples if left is not None]
    rater.keys("r", " ")
    rater.page.wait_for_selector(".duel:not([data-playing])")
    draw = random.Random(0)
    frame = rater.settled_frame()
    for _ in range(10):
        for key in draw.choices([".", ","], weights=[3, 1], k=draw.randint(1, 4)):
            rater.keys(key)
            frame = min(max(frame + (1 if key == "." else -1), 0), NUM_FRAMES - 1)
        assert rater.settled_frame() == frame


def test_reload_resumes_the_same_pair(open_arena_page: Callable[..., RaterPage]) -> None:
    rater = open_arena_page()
    rater.page.get_by_role("button", name="I agree").click()
    assignment = rater.practise()
    rater.wait_until_watched()
    rater.keys("1", "2")
    prompt = rater.page.locator("[data-el=prompt]").inner_text()
    rater.page.reload()
    assert rater.wait_for_pair() == assignment
    assert rater.page.locator("[data-el=prompt]").inner_text() == prompt
    assert rater.page.locator(".duel [role=radio][aria-checked=true]").count() == 2


@pytest.mark.parametrize("is_stored", [True, False], ids=["after the commit", "before the answer"])
def test_server_killed_in_the_middle_of_a_vote_ends_with_one_row(
    open_arena_page: Callable[..., RaterPage], site: Site, is_stored: bool
) -> None:
    rater = open_arena_page()
    rater.page.get_by_role("button", name="I agree").click()
    assignment = rater.practise()
    rater.wait_until_watched()

    def kill(route: Any) -> None:
        rater.is_server_down = True
        if is_stored:
            assert route.fetch().status == 201  # committed; the browser will not hear of it
        site.server.kill()
        route.abort() if is_stored else route.continue_()

    rater.page.route("**/api/v1/votes", kill, times=1)
    rater.keys("1", "1", "1", "1", "Enter")
    rater.page.wait_for_selector(".banner:not([hidden])")
    rater.shot(f"server-away-{is_stored}")
    assert len(site.votes(assignment)) == int(is_stored)
    site.restart()
    rater.wait_for_pair(after=assignment)
    (vote,) = site.votes(assignment)
    assert set(vote.answers.values()) in ({"A"}, {"B"})
    with open_arena(site.config) as arena, arena.reading() as session:
        assert first_broken_entry(session) is None


def test_no_byte_before_the_vote_names_a_system(open_arena_page: Callable[..., RaterPage], site: Site) -> None:
    rater = open_arena_page()
    rater.page.get_by_role("button", name="I agree").click()
    rater.practise()
    rater.wait_until_watched()
    assert site.votes()  # others have voted: the page must be silent all the same
    seen = []
    playwright_error = pytest.importorskip("playwright.sync_api").Error
    for response in rater.responses:
        if response.request.method == "GET" and response.status < 300:
            again = rater.context.request.get(response.url)  # whole, where the browser took ranges
            seen.append((response.url, {**response.all_headers(), **again.headers}, again.body()))
        elif response.status not in (204, 304):
            body = b""
            with contextlib.suppress(playwright_error):  # the browser forgets bodies of pages that it has left
                body = response.body()
            seen.append((response.url, response.all_headers(), body))
    for path in ("/config", "/gradio_api/info", "/gradio_api/app_id", "/theme.css", "/health", "/api/v1/session"):
        again = rater.context.request.get(f"{site.url}{path}")
        seen.append((path, again.headers, again.body()))
    paths = [url for url, _, _ in seen]
    assert any("/media/" in path for path in paths) and any("/api/v1/assignments" in path for path in paths)
    assert b'"components"' in next(body for url, _, body in seen if url == "/config")
    secrets = site.secrets()
    assert len(secrets) > 40
    for url, headers, body in seen:
        assert "/media/" not in url or "last-modified" not in headers, url  # clips come in one system at a time
        text = f"{url} {headers}".encode() + body
        assert [word for word in secrets if word.encode() in text] == [], url
    assert rater.page.evaluate("document.documentElement.outerHTML").count("zephyrine") == 0
