"""An arena with two systems and a few pairs, on SQLite, and on PostgreSQL where it is installed."""

import contextlib
import hashlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("fastapi", reason="the arena needs its extra: pip install 'rlhf-video[arena]'")
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.arena_config import ArenaConfig
from app.arena_state import Arena, open_arena
from app.database.engine import open_engine
from app.database.tables import Pair, Prompt, Study, System, Video
from app.studies.study import StudyPolicy, create_study
from app.web.server import create_api
from rlhf_video.data.files import sha256_file
from rlhf_video.data.video import write_video

ROOT = Path(__file__).resolve().parents[3]
ORIGIN = "http://testserver"
SYSTEMS = ("wan-plain", "wan-tuned")
on_both_databases = pytest.mark.parametrize(
    "config", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)
"""For tests of what a database does by itself: locks, order of commits, constraints, times, JSON."""


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL server of this test run, on a socket in a folder of its own."""
    initdb = shutil.which("initdb") or next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
    if initdb is None:
        pytest.skip("needs PostgreSQL (apt install postgresql)")
    as_user: list[str] = []
    if os.getuid() == 0:  # PostgreSQL refuses root
        if not shutil.which("runuser"):
            pytest.skip("PostgreSQL refuses root, and there is no runuser to become somebody else")
        as_user = ["runuser", "-u", "postgres", "--"]
    # Not below pytest's own folder: every other test run that starts shuts that one to everybody but root.
    with tempfile.TemporaryDirectory(prefix="arena-postgres-") as name:
        folder, program = Path(name), Path(initdb).parent
        if as_user:
            os.chown(folder, pwd.getpwnam("postgres").pw_uid, -1)
        quiet = {"check": True, "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        control = [*as_user, program / "pg_ctl", "-D", folder / "data"]
        subprocess.run([*as_user, initdb, "-D", folder / "data", "-U", "arena", "-A", "trust", "--no-sync"], **quiet)
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        subprocess.run([*control, "-w", "-l", folder / "log", "-o", options, "start"], **quiet)
        yield f"postgresql+psycopg://arena@/postgres?host={folder}"
        subprocess.run([*control, "-m", "immediate", "stop"], **quiet)


@pytest.fixture
def config(request: pytest.FixtureRequest, tmp_path: Path) -> ArenaConfig:
    """Return where a new arena shall be: on SQLite, with `on_both_databases` on PostgreSQL too."""
    url = None
    if getattr(request, "param", "sqlite") == "postgresql":
        url = request.getfixturevalue("postgres")
        with open_engine(url).begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
    return ArenaConfig(data=tmp_path / "arena", database_url=url)


@pytest.fixture
def arena(config: ArenaConfig) -> Iterator[Arena]:
    """Return an open arena with the study "demo": 4 prompts, two systems."""
    with open_arena(config, create=True) as arena:
        arena.writer.run(lambda session: make_study(session, config.data, "demo", prompts=4, systems=SYSTEMS))
        yield arena


@pytest.fixture
def client(arena: Arena) -> Iterator[TestClient]:
    """Return a browser of one rater who has consented; there are no pages, which no test of the API asks for."""
    with TestClient(create_api(arena), headers={"origin": ORIGIN}) as client:
        assert client.post("/api/v1/consent", json={"version": "1"}).status_code == 200
        yield client


@pytest.fixture(name="make_study")
def make_study_fixture() -> Callable[..., Study]:
    """Return `make_study`, for tests whose arena is not that of the fixture."""
    return make_study


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Return Chromium: RLHF_VIDEO_CHROMIUM, or the one in the path (Playwright's own build cannot decode H.264)."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = os.environ.get("RLHF_VIDEO_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium, or name one in RLHF_VIDEO_CHROMIUM")
    options = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--autoplay-policy=no-user-gesture-required",
    ]
    with playwright.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=program, headless=True, args=options)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the screenshots: RLHF_VIDEO_SCREENSHOTS, or one of pytest's temporary folders."""
    folder = os.environ.get("RLHF_VIDEO_SCREENSHOTS")
    path = Path(folder) if folder else tmp_path_factory.mktemp("screenshots")
    path.mkdir(parents=True, exist_ok=True)
    return path


@dataclass
class ServerProcess:
    """An arena's server as its own process."""

    url: str
    process: "subprocess.Popen[bytes]"

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def start_server() -> Iterator[Callable[[ArenaConfig], ServerProcess]]:
    """Return a function that serves an arena in a process until the test ends; its port is the config's, or any."""
    servers = []

    def start(config: ArenaConfig) -> ServerProcess:
        port = config.port
        if port == ArenaConfig.port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
        command = [sys.executable, ROOT / "app" / "arena.py", "serve", "--data", config.data, "--set", f"port={port}"]
        server = ServerProcess(f"http://127.0.0.1:{port}", subprocess.Popen(command, cwd=ROOT))
        servers.append(server)
        deadline = time.monotonic() + 600  # it takes seconds; a busy machine fails no one
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{server.url}/health", timeout=60):
                return server
            assert server.process.poll() is None and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.1)

    yield start
    for server in servers:
        server.kill()


def make_study(
    session: Session,
    data: Path,
    slug: str,
    *,
    prompts: int,
    systems: Sequence[str] = SYSTEMS,
    **policy: Any,
) -> Study:
    """Store a study with tiny clips: no waiting, no practice, no gold unless asked for."""
    settings = {"min_watch_s": 0.0, "practice": 0, "gold_rate": 0.0, "repeat_rate": 0.0, **policy}
    study = create_study(session, slug=slug, name=slug, policy=StudyPolicy(**settings))
    study.status = "open"
    rows = [System(study_id=study.id, name=name) for name in systems]
    session.add_all(rows)
    session.flush()
    for number in range(prompts):
        words = f"{slug} prompt {number}"
        prompt = Prompt(study_id=study.id, text=words, text_sha256=hashlib.sha256(words.encode()).hexdigest())
        session.add(prompt)
        session.flush()
        videos = [add_video(session, data, system, prompt, number) for system in rows]
        for index, a in enumerate(videos):
            for b in videos[index + 1 :]:
                first, second = sorted((a.id, b.id))
                session.add(Pair(study_id=study.id, prompt_id=prompt.id, a_id=first, b_id=second, kind="real"))
    session.flush()
    return study


def add_video(session: Session, data: Path, system: System, prompt: Prompt, number: int) -> Video:
    """Store one clip of 8 frames; its file is named by a hash, as an import names it."""
    digest = hashlib.sha256(f"{system.name}{prompt.text}".encode()).hexdigest()
    new = data / "play" / "new.mp4"
    new.parent.mkdir(parents=True, exist_ok=True)
    write_video(new, torch.full((8, 3, 16, 16), (number * 37 % 255) / 255), fps=8)
    file = new.rename(new.with_name(f"{sha256_file(new)}.mp4"))
    video = Video(
        system_id=system.id,
        prompt_id=prompt.id,
        sample=0,
        seed=number,
        source_path=f"source/{digest}.mp4",
        source_sha256=digest,
        play_files={"video/mp4": str(file.relative_to(data))},
        fps=8.0,
        num_frames=8,
        height=16,
        width=16,
    )
    session.add(video)
    session.flush()
    return video
