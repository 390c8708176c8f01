"""A hash of options that changes with the content of every file, folder and cached model that they name."""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from huggingface_hub.constants import HF_HUB_CACHE

from rlhf_video.data import sha256_file

WHERE_AND_HOW_LONG = ("device", "cache_dir", "deadline_s", "trust_pickles")
"""Options that change no value."""
_HUB_ID = re.compile(r"([\w.-]+)/([\w.-]+)")


def options_sha256(options: Mapping[str, object]) -> str:
    """Return the SHA-256 (hex) over options, nested ones too; of files and folders their content counts, not the path.

    Options that change no value (`WHERE_AND_HOW_LONG`) stay out.
    """
    return hashlib.sha256(json.dumps(_described(options), sort_keys=True, default=str).encode()).hexdigest()


def content_hash(path: Path) -> str:
    """Return a weight file's SHA-256, computed again when its size or time changes: several metrics read gigabytes."""
    state = path.stat()
    return _content_hash(path, state.st_size, state.st_mtime_ns)


@lru_cache
def _content_hash(path: Path, _size: int, _modified_ns: int) -> str:
    return sha256_file(path)


def _described(options: Mapping[str, object]) -> dict[str, object]:
    return {key: _describe(value) for key, value in sorted(options.items()) if key not in WHERE_AND_HOW_LONG}


def _describe(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return [_described(value), None]
    if isinstance(value, list | tuple):
        return [[_describe(item) for item in value], None]
    if not isinstance(value, str | Path) or not str(value) or len(str(value)) > 4096:
        return [value, None]
    content = _content_sha256(Path(value))
    return [None, content] if content else [value, _cached_revision(str(value))]


def _content_sha256(path: Path) -> str | None:
    """Return the hash of a file or folder, None where there is neither."""
    if path.is_file():
        return sha256_file(path)
    if not path.is_dir():
        return None
    files = sorted(file for file in path.rglob("*") if file.is_file())
    named = [(file.relative_to(path).as_posix(), sha256_file(file)) for file in files]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def _cached_revision(name: str) -> str | None:
    """Return the commit of a Hub model as the Hub's cache has it, None where it is not there."""
    match = _HUB_ID.fullmatch(name)
    if match is None:
        return None
    main = Path(HF_HUB_CACHE) / f"models--{match[1]}--{match[2]}" / "refs" / "main"
    return main.read_text().strip() if main.is_file() else None
