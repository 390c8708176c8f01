"""What a worker's environment consists of, read from locks/NAME.toml."""

import difflib
import hashlib
import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rewards.errors import RewardError

HERE = Path(__file__).parent
LOCKS = HERE / "locks"
SHIM = HERE / "torchvision_shim.py"


@dataclass(frozen=True, kw_only=True)
class Copy:
    """One file to copy inside the environment's site-packages after the installation."""

    source: str
    """Path of the file, relative to site-packages."""
    target: str
    """Where it is missing."""
    sha256: str
    """Of its content, hex."""


@dataclass(frozen=True, kw_only=True)
class Build:
    """A package on no index, built from source where the user asks for it, never by itself."""

    name: str
    """Of the distribution, for example "detectron2"."""
    source: str
    """What pip builds: a repository at one commit."""
    purpose: str
    """What does not work without it."""


@dataclass(frozen=True, kw_only=True)
class WorkerLock:
    """One environment, complete: the same lock gives the same environment."""

    name: str
    """For example "hpsv2"."""
    summary: str
    """What the original is, one line."""
    licence: str
    """Of code and weights."""
    python: tuple[str, ...]
    """Minor versions that fit, for example ("3.11", "3.12")."""
    needs: str
    """What the machine must have beyond Python for the health check to pass, empty for nothing."""
    first: tuple[str, ...]
    """Pins installed first, with their own dependencies; their versions are those of `packages`."""
    packages: tuple[str, ...]
    """All other pins, installed without dependencies."""
    torchvision_shim: bool
    """Whether torchvision_shim.py goes into the environment."""
    copies: tuple[Copy, ...]
    """Files that a package forgot to ship."""
    builds: tuple[Build, ...]
    """What may be built from source into the environment."""
    health_config: dict[str, Any] | None
    """Sizes of a toy model of the original, for workers that answer `parity` requests."""
    health_code: str | None
    """Python code that exits with a message where something is missing, for the others."""
    digest: str
    """Of everything above and of the shim, 12 hex digits: part of the environment's path."""

    @property
    def scorer(self) -> Path | None:
        """The file with the worker's class `Scorer`, None for a lock with a health check only."""
        path = HERE / f"{self.name.replace('-', '_')}_scorer.py"
        return path if path.is_file() else None

    @cached_property
    def pins(self) -> dict[str, str]:
        """Normalised package name -> version."""
        pairs = (pin.split("==") for pin in (*self.first, *self.packages))
        return {normalise(name): version for name, version in pairs}

    def build(self, name: str) -> Build:
        """Return what may be built from source, by name.

        Raises:
            RewardError: There is no such build.
        """
        for build in self.builds:
            if normalise(build.name) == normalise(name):
                return build
        known = ", ".join(build.name for build in self.builds) or "none"
        raise RewardError(f"Worker {self.name!r} has nothing called {name!r} to build from source. Known: {known}.")

    def has(self, package: str, version: str) -> bool:
        """Whether this version is the pinned one; a build's mark such as "+cpu" does not count."""
        return self.pins.get(normalise(package)) == version.split("+")[0]


def normalise(package: str) -> str:
    """Return a package's name as indexes compare it: `open_clip_torch` is `open-clip-torch`."""
    return re.sub(r"[-_.]+", "-", package).lower()


def known_workers() -> tuple[str, ...]:
    """Return the names of the shipped locks, sorted."""
    return tuple(sorted(path.stem for path in LOCKS.glob("*.toml")))


def load_lock(name: str) -> WorkerLock:
    """Read a shipped lock.

    Args:
        name: One of `known_workers()`.

    Raises:
        RewardError: There is no such worker.
    """
    if name not in known_workers():
        close = difflib.get_close_matches(name, known_workers(), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise RewardError(f"Unknown worker {name!r}.{hint} Known: {', '.join(known_workers())}.")
    return read_lock(LOCKS / f"{name}.toml")


def read_lock(path: Path) -> WorkerLock:
    """Read a lock file.

    Raises:
        RewardError: The file is no lock: broken TOML, a missing or unknown field, or a package without exact version.
    """
    content = path.read_bytes()
    try:
        fields = tomllib.loads(content.decode())
        health = fields.pop("health")
        lock = WorkerLock(
            python=tuple(fields.pop("python")),
            first=tuple(fields.pop("first")),
            packages=tuple(fields.pop("packages")),
            torchvision_shim=fields.pop("torchvision_shim", False),
            copies=tuple(Copy(**copy) for copy in fields.pop("copies", [])),
            builds=tuple(Build(**build) for build in fields.pop("builds", [])),
            health_config=health.get("config"),
            health_code=health.get("code"),
            digest=hashlib.sha256(content + SHIM.read_bytes()).hexdigest()[:12],
            **fields,
        )
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise RewardError(f"{path} is no lock of a worker: {type(error).__name__}: {error}.") from error
    loose = [pin for pin in (*lock.first, *lock.packages) if not re.fullmatch(r"[\w.-]+==[\w.+!]+", pin)]
    if loose:
        raise RewardError(f"{path} must pin exact versions: {loose[0]!r} is not of the form name==version.")
    return lock
