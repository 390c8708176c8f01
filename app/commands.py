"""What each command of `app/arena.py` does."""

import argparse
import getpass
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.admin_password import hash_password
from app.arena_config import ArenaConfig
from app.arena_state import Arena, open_arena
from app.database.audit_log import first_broken_entry, read_head
from app.database.tables import Study, Video
from app.demo import ensure_demo
from app.lineage import commands as lineage_commands
from app.loadtest.report import run_load_test
from app.studies.gold import make_gold_pairs
from app.studies.importing import import_folder
from app.studies.study import StudyPolicy, create_study
from app.web.server import create_app
from rlhf_video.data.files import sha256_file, write_atomic
from rlhf_video.errors import ConfigError
from rlhf_video.settings import load_config


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
    with open_arena(config, create=True) as arena:
        ensure_demo(arena)
        _serve(arena)
    return 0


def import_clips(request: argparse.Namespace, config: ArenaConfig) -> int:
    """Take in the clips of one system; a study that is not there is made."""
    with open_arena(config) as arena:
        with arena.reading() as session:
            exists = session.scalar(select(Study.id).where(Study.slug == request.study)) is not None
        if not exists:
            policy = load_config(StudyPolicy, request.policy)
            arena.writer.run(lambda session: create_study(session, slug=request.study, name="", policy=policy))
        elif request.policy is not None:
            raise ConfigError(f"The study '{request.study}' has its policy already: leave --policy out.")
        report = import_folder(
            arena, request.study, request.system, request.folder, parent=request.parent, skip_bad=request.skip_bad
        )
        if report.is_open:
            make_gold_pairs(arena, request.study, count=request.gold)
            make_gold_pairs(arena, request.study, count=3, kind="practice")
    for problem in report.problems:
        sys.stdout.write(f"left out: {problem}\n")
    sys.stdout.write(f"{report.new_clips} new clips ({report.known_clips} were there), {report.new_pairs} new pairs.\n")
    if not report.is_open:
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
    """Check the database, the audit log and the clips; exit code 1 where something is wrong."""
    with open_arena(config) as arena, arena.reading() as session:
        problems = [*_database_problems(session), *_clip_problems(session, config.data)]
        head = read_head(session)
    for problem in problems:
        sys.stdout.write(f"{problem}\n")
    sys.stdout.write(f"{head.number} audit entries, head {head.sha256}: {len(problems)} problems.\n")
    return 1 if problems else 0


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


def _database_problems(session: Session) -> Iterator[str]:
    if session.get_bind().dialect.name == "sqlite":
        found = session.execute(text("PRAGMA integrity_check")).scalars().all()
        yield from (f"database: {line}" for line in found if line != "ok")
    broken = first_broken_entry(session)
    if broken is not None:
        yield f"audit log: entry {broken} does not follow from the one before"


def _clip_problems(session: Session, data: Path) -> Iterator[str]:
    for video in session.scalars(select(Video)):
        file = data / video.source_path
        if not file.is_file():
            yield f"clip {video.source_path} is missing"
        elif sha256_file(file) != video.source_sha256:
            yield f"clip {video.source_path} is not the file that was imported"
        yield from (f"clip {path} is missing" for path in video.play_files.values() if not (data / path).is_file())


def _serve(arena: Arena) -> None:
    config = arena.config
    sys.stdout.write(f"The arena: {config.public_url or f'http://{config.host}:{config.port}'}\n")
    sys.stdout.flush()
    uvicorn.run(create_app(arena), host=config.host, port=config.port, log_level="warning", server_header=False)


COMMANDS: dict[str, Callable[[argparse.Namespace, ArenaConfig], int]] = {
    "demo": demo,
    "import": import_clips,
    "init": initialise,
    "loadtest": load_test,
    "serve": serve,
    "verify": verify,
    **lineage_commands.COMMANDS,
}
