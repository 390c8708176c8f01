"""What a load test found: latencies, and whether the database holds exactly what was acknowledged."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.arena_config import ArenaConfig
from app.database.engine import open_engine
from app.database.tables import Vote
from app.loadtest.load import LoadPlan, Seen, apply_load
from app.loadtest.server_process import Usage, find_server, usage_of
from app.voting.tokens import TokenSigner
from app.web.sessions import TEST_WORD
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.report.markdown import markdown_table

HEADER = ("request", "number", "p50, ms", "p95, ms", "p99, ms", "max, ms")
_KINDS = {
    "assignment": "next assignment",
    "clip": "clip (byte range)",
    "vote": "vote",
    "retry": "the same vote again",
}
_CHUNK = 500  # SQLite takes a limited number of values in one statement


T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """The result of a load test."""

    plan: LoadPlan
    seen: Seen
    lost: int
    """Acknowledged votes that are not in the database."""
    duplicates: int
    """Votes of one assignment beyond the first, and votes that were called new twice."""
    before: Usage | None
    """Of the server, before the first request; None where it runs elsewhere."""
    after: Usage | None
    """And after the last one."""

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, doubled or answered by an error of the server."""
        return self.lost == self.duplicates == self.seen.server_errors == 0

    def percentile_ms(self, kind: str, percent: float) -> float:
        """Return a percentile of a kind of request in milliseconds, NaN where there was none."""
        latencies = self.seen.latencies.get(kind)
        return float(np.percentile(latencies, percent)) * 1000 if latencies else float("nan")

    def __str__(self) -> str:
        """Return all of it as Markdown."""
        rows = [self._row(kind, title) for kind, title in _KINDS.items()]
        return f"{self._heading()}\n\n{markdown_table(HEADER, rows, align='lrrrrr')}\n{self._verdict()}\n"

    def _row(self, kind: str, title: str) -> Sequence[str]:
        times = [f"{self.percentile_ms(kind, percent):.0f}" for percent in (50, 95, 99, 100)]
        return (title, str(len(self.seen.latencies.get(kind, ()))), *times)

    def _heading(self) -> str:
        plan, votes = self.plan, len(self.seen.acknowledged)
        return (
            f"{plan.raters} raters, {plan.think_s:g} s thinking time, {plan.duration_s:g} s: {votes} votes, "
            f"{votes / self.seen.seconds:.1f} a second."
        )

    def _verdict(self) -> str:
        seen = self.seen
        lines = [
            f"{self.lost} lost, {self.duplicates} duplicates, {seen.server_errors} server errors, "
            f"{seen.refused} refused; nothing was left for {seen.finished} raters."
        ]
        if self.before and self.after:
            cpu_s, votes = self.after.cpu_s - self.before.cpu_s, max(1, len(seen.acknowledged))
            lines.append(
                f"Server: {self.before.memory_mib:.0f} MiB before, {self.after.memory_mib:.0f} MiB after; "
                f"{1000 * cpu_s / votes:.1f} ms of processor time a vote with its assignment and clips, "
                f"{cpu_s / seen.seconds:.2f} cores."
            )
        return "\n".join(lines)


def run_load_test(config: ArenaConfig, *, url: str, study: str, **amounts: float) -> LoadReport:
    """Load a running server and look up what became of every vote.

    Args:
        config: Of the arena behind that server: its key makes test raters, its database is looked into.
        url: Of the server.
        study: Slug of an open study.
        **amounts: Further fields of `LoadPlan`.

    Raises:
        ConfigError: The data folder has no key, or a number does not fit.
        DataError: Nobody answers, there is no such study, the key is another one's, or not one vote was taken.
    """
    key = config.data / "token.key"
    if not key.is_file():
        raise ConfigError(
            f"'{config.data}' has no token.key, and without it a load test's votes would count as people's. Give "
            "--data, the folder that the server serves."
        )
    engine = open_engine(config.url)
    token = TokenSigner.from_file(key).sign(TEST_WORD, lasts_s=amounts.get("duration_s", 0.0) + 600.0)
    plan = LoadPlan(url=url.rstrip("/"), study=study, token=token, **amounts)  # type: ignore[arg-type]
    process = find_server(plan.url)
    try:
        before = usage_of(process) if process else None
        seen = _run_apart(apply_load(plan))
        after = usage_of(process) if process else None
        with Session(engine) as session:
            lost, duplicates = look_up(session, seen.acknowledged)
    finally:
        engine.dispose()
    if not seen.acknowledged:
        statuses = ", ".join(f"{kind} {status}: {count}" for (kind, status), count in sorted(seen.statuses.items()))
        raise DataError(f"Not one vote was taken in {plan.duration_s:g} s. Answers: {statuses}.")
    return LoadReport(
        plan=plan, seen=seen, lost=lost, duplicates=duplicates + seen.stored_twice, before=before, after=after
    )


def look_up(session: Session, acknowledged: Mapping[str, str]) -> tuple[int, int]:
    """Count acknowledged votes that are not stored, and votes that share an assignment.

    Args:
        session: Only read from.
        acknowledged: Vote -> assignment.
    """
    assignments = sorted(set(acknowledged.values()))
    stored: dict[str, str] = {}
    for start in range(0, len(assignments), _CHUNK):
        chunk = assignments[start : start + _CHUNK]
        stored.update(session.execute(select(Vote.id, Vote.assignment_id).where(Vote.assignment_id.in_(chunk))).all())
    lost = sum(stored.get(vote) != assignment for vote, assignment in acknowledged.items())
    return lost, len(stored) - len(set(stored.values()))


def _run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a thread of its own: the caller's may have an event loop already, as a browser's test has."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
