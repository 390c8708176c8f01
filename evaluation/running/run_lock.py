"""One process at a time writes to a file; the kernel frees the lock of a process that dies, however it dies."""

import contextlib
import fcntl
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from rlhf_video.errors import DataError


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
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {platform.node()}")
        stream.flush()
        yield
