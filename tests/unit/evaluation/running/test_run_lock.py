"""Two runs never write to one file, and a dead one holds nothing back."""

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from evaluation.running import scoring_run
from evaluation.running.command_line import parse_request
from evaluation.running.run_lock import run_lock, shared_run_lock
from rlhf_video.errors import ConfigError, DataError


def _child_that_holds(lock: contextlib.AbstractContextManager[None]) -> int:
    """Fork a process that takes a lock and waits; return its number once it holds it."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with lock:
            os.write(tell, b"x")
            signal.pause()
    os.read(ready, 1)
    return child


def test_second_run_is_refused_while_the_first_lives_and_takes_over_when_it_is_dead(tmp_path: Path) -> None:
    path = tmp_path / "run" / ".lock"
    child = _child_that_holds(run_lock(path, "The child's folder"))
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


def test_a_folder_is_shared_by_processes_of_the_same_work_alone(tmp_path: Path) -> None:
    path, work = tmp_path / "run" / ".lock-run", {"suite": "1", "number of shards": "2"}
    child = _child_that_holds(shared_run_lock(path, "runs/x", work))
    try:
        with shared_run_lock(path, "runs/x", work), shared_run_lock(path, "runs/x", dict(work)):
            pass
        with (
            pytest.raises(
                ConfigError, match=rf"runs/x is being scored by process {child} on .* with other suite: wait"
            ),
            shared_run_lock(path, "runs/x", work | {"suite": "2"}),
        ):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with shared_run_lock(path, "runs/x", work | {"suite": "2"}):
        pass


@pytest.mark.parametrize(
    ("words", "differs"),
    [
        (("--shard", "1/3"), "number of shards"),
        (("metrics=[{name: blockiness}]",), "metrics and number of shards"),
        (("--shard", "1/2", "--partial"), "--partial"),
    ],
)
def test_another_run_is_refused_in_a_folder_that_is_being_scored(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], differs: str
) -> None:
    def parsed(*words: str) -> dict[str, Any]:
        request = parse_request(["run", "--config", str(config_file), *words])
        return {"config": request.config, "shard": request.shard}

    original = scoring_run.score_clips

    def meanwhile(*arguments: object, **options: object) -> None:
        monkeypatch.setattr(scoring_run, "score_clips", original)
        before = (config_file.parent / "run" / "run.json").read_bytes()
        with pytest.raises(ConfigError, match=f"is being scored by process .* with other {differs}: wait"):
            scoring_run.score(**parsed(*words))
        assert (config_file.parent / "run" / "run.json").read_bytes() == before
        scoring_run.score(**parsed("--shard", "1/2"))
        original(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(scoring_run, "score_clips", meanwhile)
    scoring_run.score(**parsed("--shard", "0/2"))
