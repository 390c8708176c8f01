"""Two runs never write to one file, and a dead one holds nothing back."""

import os
import signal
from pathlib import Path

import pytest

from evaluation.running.run_lock import run_lock
from rlhf_video.errors import DataError


def _child_that_holds(path: Path) -> int:
    """Fork a process that takes the lock and waits; return its number once it holds it."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with run_lock(path, "The child's folder"):
            os.write(tell, b"x")
            signal.pause()
    os.read(ready, 1)
    return child


def test_second_run_is_refused_while_the_first_lives_and_takes_over_when_it_is_dead(tmp_path: Path) -> None:
    path = tmp_path / "run" / ".lock"
    child = _child_that_holds(path)
    try:
        with (
            pytest.raises(DataError, match=rf"Shard 0/1 of runs/x is being written by process {child} on .*: wait"),
            run_lock(path, "Shard 0/1 of runs/x"),
        ):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert str(child) in path.read_text()  # the dead process left its name, and nothing else
    with run_lock(path, "Shard 0/1 of runs/x"):
        assert path.read_text().startswith(f"process {os.getpid()} ")


def test_lock_is_free_after_its_block_even_when_that_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyError), run_lock(tmp_path / ".lock", "It"):
        raise KeyError("in the block")
    with run_lock(tmp_path / ".lock", "It"):
        pass
