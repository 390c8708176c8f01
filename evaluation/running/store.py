"""Results of metrics on clips in append-only JSON lines: each is computed once, and a killed run goes on.

A folder holds one file per shard, written by one process; reading merges all of them. A line is in the file when `add`
returns. A line that a kill left torn is dropped.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from evaluation.base import ClipEntry, ClipResult
from evaluation.running.features_file import read_features, write_features
from rlhf_video.errors import DataError

_OPENING = b'{"clip": "'
"""How every line begins; what is torn off a line begins so too."""


class ResultKey(NamedTuple):
    """What a result depends on."""

    clip: str
    """SHA-256 of the file."""
    prompt: str
    facts: str
    """SHA-256 of what the suite says about the prompt; empty where it says nothing."""
    metric: str
    """`NamedMetric.key`."""

    @classmethod
    def of(cls, entry: ClipEntry, metric: str) -> Self:
        """Return the key of a metric on a clip."""
        facts = json.dumps(dict(entry.facts), sort_keys=True) if entry.facts else ""
        return cls(entry.sha256, entry.prompt, hashlib.sha256(facts.encode()).hexdigest() if facts else "", metric)


class ResultStore:
    """All results of a folder, and the file that this process appends to."""

    def __init__(self, folder: Path, shard: tuple[int, int] | None = (0, 1)) -> None:
        """Read every shard's file; of this process's own file, drop a last line that a killed run left unfinished.

        Args:
            folder: Holds results-I-of-N.jsonl files, and features; made where it is missing.
            shard: Which file this process appends to; None reads alone.

        Raises:
            DataError: A line before the last one is no result: the file is not ours, or damaged.
        """
        self.folder = folder
        self._results: dict[ResultKey, ClipResult] = {}
        self._stream: FileIO | None = None
        for path in sorted(folder.glob("results-*-of-*.jsonl")):
            self._read(path)
        if shard is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._path = folder / f"results-{shard[0]}-of-{shard[1]}.jsonl"
            self._stream = self._path.open("ab", buffering=0)
            self._stream.truncate(_whole_length(self._path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Return the number of results."""
        return len(self._results)

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()

    def find(self, entry: ClipEntry, metric: str) -> ClipResult | None:
        """Return the result of a metric (by its key) on a clip, None where there is none."""
        return self._results.get(ResultKey.of(entry, metric))

    def add(self, entry: ClipEntry, metric: str, result: ClipResult) -> None:
        """Append a result; it is in the file when this returns, also if the process is killed then.

        Raises:
            OSError: The disk is full; what was stored before stays.
        """
        assert self._stream is not None, "a store without a shard is for reading"
        key = ResultKey.of(entry, metric)
        record = {**key._asdict(), "result": _to_json(result)}
        line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        length = self._stream.seek(0, os.SEEK_END)
        try:
            written = self._stream.write(line)
            while written < len(line):  # an unbuffered stream may write a part, and raises at the next one
                written += self._stream.write(line[written:])
        except OSError as error:
            self._stream.truncate(length)
            raise OSError(error.errno, error.strerror, str(self._path)) from error
        self._results[key] = result

    def features(self, entry: ClipEntry, metric: str) -> NDArray[np.float32]:
        """Return the features that a set metric stored of a clip, shape (items, width).

        Raises:
            DataError: There are none, or the file is damaged.
        """
        return read_features(self._feature_file(entry, metric))

    def add_features(self, entry: ClipEntry, metric: str, features: NDArray[np.float32]) -> None:
        """Store a clip's features; `add` its result afterwards, which says that they are there."""
        write_features(self._feature_file(entry, metric), features)

    def _feature_file(self, entry: ClipEntry, metric: str) -> Path:
        key = ResultKey.of(entry, metric)
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()
        return self.folder / "features" / metric[:16] / f"{name}.npy"

    def _read(self, path: Path) -> None:
        content = path.read_bytes()
        whole, _, torn = content.rpartition(b"\n")
        if not torn.startswith(_OPENING) and not _OPENING.startswith(torn):
            raise DataError(f"'{path}' is not a file of results: move it away, or give another output_dir.")
        for number, line in enumerate(whole.split(b"\n") if whole else [], 1):
            try:
                record = json.loads(line)
                key = ResultKey(record["clip"], record["prompt"], record["facts"], record["metric"])
                result = _from_json(record["result"])
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"Line {number} of '{path}' is no result: delete that line, its clip is scored again then."
                ) from error
            known = self._results.get(key)
            if known is None or known.status == "failed" or result.status != "failed":
                self._results[key] = result


def _whole_length(path: Path) -> int:
    """Return the length of a file's whole lines in bytes."""
    content = path.read_bytes()
    return content.rfind(b"\n") + 1


def _to_json(result: ClipResult) -> dict[str, Any]:
    record: dict[str, Any] = {"status": result.status, "seconds": round(result.seconds, 6)}
    if result.status == "ok":
        record["values"] = dict(result.values)
        if result.curves:
            record["curves"] = {name: list(curve) for name, curve in result.curves.items()}
    else:
        record["reason"] = result.reason
    return record


def _from_json(record: Mapping[str, Any]) -> ClipResult:
    if record["status"] not in ("ok", "skipped", "failed"):
        raise ValueError(record["status"])
    return ClipResult(
        status=record["status"],
        values=record.get("values", {}),
        curves=record.get("curves", {}),
        reason=record.get("reason"),
        seconds=record["seconds"],
    )
