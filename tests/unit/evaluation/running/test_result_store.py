"""Results are appended, survive a torn line and a full disk, and merge from shards."""

import errno
from collections.abc import Callable
from dataclasses import replace
from io import FileIO
from pathlib import Path

import numpy as np
import pytest

from evaluation.base import ClipEntry, ClipResult
from evaluation.running.store import ResultStore
from rlhf_video.errors import DataError

OK = ClipResult(status="ok", values={"a": 0.5, "b": -1.0}, curves={"a": [0.25, 0.75]}, seconds=0.125)
SKIPPED = ClipResult(status="skipped", reason="nothing moves", seconds=0.5)
FAILED = ClipResult(status="failed", reason="RuntimeError: no memory")


def _store_three(folder: Path, entries: list[ClipEntry]) -> Path:
    with ResultStore(folder) as store:
        for entry, result in zip(entries, (OK, SKIPPED, FAILED), strict=False):
            store.add(entry, "m", result)
    return folder / "results-0-of-1.jsonl"


def test_what_was_added_is_read_back(tmp_path: Path, entries: list[ClipEntry]) -> None:
    _store_three(tmp_path, entries)
    store = ResultStore(tmp_path, None)
    assert [store.find(entry, "m") for entry in entries[:4]] == [OK, SKIPPED, FAILED, None]
    assert store.find(entries[0], "another metric") is None and len(store) == 3


def test_prompt_and_facts_belong_to_the_key(tmp_path: Path, entries: list[ClipEntry]) -> None:
    _store_three(tmp_path, entries)
    store = ResultStore(tmp_path, None)
    assert store.find(replace(entries[0], prompt="another"), "m") is None
    assert store.find(replace(entries[0], facts={"color": "red"}), "m") is None
    assert store.find(replace(entries[0], file=Path("moved.mp4"), seed=None, sample=3), "m") == OK


def test_torn_last_line_is_dropped_wherever_it_was_cut(tmp_path: Path, entries: list[ClipEntry]) -> None:
    path = _store_three(tmp_path, entries)
    whole = path.read_bytes()
    start_of_last = whole[:-1].rindex(b"\n") + 1
    for length in range(start_of_last, len(whole)):
        path.write_bytes(whole[:length])
        assert len(ResultStore(tmp_path, None)) == 2
        assert path.stat().st_size == length  # reading alone mends nothing
        with ResultStore(tmp_path) as store:
            store.add(entries[2], "m", FAILED)
        assert path.read_bytes() == whole


def test_damaged_line_before_the_last_names_itself(tmp_path: Path, entries: list[ClipEntry]) -> None:
    path = _store_three(tmp_path, entries)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + '{"clip": "half\n' + lines[2])
    with pytest.raises(DataError, match=r"Line 2 of .* is no result: delete that line"):
        ResultStore(tmp_path)


def test_file_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "results-0-of-1.jsonl"
    path.write_text("my notes")
    with pytest.raises(DataError, match="is not a file of results"):
        ResultStore(tmp_path)
    assert path.read_text() == "my notes"


def test_shards_write_files_of_their_own_and_are_read_as_one(tmp_path: Path, entries: list[ClipEntry]) -> None:
    for index, entry in enumerate(entries[:3]):
        with ResultStore(tmp_path, (index, 3)) as store:
            store.add(entry, "m", OK)
    assert len(list(tmp_path.glob("results-?-of-3.jsonl"))) == 3
    assert all(ResultStore(tmp_path, None).find(entry, "m") == OK for entry in entries[:3])


@pytest.mark.parametrize("order", [(FAILED, OK), (OK, FAILED)])
def test_value_from_any_shard_beats_a_failure(
    tmp_path: Path, entries: list[ClipEntry], order: tuple[ClipResult, ...]
) -> None:
    for index, result in enumerate(order):
        with ResultStore(tmp_path, (index, 2)) as store:
            store.add(entries[0], "m", result)
    assert ResultStore(tmp_path, None).find(entries[0], "m") == OK


def test_full_disk_leaves_what_is_stored_and_a_file_to_go_on_with(
    tmp_path: Path, entries: list[ClipEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ResultStore(tmp_path) as store:
        store.add(entries[0], "m", OK)
        with monkeypatch.context() as patch:
            patch.setattr(store, "_stream", _FullAfter(store._stream, 40))
            with pytest.raises(OSError, match=r"No space left.*results-0-of-1\.jsonl") as raised:
                store.add(entries[1], "m", OK)
        assert raised.value.errno == errno.ENOSPC
        assert store.find(entries[1], "m") is None
        store.add(entries[1], "m", SKIPPED)
    reread = ResultStore(tmp_path, None)
    assert [reread.find(entry, "m") for entry in entries[:2]] == [OK, SKIPPED]


def test_features_are_stored_beside_and_damage_is_told(tmp_path: Path, entries: list[ClipEntry]) -> None:
    features = np.arange(6, dtype=np.float32).reshape(2, 3)
    with ResultStore(tmp_path) as store:
        store.add_features(entries[0], "m", features)
        np.testing.assert_array_equal(store.features(entries[0], "m"), features)
        with pytest.raises(DataError, match="missing or damaged"):
            store.features(entries[1], "m")
        with pytest.raises(DataError, match="no finite table"):
            store.add_features(entries[0], "m", np.array([[np.nan]], dtype=np.float32))
    (file,) = tmp_path.rglob("*.npy")
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(DataError, match="missing or damaged"):
        ResultStore(tmp_path, None).features(entries[0], "m")


class _FullAfter:
    """A stream whose disk takes some bytes more."""

    def __init__(self, stream: FileIO | None, left: int) -> None:
        assert stream is not None
        self._stream, self._left = stream, left
        self.seek: Callable[[int, int], int] = stream.seek
        self.truncate: Callable[[int], int] = stream.truncate

    def write(self, data: bytes) -> int:
        if not self._left:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self._stream.write(data[: self._left])
        self._left -= written
        return written
