"""Checkpoints, whole or absent: written beside their place, synced, renamed; checked by SHA-256 when read."""

import hashlib
import io
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import NoneType

import torch
from torch import Tensor

from rlhf_video.errors import CheckpointError

logger = logging.getLogger(__name__)

_CHECKSUMS = "checksums.json"
_STEP_FOLDER = re.compile(r"step-(\d{6,})")
_PARTIAL = ".partial"


def step_folder(checkpoints: Path, step: int) -> Path:
    """Return the folder of the checkpoint after `step` finished steps, for example checkpoints/step-000010."""
    return checkpoints / f"step-{step:06d}"


def checkpoint_steps(checkpoints: Path) -> list[int]:
    """Return the steps of the checkpoints in a folder, oldest first; unfinished ones are not counted."""
    if not checkpoints.is_dir():
        return []
    found = (_STEP_FOLDER.fullmatch(path.name) for path in checkpoints.iterdir())
    return sorted(int(match.group(1)) for match in found if match)


def save_atomic(folder: Path, state: Mapping[str, object], *, keep_last: int | None = None) -> None:
    """Write a checkpoint so that a kill or a full disk at any moment leaves the older ones as they were.

    One file per key (`<key>.pt`) and their checksums go to a sibling folder, are synced to the disk, and appear under
    the final name by one rename.

    Args:
        folder: Final place, for example checkpoints/step-000010. An existing one is replaced.
        state: Tensors, numbers, text, None, and dicts, lists and tuples of these, by file name.
        keep_last: Delete all but this many newest `step-*` siblings afterwards; None keeps all.

    Raises:
        OSError: The disk is full (errno ENOSPC, with the file name) or cannot be written.
        TypeError: The state holds something that could not be read back safely.
    """
    copies = {name: to_cpu(value, path=name) for name, value in state.items()}
    partial = folder.with_name(folder.name + _PARTIAL)
    discard(partial)
    partial.mkdir(parents=True)
    try:
        checksums = {}
        for name, value in copies.items():
            data = _serialise(value)
            write_synced(partial / f"{name}.pt", data)
            checksums[f"{name}.pt"] = hashlib.sha256(data).hexdigest()
        write_synced(partial / _CHECKSUMS, json.dumps(checksums, indent=2).encode())
        _sync_folder(partial)
        discard(folder)
        partial.rename(folder)
        _sync_folder(folder.parent)
    except OSError:
        discard(partial)  # give the space back; the older checkpoints are untouched
        raise
    if keep_last is not None:
        for step in checkpoint_steps(folder.parent)[:-keep_last]:
            discard(step_folder(folder.parent, step))


def load_checked(folder: Path) -> dict[str, object]:
    """Read a checkpoint and refuse it if one byte differs from what was written.

    Args:
        folder: A folder that `save_atomic` wrote.

    Returns:
        The saved state, tensors on the CPU.

    Raises:
        CheckpointError: The folder or a file is missing or corrupt; names the newest good checkpoint beside it.
    """
    problem = find_corruption(folder)
    if problem is not None:
        raise CheckpointError(f"The checkpoint {folder} is corrupt: {problem}. {_way_out(folder)}")
    state: dict[str, object] = {}
    for name in json.loads((folder / _CHECKSUMS).read_text()):
        state[name.removesuffix(".pt")] = torch.load(folder / name, map_location="cpu", weights_only=True)
    return state


def find_corruption(folder: Path) -> str | None:
    """Return what is wrong with a checkpoint folder, or None when every file matches its checksum."""
    if not folder.is_dir():
        return "the folder does not exist"
    try:
        checksums = json.loads((folder / _CHECKSUMS).read_text())
    except FileNotFoundError:
        return f"{_CHECKSUMS} is missing"
    except ValueError:
        return f"{_CHECKSUMS} is not readable"
    if not isinstance(checksums, dict):
        return f"{_CHECKSUMS} is not readable"
    for name, expected in checksums.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                return f"{name} does not match its checksum"
    return None


def discard(path: Path) -> None:
    """Delete a checkpoint folder. It is renamed first, so that a kill on the way leaves no half checkpoint behind."""
    if not path.exists():
        return
    doomed = path if path.name.endswith(_PARTIAL) else path.with_name(path.name + ".old" + _PARTIAL)
    if doomed != path:
        if doomed.exists():
            shutil.rmtree(doomed)
        path.rename(doomed)
    shutil.rmtree(doomed)


def discard_partial(checkpoints: Path) -> None:
    """Delete what a killed run left unfinished in a checkpoint folder."""
    if checkpoints.is_dir():
        for path in checkpoints.glob(f"*{_PARTIAL}"):
            logger.warning("Deleting %s, left unfinished by a run that was killed while saving", path)
            discard(path)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it.

    Raises:
        OSError: As the system reports it, always with the file name (a failed write alone does not carry one).
    """
    try:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def to_cpu(value: object, *, path: str = "state") -> object:
    """Return a copy of a state with detached CPU tensors; refuse what `weights_only` loading would refuse later.

    Raises:
        TypeError: Something in the state is neither a tensor nor a plain value.
    """
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: to_cpu(item, path=f"{path}.{key}") for key, item in value.items()}
    if type(value) in (list, tuple):
        items = [to_cpu(item, path=f"{path}.{index}") for index, item in enumerate(value)]  # type: ignore[arg-type, var-annotated]
        return tuple(items) if type(value) is tuple else items
    if type(value) in (bool, int, float, str, NoneType):
        return value
    raise TypeError(f"{path} is a {type(value).__name__}; a checkpoint holds tensors, numbers, text, dicts and lists")


def _serialise(value: object) -> bytes:
    # Through memory: torch's own file writer turns a full disk into a RuntimeError without errno.
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _way_out(folder: Path) -> str:
    siblings = [step_folder(folder.parent, step) for step in reversed(checkpoint_steps(folder.parent))]
    good = next((path for path in siblings if path != folder and find_corruption(path) is None), None)
    if good is None:
        return "There is no good checkpoint beside it: start again in another output_dir."
    return f"The newest good one is {good}: delete {folder} and start again with --resume to go on from there."
