"""One process at a time writes to a file; the kernel frees the lock of a process that dies, however it dies."""

import contextlib
import fcntl
import json
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from rlhf_video.errors import ConfigError, DataError


@contextlib.contextmanager
def run_lock(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file while a block runs.

    Args:
        path: Lock file; it stays after the block, without meaning.
        what: What is locked, for the message, for example "shard 0/3 of runs/evaluation/sprite".

    Raises:
        DataError: Another process holds it; the message names it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            holder = stream.read().strip() or "another process"
            raise DataError(
                f"{what} is being written by {holder}: wait until it ends, end it, or give another output_dir "
                "(several processes share the work with --shard 0/2, --shard 1/2)."
            ) from error
        _write(stream, _holder())
        yield


@contextlib.contextmanager
def shared_run_lock(path: Path, what: str, work: Mapping[str, str]) -> Iterator[None]:
    """Hold a lock file together with every process that does the same work, while a block runs.

    Args:
        path: Lock file; it stays after the block, without meaning.
        what: What is locked, for the message.
        work: What must be equal in all holders, by the words that a message names it with.

    Raises:
        ConfigError: A living process holds it for other work; the message says what differs.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as stream:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write(stream, json.dumps({"holder": _holder(), "work": dict(work)}))
        # Exclusive to shared is no single step, so another process may write in between: what the file says now counts.
        fcntl.flock(stream, fcntl.LOCK_SH)
        stream.seek(0)
        held = json.loads(stream.read())
        if differs := [name for name in work if held["work"].get(name) != work[name]]:
            raise ConfigError(
                f"{what} is being scored by {held['holder']} with other {' and '.join(differs)}: wait until it ends, "
                "end it, or give another output_dir."
            )
        yield


def _write(stream: TextIO, text: str) -> None:
    stream.truncate(0)
    stream.write(text)
    stream.flush()


def _holder() -> str:
    return f"process {os.getpid()} on {platform.node()}"
