import errno
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from rlhf_video.errors import CheckpointError, exit_on_user_error
from rlhf_video.runtime import checkpoints
from rlhf_video.runtime.checkpoints import (
    checkpoint_steps,
    discard_partial,
    load_checked,
    save_atomic,
    step_folder,
    write_synced,
)

STATE = {
    "adapter": {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2])},
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.99)}]},
    "note": None,
}


def write_full_after(monkeypatch: pytest.MonkeyPatch, num_files: int) -> None:
    """Send every file after the first num_files to Linux's device that is always full."""
    written: list[Path] = []

    def write(path: Path, data: bytes) -> None:
        written.append(path)
        write_synced(path if len(written) <= num_files else Path("/dev/full"), data)

    monkeypatch.setattr(checkpoints, "write_synced", write)


def test_a_checkpoint_comes_back_bit_equal(tmp_path: Path) -> None:
    save_atomic(tmp_path / "step-000001", STATE)
    loaded = load_checked(tmp_path / "step-000001")
    assert loaded.keys() == STATE.keys()
    torch.testing.assert_close(loaded["adapter"], STATE["adapter"], rtol=0, atol=0)
    assert loaded["optimizer"]["param_groups"] == STATE["optimizer"]["param_groups"]
    assert loaded["note"] is None


def test_only_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10, 1_000_000):
        save_atomic(step_folder(tmp_path, step), STATE, keep_last=2)
    assert checkpoint_steps(tmp_path) == [10, 1_000_000]
    assert len(list(tmp_path.iterdir())) == 2


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save_atomic(tmp_path / "step-000001", {"a": 1, "b": 2})
    save_atomic(tmp_path / "step-000001", {"a": 3})
    assert load_checked(tmp_path / "step-000001") == {"a": 3}


@pytest.mark.parametrize("num_files_written", [0, 1, 2, 3])
def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], num_files_written: int
) -> None:
    save_atomic(tmp_path / "step-000001", STATE, keep_last=1)
    write_full_after(monkeypatch, num_files_written)
    with pytest.raises(SystemExit) as ended, exit_on_user_error():
        save_atomic(tmp_path / "step-000002", STATE, keep_last=1)
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: The disk is full while writing /dev/full")
    assert "--resume" in message
    assert message.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    load_checked(tmp_path / "step-000001")


def test_a_failed_write_names_its_file() -> None:
    with pytest.raises(OSError, match="/dev/full") as raised:
        write_synced(Path("/dev/full"), b"x")
    assert raised.value.errno == errno.ENOSPC


def save_and_die(folder: Path, function: str, calls_before_death: int) -> None:
    original, calls = getattr(checkpoints, function), []

    def killed(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) > calls_before_death:
            os.kill(os.getpid(), signal.SIGKILL)
        original(*arguments)

    setattr(checkpoints, function, killed)
    save_atomic(folder, {"a": 2, "b": 3}, keep_last=1)


@pytest.mark.parametrize(
    ("function", "calls_before_death"),
    [("write_synced", 0), ("write_synced", 1), ("write_synced", 2), ("_sync_folder", 0)],
)
def test_a_run_killed_while_saving_keeps_the_last_checkpoint(
    tmp_path: Path, function: str, calls_before_death: int
) -> None:
    save_atomic(tmp_path / "step-000001", {"a": 1})
    child = multiprocessing.get_context("fork").Process(
        target=save_and_die, args=(tmp_path / "step-000002", function, calls_before_death)
    )
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    assert checkpoint_steps(tmp_path) == [1]
    assert load_checked(tmp_path / "step-000001") == {"a": 1}
    discard_partial(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda folder: flip_byte(folder / "adapter.pt"), "adapter.pt does not match its checksum"),
        (lambda folder: (folder / "adapter.pt").unlink(), "adapter.pt is missing"),
        (lambda folder: (folder / "checksums.json").unlink(), "checksums.json is missing"),
        (lambda folder: (folder / "checksums.json").write_text("{"), "checksums.json is not readable"),
        (lambda folder: (folder / "checksums.json").write_text("[]"), "checksums.json is not readable"),
    ],
)
def test_one_wrong_byte_is_an_error_that_names_the_newest_good_checkpoint(
    tmp_path: Path, harm: object, problem: str
) -> None:
    for step in (1, 2, 3, 4):
        save_atomic(step_folder(tmp_path, step), STATE)
    harm(tmp_path / "step-000004")  # type: ignore[operator]
    flip_byte(tmp_path / "step-000003" / "note.pt")
    with pytest.raises(CheckpointError, match=rf"step-000004 is corrupt: {problem}.*newest good one is .*step-000002"):
        load_checked(tmp_path / "step-000004")


def test_without_a_good_checkpoint_the_error_says_to_start_again(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"the folder does not exist.*start again in another output_dir"):
        load_checked(tmp_path / "step-000001")


@pytest.mark.parametrize("value", [Path("x"), np.float32(1), {1, 2}, {"deep": [object()]}])
def test_what_could_not_be_loaded_safely_is_not_saved(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError, match="extra"):
        save_atomic(tmp_path / "step-000001", {"extra": value})
    assert list(tmp_path.iterdir()) == []


def test_a_saved_tensor_is_a_copy_without_its_storage(tmp_path: Path) -> None:
    large = torch.zeros(1_000_000)
    save_atomic(tmp_path / "step-000001", {"a": large[:10]})
    assert (tmp_path / "step-000001" / "a.pt").stat().st_size < 10_000
