"""A hash of options that changes with the content of every file and folder that they name."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from rlhf_video.data import sha256_file


def options_sha256(options: Mapping[str, object]) -> str:
    """Return the SHA-256 (hex) over options, nested ones too, and over the content of files that they name."""
    return hashlib.sha256(json.dumps(_described(options), sort_keys=True, default=str).encode()).hexdigest()


def _described(options: Mapping[str, object]) -> dict[str, object]:
    return {key: _describe(value) for key, value in sorted(options.items())}


def _describe(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return [_described(value), None]
    if isinstance(value, list | tuple):
        return [[_describe(item) for item in value], None]
    return [value, _content_sha256(value)]


def _content_sha256(value: object) -> str | None:
    """Return the hash of the file or folder that an option names, None where it names none."""
    if not isinstance(value, str | Path) or not str(value) or len(str(value)) > 4096:
        return None
    path = Path(value)
    if path.is_file():
        return sha256_file(path)
    if not path.is_dir():
        return None
    files = sorted(file for file in path.rglob("*") if file.is_file())
    named = [(file.relative_to(path).as_posix(), sha256_file(file)) for file in files]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()
