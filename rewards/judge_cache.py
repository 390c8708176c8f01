"""Answers of a judge, kept in an SQLite file by the content of the question."""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from rewards.errors import RewardError

_LOCK_SECONDS = 60.0


class JudgeCache:
    """A key-value file that several threads and processes of one machine may share, and that survives crashes.

    Each access opens the file, so nothing is held over a fork and the object pickles. The journal is SQLite's default:
    switching a new file to a write-ahead log fails, without waiting, where another process does the same. Put the file
    on a local disk: SQLite's locks are unsafe on many network file systems.
    """

    def __init__(self, file: str | Path) -> None:
        """Open or create the file.

        Args:
            file: For example "runs/judge.sqlite"; its folder is made.

        Raises:
            RewardError: It cannot be written or is no such file.
        """
        self._file = Path(file)
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RewardError(f"Cannot make the folder of the judge's cache {self._file}: {error}") from error
        with self._open() as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID"
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._file, timeout=_LOCK_SECONDS)) as database, database:
                yield database
        except sqlite3.Error as error:
            raise RewardError(
                f"The judge's cache {self._file} cannot be used ({error}): name another file, or move this one away."
            ) from error

    def __len__(self) -> int:
        """Return how many answers are kept."""
        with self._open() as database:
            count: int = database.execute("SELECT COUNT(*) FROM answers").fetchone()[0]
        return count

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the answer to a question, None where there is none.

        Raises:
            RewardError: The file cannot be read.
        """
        with self._open() as database:
            row = database.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        answer: dict[str, Any] = json.loads(row[0])
        return answer

    def put(self, key: str, answer: Mapping[str, Any]) -> None:
        """Keep an answer; it is on disk, whole, when this returns.

        Raises:
            RewardError: The file cannot be written.
        """
        text = json.dumps(answer)
        with self._open() as database:
            database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, text))
