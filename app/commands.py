"""What each command of `app/arena.py` does."""

import argparse
import getpass
import sys
from collections.abc import Callable

import uvicorn
from sqlalchemy import select

from app.admin_password import hash_password
from app.arena_config import ArenaConfig
from app.arena_state import Arena, open_arena
from app.boards.board import BoardSettings
from app.boards.snapshot import take_snapshot
from app.database.audit_log import read_head
from app.database.tables import Snapshot, Study
from app.database.verification import find_problems, votes_without_facts
from app.demo import ensure_demo, open_to_admin
from app.lineage import commands as lineage_commands
from app.loadtest.report import run_load_test
from app.quality.sweep import sweeping
from app.studies.import_requests import ImportRequest, import_and_check
from app.studies.study import StudyPolicy
from app.web.server import create_app
from rlhf_video.data.files import write_atomic
from rlhf_video.errors import ConfigError
from rlhf_video.settings import load_config

# A clip is watched for longer than the five seconds after which uvicorn closes; and longer than a proxy keeps its own
# end (nginx: 60), or the proxy's next request meets a connection that is being closed.
KEEP_ALIVE_S = 75


def execute(request: argparse.Namespace, config: ArenaConfig) -> int:
    """Run one command and return the exit code."""
    return COMMANDS[request.command](request, config)


def initialise(request: argparse.Namespace, config: ArenaConfig) -> int:
    """Make or migrate the database."""
    with open_arena(config, create=True) as arena:
        sys.stdout.write(f"The arena in '{config.data}' ({arena.engine.dialect.name}) is ready.\n")
    if request.password:
        sys.stdout.write(f"admin_password: {hash_password(getpass.getpass('Password of the admin: '))}\n")
    return 0


def demo(_: argparse.Namespace, config: ArenaConfig) -> int:
    """Serve the demo study, made where it is not there yet."""
    config, password = open_to_admin(config)
    with open_arena(config, create=True) as arena:
        ensure_demo(arena)
        if password is not None:
            sys.stdout.write(f"Admin's pages: /admin, password {password} (until this server stops)\n")
        _serve(arena)
    return 0


def import_clips(request: argparse.Namespace, config: ArenaConfig) -> int:
    """Take in the clips of one system; a study that is not there is made."""
    with open_arena(config) as arena:
        if request.policy is not None:
            with arena.reading() as session:
                if session.scalar(select(Study.id).where(Study.slug == request.study)) is not None:
                    raise ConfigError(f"The study '{request.study}' has its policy already: leave --policy out.")
        wanted = ImportRequest(
            request.study, request.system, request.folder, request.parent, request.skip_bad, request.gold
        )
        report = import_and_check(arena, wanted, policy=load_config(StudyPolicy, request.policy))
    for problem in report.problems:
        sys.stdout.write(f"left out: {problem}\n")
    sys.stdout.write(f"{report.new_clips} new clips ({report.known_clips} were there), {report.new_pairs} new pairs.\n")
    if not report.has_pairs:
        sys.stdout.write(
            f"The study has no two systems that share a prompt yet: import another one into '{request.study}'.\n"
        )
    return 0


def serve(_: argparse.Namespace, config: ArenaConfig) -> int:
    """Run the server until it is stopped."""
    with open_arena(config) as arena:
        _serve(arena)
    return 0


def verify(_: argparse.Namespace, config: ArenaConfig) -> int:
    """Check database, audit log, votes, snapshots and clips; exit code 1 where something is wrong."""
    with open_arena(config) as arena, arena.reading() as session:
        problems = list(find_problems(session, config.data))
        head, unknown = read_head(session), votes_without_facts(session)
    for problem in problems:
        sys.stdout.write(f"{problem}\n")
    if unknown:
        sys.stdout.write(f"{unknown} votes are older than the log's record of answers: those are not checked.\n")
    sys.stdout.write(f"{head.number} audit entries, head {head.sha256}: {len(problems)} problems.\n")
    return 1 if problems else 0


def snapshot(request: argparse.Namespace, config: ArenaConfig) -> int:
    """Keep a leaderboard, and print it."""
    settings = load_config(BoardSettings, None, request.changes)
    choices = {name: getattr(settings, name) for name in (change.partition("=")[0] for change in request.changes)}
    with open_arena(config) as arena:
        taken = take_snapshot(arena, request.study, choices)
        with arena.reading() as session:
            rows = session.get_one(Snapshot, taken).result["rows"]
    for row in rows:
        interval = f"[{row['low']:.0f}, {row['high']:.0f}]"
        sys.stdout.write(f"{row['rank']:>3}  {row['rating']:5.0f}  {interval:<14}  {row['system']}\n")
    sys.stdout.write(f"Snapshot {taken}\n")
    return 0


def load_test(request: argparse.Namespace, config: ArenaConfig) -> int:
    """Apply load to a server; exit code 1 where a vote was lost or stored twice, or the server failed."""
    report = run_load_test(
        config,
        url=request.url,
        study=request.study,
        raters=request.raters,
        think_s=request.think,
        duration_s=request.duration,
    )
    sys.stdout.write(str(report))
    if request.markdown is not None:
        write_atomic(request.markdown, str(report).encode())
    return 0 if report.holds else 1


def _serve(arena: Arena) -> None:
    config = arena.config
    sys.stdout.write(f"The arena: {config.public_url or f'http://{config.host}:{config.port}'}\n")
    sys.stdout.flush()
    with sweeping(arena, every_s=config.sweep_every_s):
        uvicorn.run(
            create_app(arena),
            host=config.host,
            port=config.port,
            log_level="warning",
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )


COMMANDS: dict[str, Callable[[argparse.Namespace, ArenaConfig], int]] = {
    "demo": demo,
    "import": import_clips,
    "init": initialise,
    "loadtest": load_test,
    "serve": serve,
    "snapshot": snapshot,
    "verify": verify,
    **lineage_commands.COMMANDS,
}
