"""Workers' environments on this machine: made once per lock, complete or not used at all.

An environment lies at `~/.cache/rlhf_video/envs/NAME-DIGEST` (`RLHF_VIDEO_ENVS` moves the folder); a changed lock is
another path. The record that marks it complete is written last: without it the folder is rebuilt, never used.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rewards.errors import RewardError
from rewards.workers.health import check_health
from rewards.workers.lock import SHIM, WorkerLock, load_lock, normalise

logger = logging.getLogger(__name__)

FOLDER_VARIABLE = "RLHF_VIDEO_ENVS"
RECORD = "rlhf_video_environment.json"
SHIM_MODULE = "rlhf_video_torchvision_shim"
LOG_TAIL_LINES = 15


@dataclass(frozen=True)
class Environment:
    """A complete environment."""

    path: Path
    """Its folder."""
    python_version: str
    """Of its interpreter, for example "3.11.7"."""
    packages: dict[str, str]
    """Every installed distribution and its version."""

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return _interpreter(self.path)

    def has(self, package: str) -> bool:
        """Whether a package is installed."""
        return normalise(package) in {normalise(name) for name in self.packages}


def environments_folder() -> Path:
    """Return the folder of all environments."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "rlhf_video" / "envs"


def environment_path(lock: WorkerLock) -> Path:
    """Return where the environment of this lock lies, made or not."""
    return environments_folder() / f"{lock.name}-{lock.digest}"


def find(lock: WorkerLock) -> Environment | None:
    """Return the complete environment of this lock, None where there is none."""
    path = environment_path(lock)
    if not (path / RECORD).is_file() or not _interpreter(path).is_file():
        return None
    record = json.loads((path / RECORD).read_text())
    return Environment(path, record["python"], record["packages"])


def require(worker: str) -> Environment:
    """Return a worker's environment.

    Raises:
        RewardError: No such worker, or its environment is not made yet; the message has the command.
    """
    return _require(load_lock(worker))


def _require(lock: WorkerLock) -> Environment:
    found = find(lock)
    if found is None:
        raise RewardError(
            f"The environment of worker {lock.name!r} is not made ({environment_path(lock)}): "
            f"run `rlhf-video rewards env create {lock.name}`."
        )
    return found


def create(
    lock: WorkerLock, *, wheels: Path | None = None, force: bool = False, installer: str | None = None
) -> Environment:
    """Make an environment, or return it where it is complete. Others that make the same one wait.

    Args:
        lock: What goes into it.
        wheels: Folder with all wheels and source archives; nothing is then asked of the network.
        force: Make it anew.
        installer: "uv" or "pip"; None takes uv where it is on PATH.

    Raises:
        RewardError: No fitting Python, a step that fails (with the end of its log), or a health check that fails.
    """
    if wheels is not None and not wheels.is_dir():
        raise RewardError(f"There is no folder of wheels {wheels}.")
    path = environment_path(lock)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path.with_name(path.name + ".lock")):
        found = None if force else find(lock)
        if found is not None:
            return found
        shutil.rmtree(path, ignore_errors=True)
        log = path.with_name(path.name + ".log")
        log.unlink(missing_ok=True)
        _install(lock, path, wheels=wheels, uv=_uv(installer), log=log)
        _after_install(lock, path)
        logger.info("Checking %s", lock.name)
        problem = check_health(lock, _interpreter(path))
        if problem is not None and not lock.needs:
            raise RewardError(f"The new environment of worker {lock.name!r} does not work: {problem}")
        _write_record(lock, path)
        made = find(lock)
        assert made is not None
        return made


def build_from_source(lock: WorkerLock, name: str, *, source: str | None = None) -> Environment:
    """Build a package of `WorkerLock.builds` into the worker's environment, or return it where it is there.

    A build takes minutes and needs a C++ compiler; where it fails, the environment is what it was.

    Args:
        lock: Of a worker whose environment is made.
        name: For example "detectron2".
        source: What pip builds in place of the lock's source: a folder, an archive, or another address.

    Raises:
        RewardError: No such build or environment, or it fails (with the end of its log).
    """
    build = lock.build(name)
    path = _require(lock).path
    with _alone(path.with_name(path.name + ".lock")):
        found = _require(lock)
        if found.has(build.name):
            return found
        logger.info("Building %s from %s", build.name, source or build.source)
        command = [*_pip(path, wheels=None, uv=_uv(None)), "--no-deps", "--no-build-isolation"]
        log = path.with_name(f"{path.name}.{build.name}.log")
        log.unlink(missing_ok=True)
        _run([*command, source or build.source], log, f"build {build.name} (it needs git and a C++ compiler)")
        _write_record(lock, path)
        made = _require(lock)
        if not made.has(build.name):
            raise RewardError(
                f"{source or build.source} is installed, but holds no package {build.name!r}: give its own source."
            )
        return made


def _install(lock: WorkerLock, path: Path, *, wheels: Path | None, uv: str | None, log: Path) -> None:
    python = _choose_python(lock)
    logger.info("Making %s with %s of %s", path, "uv" if uv else "venv and pip", python)
    make = [uv, "venv", "--quiet", "--python", python] if uv else [python, "-I", "-m", "venv"]
    _run([*make, str(path)], log, "make the environment (on Debian: apt install python3-venv)")
    versions = path / "constraints.txt"
    versions.write_text("\n".join((*lock.first, *lock.packages)) + "\n")
    command = _pip(path, wheels=wheels, uv=uv)
    logger.info("Installing %s", ", ".join(lock.first))
    _run([*command, "--constraint", str(versions), *lock.first], log, f"install {lock.first[0]}")
    if lock.packages:
        logger.info("Installing %d more packages", len(lock.packages))
        _run([*command, "--no-deps", "--no-build-isolation", *lock.packages], log, "install its packages")


def _pip(path: Path, *, wheels: Path | None, uv: str | None) -> list[str]:
    python = str(_interpreter(path))
    if uv:
        command = [uv, "pip", "install", "--quiet", "--python", python]
    else:
        command = [python, "-I", "-m", "pip", "install", "--quiet", "--no-input", "--no-compile"]
    return [*command, "--no-index", "--find-links", str(wheels)] if wheels is not None else command


def _uv(installer: str | None) -> str | None:
    """Return uv's path, None for pip.

    Raises:
        RewardError: uv is asked for and not there, or the installer is another one.
    """
    if installer not in (None, "uv", "pip"):
        raise RewardError(f"Unknown installer {installer!r}. Known: uv, pip.")
    found = None if installer == "pip" else shutil.which("uv")
    if installer == "uv" and found is None:
        raise RewardError("uv is not on PATH: install it with `pip install uv`, or use pip.")
    return found


def _choose_python(lock: WorkerLock) -> str:
    """Return an interpreter that fits the lock: this one if it does, else one on PATH."""
    this = f"{sys.version_info.major}.{sys.version_info.minor}"
    if this in lock.python:
        return sys.executable
    for version in lock.python:
        command = shutil.which(f"python{version}")
        # A version manager's stand-in may be on PATH without an interpreter behind it.
        if command and subprocess.run([command, "--version"], capture_output=True, check=False).returncode == 0:
            return command
    raise RewardError(
        f"Worker {lock.name!r} needs Python {' or '.join(lock.python)}; this is {this}, and PATH has none of them: "
        f"install python{lock.python[0]}."
    )


def _run(command: Sequence[str], log: Path, what: str) -> None:
    """Run one step.

    Raises:
        RewardError: It fails; with the end of its log.
    """
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON") and key != "VIRTUAL_ENV"}
    with log.open("ab") as output:
        output.write(f"$ {' '.join(command)}\n".encode())
        output.flush()
        done = subprocess.run(
            command, env=clean, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        tail = "\n".join(lines[-LOG_TAIL_LINES:])
        raise RewardError(f"Cannot {what}: exit code {done.returncode}. The whole log is {log}; its end:\n{tail}")


def _after_install(lock: WorkerLock, path: Path) -> None:
    (packages,) = path.glob("lib/python*/site-packages")
    if lock.torchvision_shim:
        shutil.copy(SHIM, packages / f"{SHIM_MODULE}.py")
        (packages / f"{SHIM_MODULE}.pth").write_text(f"import {SHIM_MODULE}\n")
    for copy in lock.copies:
        content = (packages / copy.source).read_bytes()
        if (found := hashlib.sha256(content).hexdigest()) != copy.sha256:
            raise RewardError(f"{copy.source} of worker {lock.name!r} has sha256 {found}, its lock says {copy.sha256}.")
        (packages / copy.target).write_bytes(content)


def _write_record(lock: WorkerLock, path: Path) -> None:
    unfinished = path / f"{RECORD}.part"
    unfinished.write_text(json.dumps(_describe(lock, path), indent=1))
    unfinished.replace(path / RECORD)  # a torn record would say neither complete nor missing


def _describe(lock: WorkerLock, path: Path) -> dict[str, object]:
    code = (
        "import importlib.metadata as m, json, platform; print(json.dumps({'python': platform.python_version(), "
        "'packages': {d.metadata['Name']: d.version for d in m.distributions()}}))"
    )
    done = subprocess.run([str(_interpreter(path)), "-I", "-c", code], capture_output=True, text=True, check=True)
    return {"lock": lock.digest, **json.loads(done.stdout)}


def _interpreter(path: Path) -> Path:
    return path / "bin" / "python"


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; the system frees it when the process dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("Another process makes %s: waiting", path.stem)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
