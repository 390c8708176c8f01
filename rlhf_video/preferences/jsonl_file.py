"""Preference pairs as JSON lines: one object a line, appended to, never rewritten; and JSON lines of others."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rlhf_video.errors import DataError
from rlhf_video.preferences.pair import PreferencePair, pair_to_json, parse_pair


def append_jsonl(path: Path, pairs: Iterable[PreferencePair]) -> int:
    """Write pairs at the end of a file and flush them to the disk.

    Args:
        path: Target; made where it does not exist, with its folder.
        pairs: What to add.

    Returns:
        How many were written.

    Raises:
        DataError: The last line of the file was cut off by a kill.
    """
    lines = [pair_to_json(pair) + "\n" for pair in pairs]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as stream:
        if stream.tell() > 0:
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                raise DataError(f"The last line of '{path}' is cut off: delete it, then append again.")
        stream.write("".join(lines).encode())
        stream.flush()
        os.fsync(stream.fileno())
    return len(lines)


def read_jsonl(path: Path) -> tuple[PreferencePair, ...]:
    """Return every pair in file order.

    Args:
        path: An existing file.

    Raises:
        DataError: The file is not UTF-8, or a line is no pair; the message names file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"'{path}' is not UTF-8 text (byte {error.start}): save it as UTF-8.") from error
    if lines[-1] == "":
        lines.pop()
    return tuple(parse_pair(line, where=f"Line {number} of '{path}'") for number, line in enumerate(lines, start=1))


def json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place for messages, object) of a JSON lines file.

    Raises:
        DataError: The file is missing, or a line is no JSON object in UTF-8.
    """
    if not path.is_file():
        raise DataError(f"There is no file '{path}': correct the path.")
    try:
        with path.open(encoding="utf-8", newline="\n") as stream:
            for number, line in enumerate(stream, start=1):
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise DataError(f"Line {number} of '{path}' is no object: write one row a line.")
                yield f"Line {number}", row
    except ValueError as error:  # of JSON or of UTF-8
        if isinstance(error, DataError):
            raise
        raise DataError(f"'{path}' is not JSON lines in UTF-8 ({error}): write one object a line.") from error
