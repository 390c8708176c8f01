"""Rows of a CSV or JSON lines file, read strictly: what does not fit is an error that names its line."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_video.errors import DataError


@dataclass(frozen=True)
class Row:
    """One line of an annotation file."""

    file: Path
    line: int
    values: dict[str, object]

    def text(self, column: str) -> str:
        """Return a text without outer white space.

        Raises:
            DataError: The column is absent, empty or holds something else than text.
        """
        value = self.values.get(column)
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"Line {self.line} of '{self.file}': {column!r} must be a text, got {value!r}.")
        return value.strip()

    def optional(self, column: str) -> str:
        """Return a text without outer white space, "" where the cell is absent or empty (null, NaN).

        Raises:
            DataError: The column holds something else than text.
        """
        value = self.values.get(column)
        # pandas writes a missing text as the number NaN, also into JSON.
        if value is None or (isinstance(value, float) and value != value):
            return ""
        if not isinstance(value, str):
            raise DataError(f"Line {self.line} of '{self.file}': {column!r} must be a text, got {value!r}.")
        return "" if value.strip().lower() == "nan" else value.strip()

    def part(self, column: str) -> "Row":
        """Return an object inside this row as a row of its own.

        Raises:
            DataError: The column holds something else than an object.
        """
        value = self.values.get(column)
        if not isinstance(value, dict):
            raise DataError(f"Line {self.line} of '{self.file}': {column!r} must be an object {{...}}, got {value!r}.")
        return Row(self.file, self.line, value)


def read_rows(path: Path, required: Sequence[str], *, advice: str = "") -> list[Row]:
    """Read all rows of an annotation file.

    Args:
        path: A .csv file with a header, or a .jsonl file with one object a line.
        required: Columns that must be there.
        advice: Last sentence of the messages: where the file comes from.

    Raises:
        DataError: The file is missing, not UTF-8, of another ending, malformed, empty, or lacks a column.
    """
    if not path.is_file():
        raise DataError(f"Annotation file '{path}' does not exist. {advice}".strip())
    if path.suffix not in (".csv", ".jsonl"):
        raise DataError(f"Annotation file '{path}' ends in '{path.suffix}': use .csv or .jsonl. {advice}".strip())
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"Annotation file '{path}' is not UTF-8 text (byte {error.start}): save it as UTF-8."
        ) from error
    rows = _csv_rows(path, text) if path.suffix == ".csv" else _json_rows(path, text)
    if not rows:
        raise DataError(f"Annotation file '{path}' holds no row. {advice}".strip())
    for row in rows if path.suffix == ".jsonl" else rows[:1]:
        missing = [column for column in required if column not in row.values]
        if missing:
            found = ", ".join(row.values)
            raise DataError(
                f"Line {row.line} of '{path}' lacks the columns {', '.join(missing)}; it has {found}. {advice}".strip()
            )
    return rows


def _csv_rows(path: Path, text: str) -> list[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    try:
        header = next(reader, [])
        twice = sorted({column for column in header if header.count(column) > 1})
        if twice:
            raise DataError(f"The header of '{path}' names {', '.join(twice)} twice: keep one column of each name.")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"Line {reader.line_num} of '{path}' has {len(cells)} cells where the header has {len(header)}: "
                    "quote cells that hold commas, or fetch the file again."
                )
            rows.append(Row(path, reader.line_num, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise DataError(f"Line {reader.line_num} of '{path}' is not CSV ({error}): fetch the file again.") from error
    return rows


def _json_rows(path: Path, text: str) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"Line {number} of '{path}' is not JSON ({error.msg}): fetch the file again.") from error
        if not isinstance(value, dict):
            raise DataError(f"Line {number} of '{path}' is not an object: write one {{...}} a line.")
        rows.append(Row(path, number, value))
    return rows
