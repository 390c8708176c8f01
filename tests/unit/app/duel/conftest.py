"""A stand-in for the arena's server, barcode clips and a browser, for the tests of the duel's page.

The stand-in keeps the protocol in memory, so that a test can make the server fail; the real one has its own tests.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rlhf_video.testing.barcode_clips import Codec, write_barcode_clip

NUM_FRAMES, FPS, WIDTH, HEIGHT = 24, 12, 320, 192
QUESTIONS = [
    {"name": "overall", "title": "Overall", "hint": "Which clip would you rather have?"},
    {"name": "visual_quality", "title": "Visual quality", "hint": "Sharp, clean, no broken shapes"},
    {"name": "motion_quality", "title": "Motion quality", "hint": "Smooth and natural movement"},
    {"name": "text_alignment", "title": "Match to the prompt", "hint": "Shows what the prompt asks for"},
]
PROMPT = "A red paper boat drifts down a rain gutter past fallen leaves, low camera, soft morning light"
EXPLANATION = "The left clip follows the prompt."
CSP = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "media-src 'self' blob:; connect-src 'self'; img-src 'self' data:; font-src 'self' data:; frame-ancestors 'none'"
)
CODECS: dict[str, Codec] = {".mp4": "h264", ".webm": "vp9"}
PATIENCE_MS = 120_000  # far above what it takes on an idle machine
TYPES = {".mp4": "video/mp4", ".webm": "video/webm"}
ADVANCED = """(before) => [...document.querySelectorAll(".duel video")].every(
  (video, index) => video.getVideoPlaybackQuality().totalVideoFrames > before[index])"""


@pytest.fixture(scope="session")
def barcode_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of blue, green (24 frames) and short (15 frames) clips as mp4 and webm, and a broken pair."""
    folder = tmp_path_factory.mktemp("clips")
    looks = {"blue": (NUM_FRAMES, (38, 70, 110)), "green": (NUM_FRAMES, (40, 92, 74)), "short": (15, (110, 62, 48))}
    for name, (num_frames, tint) in looks.items():
        for suffix, codec in CODECS.items():
            path = folder / f"{name}{suffix}"
            write_barcode_clip(path, num_frames, FPS, height=HEIGHT, width=WIDTH, tint=tint, codec=codec)
    for suffix in TYPES:
        (folder / f"broken{suffix}").write_bytes(b"this is no video" * 64)
    return folder


def problem(code: str, message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}, **more}


@dataclass
class StandIn:
    """What the server remembers; a test reads `votes` and sets the rest."""

    clips: Path
    pairs: list[tuple[str, str]] = field(default_factory=lambda: [("blue", "green"), ("green", "blue")] * 4)
    completion_url: str | None = None
    prompt: str = PROMPT
    min_watch_s: float = 0.5
    kind: str = "vote"
    formats: tuple[str, ...] = (".mp4", ".webm")
    num_failures: int = 0
    """How many votes to answer with 503 before the next is stored."""
    num_lost_answers: int = 0
    """How many votes to store and then answer with 503: the client cannot know."""
    votes: dict[str, dict[str, Any]] = field(default_factory=dict)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    left_behind: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    leases: dict[str, int] = field(default_factory=dict)
    reopened: dict[str, dict[str, Any]] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)

    def lease(self) -> tuple[int, dict[str, Any] | None]:
        open_ones = [name for name in self.leases if name not in self.closed]
        open_ones.sort(key=lambda name: name not in self.reopened)
        if open_ones:
            return 200, self.payload(open_ones[0])
        if len(self.leases) == len(self.pairs):
            return 204, None
        name = f"assignment-{len(self.leases) + 1}"
        self.leases[name] = len(self.leases)
        return 201, self.payload(name)

    def payload(self, name: str) -> dict[str, Any]:
        clips = dict(zip(("left", "right"), self.pairs[self.leases[name]], strict=True))
        sides = {
            side: {
                "sources": [{"url": f"/media/{clip}{end}?{name}", "type": TYPES[end]} for end in self.formats],
                "fps": FPS,
                "num_frames": 15 if clip == "short" else NUM_FRAMES,
                "width": WIDTH,
                "height": HEIGHT,
            }
            for side, clip in clips.items()
        }
        return {
            "assignment": name,
            "token": f"token-of-{name}",
            "study": "demo",
            "prompt": self.prompt,
            "kind": self.kind,
            "questions": QUESTIONS,
            "min_watch_s": self.min_watch_s,
            "expires_at": (datetime.now(UTC) + timedelta(minutes=20)).isoformat(),
            **sides,
            "previous": self.reopened.get(name),
            "undo_until": None,
            "progress": self.progress(),
        }

    def progress(self) -> dict[str, int]:
        return {"voted": len(self.current_votes()), "wanted": len(self.pairs)}

    def current_votes(self) -> list[dict[str, Any]]:
        """Return the vote that counts for each assignment: its highest revision, unless that is withdrawn."""
        latest: dict[str, dict[str, Any]] = {}
        for vote in self.votes.values():
            if vote["revision"] > latest.get(vote["assignment"], {"revision": 0})["revision"]:
                latest[vote["assignment"]] = vote
        return [vote for vote in latest.values() if not vote["withdrawn"]]

    def vote(self, vote: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.attempts.append(vote)
        if self.num_failures > 0:
            self.num_failures -= 1
            return 503, problem("busy", "The database is busy.")
        if vote["token"] != f"token-of-{vote['assignment']}":
            return 403, problem("foreign", "The token belongs to another assignment.")
        known = self.votes.get(vote["vote_id"])
        if known is None:
            taken = [other for other in self.votes.values() if other["assignment"] == vote["assignment"]]
            if vote["revision"] != len(taken) + 1:
                return 409, problem("conflict", "Another vote has this revision.", stored=taken[-1] if taken else None)
            if not vote["withdrawn"] and min(vote["watched_ms"].values()) < 1000 * self.min_watch_s:
                return 422, problem("watched_too_little", "Please watch both clips a little longer.")
            self.store(vote)
        if self.num_lost_answers > 0:
            self.num_lost_answers -= 1
            return 503, problem("busy", "The answer got lost.")
        return (201 if known is None else 200), self.receipt(vote)

    def store(self, vote: dict[str, Any]) -> None:
        self.votes[vote["vote_id"]] = vote
        if vote["withdrawn"]:
            self.closed.discard(vote["assignment"])
            self.reopened[vote["assignment"]] = vote["answers"]
        else:
            self.closed.add(vote["assignment"])
            self.reopened.pop(vote["assignment"], None)

    def receipt(self, vote: dict[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC)
        practice = {
            "is_right": vote["answers"].get("overall") == "left",
            "message": "The left clip follows the prompt.",
        }
        return {
            "vote_id": vote["vote_id"],
            "assignment": vote["assignment"],
            "revision": vote["revision"],
            "stored_at": now.isoformat(),
            "feedback": practice if self.kind == "practice" else None,
            "progress": self.progress(),
            "undo_until": (now + timedelta(seconds=30)).isoformat(),
        }


class StandInServer:
    """The page, the protocol and the clips on one port; `state` is replaced for every test."""

    def __init__(self, state: StandIn) -> None:
        self.state = state
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def app(self) -> Any:
        import gradio as gr
        from fastapi import FastAPI, Request, Response
        from fastapi.responses import FileResponse, JSONResponse

        from app.duel.component import duel_player

        app = FastAPI()

        @app.middleware("http")
        async def add_policy(request: Request, call_next: Callable[[Request], Any]) -> Any:
            response = await call_next(request)
            response.headers["Content-Security-Policy"] = CSP
            return response

        @app.get("/api/v1/session")
        def session() -> dict[str, Any]:
            url = self.state.completion_url
            study = {"slug": "demo", "name": "Demo", "questions": [], "is_open": True, "completion_url": url}
            return {"rater": "rater-1", "consented": True, "practised": True, "studies": [study], "csrf": None}

        @app.post("/api/v1/assignments")
        async def assignments() -> Response:
            status, body = self.state.lease()
            return Response(status_code=204) if body is None else JSONResponse(body, status)

        @app.post("/api/v1/votes")
        async def votes(request: Request) -> JSONResponse:
            status, body = self.state.vote(await request.json())
            return JSONResponse(body, status)

        @app.post("/api/v1/assignments/{name}/{kind}")
        async def leave(name: str, kind: str, request: Request) -> dict[str, Any]:
            self.state.left_behind.append((name, kind, await request.json()))
            self.state.closed.add(name)
            return {}

        @app.get("/media/{name}")
        def media(name: str) -> FileResponse:
            return FileResponse(self.state.clips / name, media_type=TYPES[Path(name).suffix])

        with gr.Blocks(title="Duel") as blocks:
            duel_player()
        return gr.mount_gradio_app(app, blocks, path="/", run_history=False, footer_links=[])

    def __enter__(self) -> "StandInServer":
        import uvicorn

        config = uvicorn.Config(self.app(), host="127.0.0.1", port=self.port, log_level="warning")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        deadline = time.monotonic() + 60
        while not self.server.started:
            assert time.monotonic() < deadline and self.thread.is_alive(), "the stand-in server did not start"
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(timeout=10)


@pytest.fixture(scope="session")
def duel_server(barcode_clips: Path) -> Iterator[StandInServer]:
    with StandInServer(StandIn(barcode_clips)) as server:
        yield server


@pytest.fixture
def stand_in(duel_server: StandInServer, barcode_clips: Path) -> StandIn:
    """Return the state of the stand-in, fresh for this test."""
    duel_server.state = StandIn(barcode_clips)
    return duel_server.state


READ_FRAMES = """() => {
  const read = (canvas) => {
    const context = canvas.getContext('2d');
    const grey = (column, row) => {
      const [x, y] = [(column + 0.5) * canvas.width / 8, (row + 0.5) * canvas.height / 8];
      return context.getImageData(Math.floor(x), Math.floor(y), 1, 1).data[0];
    };
    let index = 0;
    for (let bit = 0; bit < 8; bit += 1) index = 2 * index + (grey(bit, 0) > grey(bit, 1) ? 1 : 0);
    return index;
  };
  return [...document.querySelectorAll('.duel canvas')].map(read);
}"""

SAMPLE_FRAMES = """async (milliseconds) => {
  const samples = [];
  for (const start = performance.now(); performance.now() - start < milliseconds; ) {
    await new Promise(requestAnimationFrame);
    samples.push((%s)());
  }
  return samples;
}"""


class DuelPage:
    """The duel in a browser, in the words of a rater; `problems` collects what must never happen."""

    DRAFT = "rlhf-video.duel.rater-1.draft"

    def __init__(self, context: Any, server: StandInServer, shots: Path) -> None:
        self.server, self.shots = server, shots
        self.problems: list[str] = []
        self.expected_statuses: set[int] = set()
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("console", self._note_console)
        self.page.on("request", self._note_request)

    def _note_console(self, message: Any) -> None:
        is_expected = any(f"status of {status}" in message.text for status in self.expected_statuses)
        if message.type == "error" and not is_expected:
            self.problems.append(f"console: {message.text} {message.location}")

    def _note_request(self, request: Any) -> None:
        if not request.url.startswith((self.server.url, "data:", "blob:")):
            self.problems.append(f"external request: {request.url}")

    def open(self) -> "DuelPage":
        self.page.goto(self.server.url)
        self.page.wait_for_selector(".duel[data-state=duel]:not([data-waiting])")
        return self

    def wait_for(self, state: str, assignment: str | None = None) -> None:
        which = f"[data-assignment='{assignment}']" if assignment else ""
        ready = ":not([data-waiting])" if state == "duel" else ""
        self.page.wait_for_selector(f".duel[data-state={state}]{which}{ready}")

    def wait_until_watched(self) -> None:
        self.page.wait_for_selector(".duel[data-watched]")

    def wait_until_both_play(self) -> None:
        """Wait until each clip has put further frames on the screen."""
        before = self.state("getVideoPlaybackQuality().totalVideoFrames")
        self.page.wait_for_function(ADVANCED, arg=before)

    def frames(self) -> list[int]:
        """Return the frame numbers that the two clips show, left and right, read from their pixels."""
        return self.page.evaluate(READ_FRAMES)

    def sample_until(self, has_shown: Callable[[list[list[int]]], bool]) -> list[list[int]]:
        """Return what `frames` returns at every refresh of the screen, until that has shown something."""
        samples: list[list[int]] = []
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while not (samples and has_shown(samples)):
            assert time.monotonic() < deadline, samples
            samples += self.page.evaluate(SAMPLE_FRAMES % READ_FRAMES, 2000)
        return samples

    def settled_frame(self) -> int:
        """Wait until both clips stand still on the frame that the page names, and return it."""
        self.page.wait_for_function(f"""() => {{
          const named = parseInt(document.querySelector(".duel [data-el=frame]").textContent) - 1;
          const isMoving = [...document.querySelectorAll(".duel video")].some((video) => video.seeking);
          return !isMoving && ({READ_FRAMES})().every((frame) => frame === named);
        }}""")
        return int(self.text("frame").split(" / ")[0]) - 1

    def draft(self) -> dict[str, Any]:
        return self.page.evaluate(f"JSON.parse(localStorage.getItem('{self.DRAFT}'))")

    def state(self, expression: str) -> Any:
        """Return a property of both videos, for example "currentTime"."""
        return self.page.evaluate(f"[...document.querySelectorAll('.duel video')].map((video) => video.{expression})")

    def text(self, name: str) -> str:
        return self.page.locator(f"[data-el={name}]").inner_text()

    def act(self, name: str) -> Any:
        return self.page.locator(f"[data-act={name}]").first

    def choose(self, question: str, value: str) -> None:
        self.page.locator(f"[data-question={question}] [data-value={value}]").click()

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def shot(self, name: str) -> None:
        self.page.screenshot(path=self.shots / f"{name}.png")


@pytest.fixture
def open_duel(
    browser: Any, duel_server: StandInServer, stand_in: StandIn, shots: Path
) -> Iterator[Callable[..., DuelPage]]:
    """Return a function that opens the page as a new visitor; at the end, nothing may have gone wrong in any page."""
    contexts, pages = [], []

    def open_page(**options: Any) -> DuelPage:
        contexts.append(browser.new_context(**({"viewport": {"width": 1280, "height": 860}} | options)))
        pages.append(DuelPage(contexts[-1], duel_server, shots))
        return pages[-1].open()

    yield open_page
    for context in contexts:
        context.close()
    assert [problem for page in pages for problem in page.problems] == []
