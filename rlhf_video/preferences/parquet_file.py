"""Preference pairs as a Parquet file with typed columns: the same records as in JSON lines, bit by bit.

Questions are free words, so `labels` and `soft` are lists of (question, answer): `datasets` knows no map type. A
sampler is free too and is JSON text. Everything else is a number, a text, or a struct of them.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_video.errors import DataError
from rlhf_video.preferences.pair import PreferencePair, build_pair, pair_to_plain, parse_json

if TYPE_CHECKING:
    import pyarrow as pa

LABELS, SOFT = ("labels", "answer"), ("soft", "share")  # columns of answers, and what their second part is called
_METADATA = {b"rlhf_video": b"preference pairs, record version 1"}


def require_pyarrow(path: str | Path) -> Any:
    """Return the module pyarrow, with pyarrow.parquet loaded.

    Args:
        path: File that is to be read or written, for the message.

    Raises:
        DataError: pyarrow is not installed.
    """
    try:
        import_module("pyarrow.parquet")
        return import_module("pyarrow")
    except ImportError as error:
        raise DataError(
            f"'{path}' is a Parquet file, which needs pyarrow ({error}): "
            'pip install -c constraints.txt -e ".[datasets]", or keep pairs in a .jsonl file.'
        ) from error


def pair_schema() -> "pa.Schema":
    """Return the columns of a pair, in order."""
    pa = require_pyarrow("pairs.parquet")
    text, whole, number = pa.string(), pa.int64(), pa.float64()
    clip = pa.struct(
        [
            *((name, text) for name in ("path", "sha256")),
            ("seed", whole),
            *((name, text) for name in ("model", "adapter", "sampler")),
            *((name, whole) for name in ("num_frames", "height", "width")),
            ("fps", number),
        ]
    )
    segment = pa.struct([("start", whole), ("stop", whole), ("label", text)])
    columns = [("version", whole), ("prompt", text), ("a", clip), ("b", clip)]
    for (name, part), kind in ((LABELS, text), (SOFT, number)):
        columns.append((name, pa.list_(pa.struct([("question", text), (part, kind)]))))
    columns += [("margin", number), ("confidence", number), ("num_votes", whole), ("weight", number)]
    return pa.schema([*columns, ("segments", pa.list_(segment)), ("source", text)], metadata=_METADATA)


def pairs_table(pairs: Sequence[PreferencePair]) -> "pa.Table":
    """Return pairs as an Arrow table with the columns of `pair_schema`.

    Raises:
        DataError: A whole number does not fit 64 bits.
    """
    pa = require_pyarrow("pairs.parquet")
    try:
        return pa.Table.from_pylist([_to_row(pair) for pair in pairs], schema=pair_schema())
    except (pa.ArrowException, OverflowError) as error:
        raise DataError(f"A pair does not fit typed columns ({error}): whole numbers have 64 bits there.") from error


def row_to_pair(row: Mapping[str, Any], *, where: str) -> PreferencePair:
    """Build a pair from one row of an Arrow table strictly; nulls are fields left out.

    Args:
        row: Column -> value as pyarrow gives it.
        where: File and row for the message.

    Raises:
        DataError: An unknown column (with the nearest name), a missing value, or one that does not fit.
    """
    tree = {name: value for name, value in row.items() if value is not None and value != []}
    for name, part in (LABELS, SOFT):
        if name in tree:
            tree[name] = _answers(tree[name], part, where=f"{where}: '{name}'")
    for side in ("a", "b"):
        if isinstance(tree.get(side), Mapping):
            tree[side] = _clip_tree(tree[side], where=f"{where}: '{side}.sampler'")
    return build_pair(tree, where=where)


def read_rows(path: Path, *, batch_size: int = 1024) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place for messages, row) of a Parquet file; at most `batch_size` rows are in memory.

    Raises:
        DataError: The file is no Parquet file or is cut off, or pyarrow is not installed.
    """
    pa = require_pyarrow(path)
    number = 0
    try:
        with pa.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=batch_size):
                for row in batch.to_pylist():
                    number += 1
                    yield f"Row {number} of '{path}'", row
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"'{path}' cannot be read as Parquet ({error}): write it anew.") from error


def read_parquet(path: Path) -> tuple[PreferencePair, ...]:
    """Return every pair in file order.

    Args:
        path: An existing file.

    Raises:
        DataError: No Parquet file, or a row is no pair; the message names file and row. Or pyarrow is not installed.
    """
    return tuple(row_to_pair(row, where=where) for where, row in read_rows(path))


def append_parquet(path: Path, pairs: Sequence[PreferencePair]) -> int:
    """Add pairs by writing the whole file anew, atomically: Parquet cannot be appended to.

    Args:
        path: Target; made where it does not exist, with its folder.
        pairs: What to add; a few large appends are cheaper than many small ones.

    Returns:
        How many were added.

    Raises:
        DataError: The old file cannot be read, or pyarrow is not installed.
    """
    old = read_parquet(path) if path.is_file() else ()
    table = pairs_table([*old, *pairs])
    write_tables(path, table.schema, [table])
    return len(pairs)


def write_tables(path: Path, schema: "pa.Schema", tables: Iterable["pa.Table"]) -> None:
    """Write Arrow tables of one schema as a Parquet file; a killed run leaves the old file or the new one."""
    pa = require_pyarrow(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as stream:
            with pa.parquet.ParquetWriter(stream, schema, compression="zstd") as writer:
                for table in tables:
                    writer.write_table(table)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _to_row(pair: PreferencePair) -> dict[str, Any]:
    row = pair_to_plain(pair)
    for name, part in (LABELS, SOFT):
        row[name] = [{"question": question, part: answer} for question, answer in row.get(name, {}).items()]
    for side in ("a", "b"):
        if "sampler" in row[side]:
            row[side]["sampler"] = json.dumps(row[side]["sampler"], ensure_ascii=False, allow_nan=False)
    return row


def _answers(entries: object, part: str, *, where: str) -> dict[str, object]:
    """Return a list of (question, answer) as a mapping."""
    answers: dict[str, object] = {}
    for entry in entries if isinstance(entries, list) else [entries]:
        if not isinstance(entry, Mapping) or set(entry) != {"question", part}:
            raise DataError(f"{where} holds {entry!r}: each entry is a struct of 'question' and '{part}'.")
        if entry["question"] in answers:
            raise DataError(f"{where} answers '{entry['question']}' twice: keep one.")
        answers[str(entry["question"])] = entry[part]
    return answers


def _clip_tree(clip: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    tree = {name: value for name, value in clip.items() if value is not None}
    if isinstance(tree.get("sampler"), str):
        tree["sampler"] = parse_json(tree["sampler"], where=where)
    return tree
