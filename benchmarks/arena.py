"""How fast the arena answers a hundred raters on two cores, and whether it keeps every vote.

    python benchmarks/arena.py --markdown benchmarks/arena.md

For each number of pairs and each thinking time: a new data folder on SQLite, a server process (app/arena.py serve) and
the load test (app/arena.py loadtest) beside it; both share two cores of this machine. Clips are random bytes of a
given size: raters' browsers fetch them, nothing decodes them here.
"""

import argparse
import hashlib
import os
import platform
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from attention_timing import write_section
from sqlalchemy.orm import Session

from app.arena_config import ArenaConfig
from app.arena_state import open_arena
from app.database.tables import Prompt, Study, System, Video
from app.loadtest.report import LoadReport, run_load_test
from app.studies.pairs import schedule_pairs
from app.studies.study import StudyPolicy, create_study
from rlhf_video.report.markdown import markdown_table

ROOT = Path(__file__).resolve().parents[1]
SLUG = "load"
NUM_SYSTEMS = 5  # 10 pairs of clips for each prompt
BARS = {10.0: {"vote": 250, "assignment": 300}, 1.0: {"vote": 1000, "assignment": 1000}}
"""Thinking time in seconds -> request -> what its 95th percentile may take at 100 raters, in milliseconds."""
HEADER = (
    *(
        "pairs",
        "thinking, s",
        "votes",
        "votes/s",
        "assignment p50, ms",
        "p95",
        "p99",
        "max",
        "vote p50, ms",
        "p95",
        "p99",
    ),
    *("max", "lost", "duplicates", "server errors", "CPU a vote, ms", "memory, MiB", "bar"),
)


def make_study(session: Session, data: Path, num_pairs: int, clip_kib: int) -> Study:
    """Store a study of systems that differ in nothing but their names.

    Args:
        session: Of the writer.
        data: Folder of the arena.
        num_pairs: A multiple of 10.
        clip_kib: Size of a clip.
    """
    policy = StudyPolicy(min_watch_s=0.0, practice=0, gold_rate=0.0)
    study = create_study(session, slug=SLUG, name="Load test", policy=policy)
    systems = [System(study_id=study.id, name=f"system-{number}") for number in range(NUM_SYSTEMS)]
    session.add_all(systems)
    session.flush()
    for number in range(num_pairs * 2 // (NUM_SYSTEMS * (NUM_SYSTEMS - 1))):
        words = f"a clip of {number}"
        prompt = Prompt(study_id=study.id, text=words, text_sha256=hashlib.sha256(words.encode()).hexdigest())
        session.add(prompt)
        session.flush()
        file = data / "play" / f"{secrets.token_hex(16)}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(secrets.token_bytes(clip_kib * 1024))
        for system in systems:
            session.add(_video(system, prompt, str(file.relative_to(data))))
    session.flush()
    schedule_pairs(session, study)
    return study


def _video(system: System, prompt: Prompt, play: str) -> Video:
    return Video(
        system_id=system.id,
        prompt_id=prompt.id,
        sample=0,
        source_path=play,
        source_sha256=secrets.token_hex(32),
        play_files={"video/mp4": play},
        fps=16.0,
        num_frames=81,
        height=480,
        width=832,
    )


def measure(num_pairs: int, think_s: float, flags: argparse.Namespace) -> LoadReport:
    """Start a server on a new study, load it, and stop it."""
    with tempfile.TemporaryDirectory(prefix="arena-load-") as folder:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        config = ArenaConfig(data=Path(folder) / "arena", port=port)
        with open_arena(config, create=True) as arena:
            arena.writer.run(lambda session: make_study(session, config.data, num_pairs, flags.clip_kib) and None)
        program = [sys.executable, str(ROOT / "app" / "arena.py"), "serve", "--data", str(config.data)]
        server = subprocess.Popen([*program, "--set", f"port={port}"], cwd=ROOT)
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_until_ready(url, server)
            return run_load_test(
                config, url=url, study=SLUG, raters=flags.raters, think_s=think_s, duration_s=flags.duration
            )
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()


def _wait_until_ready(url: str, server: "subprocess.Popen[bytes]") -> None:
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=10) as reply:
                reply.read()
            return
        except OSError as error:
            if server.poll() is not None:
                raise RuntimeError(f"The server ended with code {server.returncode}.") from error
            time.sleep(0.5)


def row(num_pairs: int, report: LoadReport) -> tuple[str, ...]:
    """Return one line of the table."""
    seen, votes = report.seen, len(report.seen.acknowledged)
    times = [
        f"{report.percentile_ms(kind, percent):.0f}" for kind in ("assignment", "vote") for percent in (50, 95, 99, 100)
    ]
    before, after = report.before, report.after
    cpu = f"{1000 * (after.cpu_s - before.cpu_s) / votes:.1f}" if before and after else "not measured"
    memory = f"{before.memory_mib:.0f} to {after.memory_mib:.0f}" if before and after else "not measured"
    counts = (str(report.lost), str(report.duplicates), str(seen.server_errors))
    rate = f"{votes / seen.seconds:.1f}"
    return (str(num_pairs), f"{report.plan.think_s:g}", str(votes), rate, *times, *counts, cpu, memory, verdict(report))


def verdict(report: LoadReport) -> str:
    """Say whether the bar of a thinking time is met."""
    bars = BARS.get(report.plan.think_s)
    if bars is None:
        return "none"
    missed = [kind for kind, bar in bars.items() if not report.percentile_ms(kind, 95) < bar]
    return "met" if report.holds and not missed else f"missed ({', '.join(missed) or 'votes'})"


def describe(flags: argparse.Namespace, arguments: list[str], loads: list[float]) -> str:
    """Return where and how it was measured."""
    cores = len(os.sched_getaffinity(0))
    return (
        f"{flags.raters} raters for {flags.duration:g} s, clips of {flags.clip_kib} KiB, SQLite, {cores} cores shared "
        f"by server and client, {platform.machine()}, Python {platform.python_version()}. Load average of the machine "
        f"before each run: {', '.join(f'{load:.1f}' for load in loads)}; above 1, other work ran beside it.\n"
        f"Command: `python benchmarks/arena.py {' '.join(arguments)}`."
    )


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[300, 2000], help="pairs of the study, multiples of 10")
    parser.add_argument("--think", type=float, nargs="+", default=[10.0, 1.0], help="mean thinking times in seconds")
    parser.add_argument("--raters", type=int, default=100)
    parser.add_argument("--duration", type=float, default=120.0, help="seconds of each run")
    parser.add_argument("--clip-kib", type=int, default=512, help="size of a clip")
    parser.add_argument("--cores", type=int, default=2, help="cores for server and client together")
    parser.add_argument("--markdown", type=Path, help="file to put the table into, between marks")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Measure, print and write."""
    flags = parse(arguments)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: flags.cores])  # the server inherits it
    rows, loads = [], []
    for num_pairs in flags.pairs:
        for think_s in flags.think:
            loads.append(os.getloadavg()[0])
            report = measure(num_pairs, think_s, flags)
            print(f"{num_pairs} pairs\n{report}", flush=True)
            rows.append(row(num_pairs, report))
    text = f"{describe(flags, arguments, loads)}\n\n{markdown_table(HEADER, rows, align='r' * 17 + 'l')}"
    print(text)
    if flags.markdown:
        write_section(flags.markdown, "arena", text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
