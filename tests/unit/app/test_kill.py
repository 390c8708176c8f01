"""kill -9 under load: every vote that was acknowledged is there afterwards, once."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from app.arena_config import ArenaConfig
from app.arena_state import open_arena
from app.database.tables import Vote
from tests.unit.app.conftest import make_study, on_both_databases

ROOT = Path(__file__).resolve().parents[3]
KILLS = 3
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # a busy machine starts four servers


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def command(config: ArenaConfig, *words: str) -> list[str]:
    """Return the command line of the arena."""
    database = ("--database-url", config.database_url) if config.database_url else ()
    return [sys.executable, str(ROOT / "app" / "arena.py"), *words, "--data", str(config.data), *database]


@contextlib.contextmanager
def server(config: ArenaConfig, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run the server until it answers; kill it in the end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command(config, "serve", "--set", f"port={port}"), cwd=ROOT, env=environment)
    try:
        while True:  # the test's own time limit ends it
            assert process.poll() is None, "the server ended by itself"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
                break
            time.sleep(0.2)
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def vote_until(stop: threading.Event, url: str, acknowledged: list[str], sent_ids: list[str]) -> None:
    """Vote as a browser does: the same vote again until it is answered."""
    with httpx.Client(base_url=url, timeout=10, trust_env=False) as browser:
        waiting: dict[str, object] | None = None
        consented = False
        while not stop.is_set():
            try:
                if not consented:
                    consented = browser.post("/api/v1/consent", json={"version": "1"}).status_code == 200
                elif waiting is not None:
                    reply = browser.post("/api/v1/votes", json=waiting)
                    if reply.status_code in (200, 201):
                        acknowledged.append(str(waiting["vote_id"]))
                        waiting = None
                    else:
                        assert reply.status_code in (429, 503), reply.text
                        time.sleep(0.2)
                else:
                    reply = browser.post("/api/v1/assignments", json={"study": "demo"})
                    if reply.status_code == 204:
                        return
                    if reply.status_code in (200, 201):
                        pair = reply.json()
                        waiting = {
                            "vote_id": uuid.uuid4().hex,
                            "assignment": pair["assignment"],
                            "token": pair["token"],
                            "revision": pair["revision"],
                            "answers": {question["name"]: "left" for question in pair["questions"]},
                            "watched_ms": {"left": 5000, "right": 5000},
                        }
                        sent_ids.append(str(waiting["vote_id"]))
            except httpx.TransportError:
                time.sleep(0.1)


@on_both_databases
def test_no_acknowledged_vote_is_lost_when_the_server_is_killed(config: ArenaConfig) -> None:
    port = free_port()
    with open_arena(config, create=True) as arena:
        # The clips' sources are not there: `verify` is asked about the database alone, below.
        arena.writer.run(lambda session: make_study(session, config.data, "demo", prompts=30, overlap=100))
    stop = threading.Event()
    acknowledged: list[str] = []
    sent: list[str] = []
    url = f"http://127.0.0.1:{port}"
    raters = [threading.Thread(daemon=True, target=vote_until, args=(stop, url, acknowledged, sent)) for _ in range(6)]
    for rater in raters:
        rater.start()
    counts: list[int] = []

    def wait_for(number: int) -> None:
        while len(acknowledged) < number and any(rater.is_alive() for rater in raters):
            time.sleep(0.02)

    for _ in range(1 if config.database_url else KILLS):
        with server(config, port):
            wait_for(len(acknowledged) + 15)
        counts.append(len(acknowledged))
    with server(config, port):
        wait_for(counts[-1] + 1)
        stop.set()
        for rater in raters:
            rater.join()
    assert counts[0] > 0
    assert len(acknowledged) > counts[-1], "the browsers went on after the last kill"
    with open_arena(config) as arena, arena.reading() as session:
        stored = session.scalars(select(Vote.id)).all()
    assert len(acknowledged) == len(set(acknowledged))
    assert set(acknowledged) <= set(stored) <= set(sent)
    told = subprocess.run(command(config, "verify"), cwd=ROOT, capture_output=True, text=True, check=False).stdout
    problems = [line for line in told.splitlines()[:-1] if not line.startswith("clip source/")]
    assert problems == []
    assert "audit entries" in told
