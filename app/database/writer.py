"""One thread writes: changes that wait together are committed together, and each is answered after the commit.

A hundred raters who vote in the same second cost a handful of disk syncs instead of a hundred, and SQLite, which
has one writer anyway, never makes them wait for each other's locks.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from rlhf_video.errors import RlhfVideoError

T = TypeVar("T")
Change = Callable[[Session], Any]
LARGEST_BATCH = 256
_LOCK = 4_711_002  # any fixed number: writers of several processes on PostgreSQL take turns, as they do on SQLite


class DatabaseUnavailableError(RlhfVideoError):
    """The database took no write: locked, read-only, full, or gone. Nothing of the change was stored."""


class Writer:
    """Runs changes one after another in transactions of its own thread."""

    def __init__(self, engine: Engine) -> None:
        """Start the thread.

        Args:
            engine: Where to write.
        """
        self._engine = engine.execution_options(writes=True)
        self._waiting: queue.SimpleQueue[tuple[Change, Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="arena-writer", daemon=True)
        self._thread.start()

    def submit(self, change: Callable[[Session], T]) -> "Future[T]":
        """Run a change soon.

        Args:
            change: Gets a session; what it returns is the answer, what it raises undoes this change alone. It may run
                twice, where the first time was rolled back, so it changes nothing outside the session.

        Returns:
            The answer, set after the commit.
        """
        future: Future[T] = Future()
        self._waiting.put((change, future))
        return future

    def run(self, change: Callable[[Session], T]) -> T:
        """Run a change and wait for its commit.

        Raises:
            DatabaseUnavailableError: The database took no write.
        """
        return self.submit(change).result()

    def close(self) -> None:
        """Finish what waits, then stop."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch, stops = [first], False
            while len(batch) < LARGEST_BATCH:
                try:
                    item = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if item is None:
                    stops = True
                    break
                batch.append(item)
            self._commit(batch)
            if stops:
                return

    def _commit(self, batch: list[tuple[Change, "Future[Any]"]]) -> None:
        # From here on nobody can cancel a future, whose browser went away, under the writer's hands.
        batch = [(change, future) for change, future in batch if future.set_running_or_notify_cancel()]
        settle: list[Callable[[], None]] = []
        try:
            with Session(self._engine, expire_on_commit=False) as session, session.begin():
                if self._engine.dialect.name == "postgresql":
                    session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
                settle = [_apply(session, change, future) for change, future in batch]
        except (DBAPIError, PoolTimeoutError) as error:
            reason = error.orig if isinstance(error, DBAPIError) else error
            unavailable = DatabaseUnavailableError(f"The database took no write ({reason}): nothing was stored.")
            settle = [partial(future.set_exception, unavailable) for _, future in batch]
        except BaseException as error:  # the thread must outlive it: nobody else answers those who wait
            for _, future in batch:
                future.set_exception(error)
            return
        for answer in settle:
            answer()


def _apply(session: Session, change: Change, future: "Future[Any]") -> Callable[[], None]:
    """Run one change and return how its future is to be answered after the commit.

    Raises:
        DBAPIError: The database itself is the trouble: no change of the batch can be stored.
    """
    try:
        with session.begin_nested():
            answer = change(session)
    except DBAPIError as error:
        if error.connection_invalidated or not error.orig or _is_unavailable(error):
            raise
        return partial(future.set_exception, error)
    except Exception as error:
        return partial(future.set_exception, error)
    return partial(future.set_result, answer)


def _is_unavailable(error: DBAPIError) -> bool:
    """Return whether the database itself, not this change, is the trouble."""
    words = str(error.orig).lower()
    return any(
        word in words for word in ("locked", "readonly", "read-only", "full", "disk i/o", "unable to open", "no space")
    )
