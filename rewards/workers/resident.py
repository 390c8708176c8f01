"""A worker that stays: started with the first item, started again where an item ends it, and kept from that item.

One item is asked for at a time, so an item that kills the worker, hangs it or makes it answer nonsense is known: it
fails with the reason, is quarantined, and the worker is started again for the next. A worker that does so three times
in a row is broken, which is an error.
"""

import logging
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rewards.errors import RewardError
from rewards.workers.lock import WorkerLock
from rewards.workers.process import ItemError, WorkerFailure, WorkerProcess

logger = logging.getLogger(__name__)

MAX_FAILURES_IN_A_ROW = 3


class ResidentWorker:
    """One process that lives as long as this object; threads wait for each other, a fork starts its own."""

    def __init__(
        self,
        *,
        worker: str,
        scorer: str | Path,
        python: str | Path,
        settings: Mapping[str, object],
        dimensions: Sequence[str],
        lock: WorkerLock | None,
        deadline_s: float,
        start_deadline_s: float = 600.0,
    ) -> None:
        """Keep the facts; nothing is started yet.

        Args:
            worker: Name that the process greets with.
            scorer: File with its class `Scorer`, see hpsv2_scorer.py.
            python: Interpreter of its environment.
            settings: For `Scorer`; plain JSON values.
            dimensions: What the process must say that it scores.
            lock: Versions that the process must greet with, None for any.
            deadline_s: Seconds for one item before the worker counts as hung.
            start_deadline_s: Seconds for its imports and for loading weights.

        Raises:
            RewardError: A deadline that is not positive.
        """
        if not (deadline_s > 0 and start_deadline_s > 0):
            raise RewardError(f"Deadlines of a worker must be above 0 s, got {deadline_s} and {start_deadline_s}.")
        self._worker, self._scorer, self._python = worker, Path(scorer), python
        self._settings, self._dimensions, self._lock_file = dict(settings), list(dimensions), lock
        self._deadline_s, self._start_deadline_s = deadline_s, start_deadline_s
        self._alone = threading.Lock()
        self._process: WorkerProcess | None = None
        self._owner = -1
        self._failures_in_a_row = 0
        self._quarantine: dict[str, str] = {}

    def ask(self, identity: str, op: str, make_fields: Callable[[Path], Mapping[str, object]]) -> dict[str, Any]:
        """Ask for one item and return the answer.

        Args:
            identity: The same for the same item: what ended the worker once is not asked again.
            op: Of the request, see child.py.
            make_fields: Returns its fields, given a folder for files that last until the next item.

        Raises:
            ItemError: The worker cannot do this item, died or hung over it, or did so before.
            WorkerFailure: The worker cannot be started, is not the expected one, or keeps failing.
        """
        with self._alone:
            if identity in self._quarantine:
                raise ItemError(f"quarantined: {self._quarantine[identity]}")
            process = self._running()
            try:
                answer = process.request(op, make_fields(process.folder), deadline_s=self._deadline_s)
            except ItemError:
                self._failures_in_a_row = 0
                raise
            except WorkerFailure as error:
                logger.warning("%s", error)
                self._quarantine[identity] = str(error).splitlines()[0]
                self._failures_in_a_row += 1
                if self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
                    raise WorkerFailure(
                        f"{MAX_FAILURES_IN_A_ROW} clips in a row ended the worker. The last: {error}"
                    ) from error
                raise ItemError(self._quarantine[identity]) from error
            self._failures_in_a_row = 0
            return answer

    def _running(self) -> WorkerProcess:
        """Return the process, started when there is none; a forked program starts its own."""
        if self._process is None or self._owner != os.getpid() or not self._process.is_running:
            process = WorkerProcess(
                self._python,
                scorer=self._scorer,
                settings=self._settings,
                worker=self._worker,
                deadline_s=self._start_deadline_s,
            )
            weakref.finalize(self, process.close)
            self._check(process)
            self._process, self._owner = process, os.getpid()
            logger.info("Started worker %s: %s", self._worker, process.hello)
        return self._process

    def _check(self, process: WorkerProcess) -> None:
        """Refuse a process that is not the one of the dimensions and the lock.

        Raises:
            WorkerFailure: It scores other dimensions, or its packages are not the pinned ones.
        """
        dimensions, packages = process.hello.get("dimensions"), process.hello["packages"]
        lock, problem = self._lock_file, None
        if dimensions != self._dimensions:
            problem = f"scores {dimensions}, but its caller expects {self._dimensions}"
        elif lock is not None and (wrong := {n: v for n, v in packages.items() if not lock.has(n, v)}):
            command = f"rlhf-video rewards env create {lock.name} --force"
            problem = f"runs {wrong}, which its lock does not name: make its environment again with `{command}`"
        if problem is not None:
            process.close()
            raise WorkerFailure(f"Worker {process.worker!r} {problem}.")

    def close(self) -> None:
        """End the process; the next item starts it again."""
        with self._alone:
            if self._process is not None and self._owner == os.getpid():
                self._process.close()
            self._process = None
