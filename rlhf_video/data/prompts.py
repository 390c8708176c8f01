"""Prompt suites: a text file with one prompt a line, or JSON lines {"prompt": ...}."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rlhf_video.errors import DataError

_VERSION = re.compile(r"#\s*version:\s*(\S+)\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class PromptSuite:
    """An ordered set of distinct prompts that results can name."""

    name: str
    """The file's name without its ending."""
    version: str
    """Value of a "# version: 2" line of a text file, else "1"."""
    prompts: tuple[str, ...]
    sha256: str
    """Hash of the prompts joined by line feeds: comments and blank lines at the end do not change it."""

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self.prompts)


def load_prompts(path: str | Path) -> PromptSuite:
    """Read a suite and refuse what would make a result ambiguous.

    Args:
        path: A .txt file (one prompt a line, lines that start with "#" are comments) or a .jsonl file
            (one object with the key "prompt" a line).

    Returns:
        The suite, prompts in file order, outer white space removed.

    Raises:
        DataError: The file is missing, not UTF-8, of another ending, malformed, empty, or has a blank or duplicate
            prompt; the message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"Prompt file '{path}' does not exist: give a .txt file with one prompt a line, or a .jsonl file."
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"Prompt file '{path}' is not UTF-8 text (byte {error.start}): save it as UTF-8.") from error
    if path.suffix == ".txt":
        numbered = list(_text_prompts(lines, path))
    elif path.suffix == ".jsonl":
        numbered = list(_json_prompts(lines, path))
    else:
        raise DataError(f"Prompt file '{path}' ends in '{path.suffix}': use .txt (one prompt a line) or .jsonl.")
    if not numbered:
        raise DataError(f"Prompt file '{path}' holds no prompt: write one a line.")
    _refuse_duplicates(numbered, path)
    prompts = tuple(prompt for _, prompt in numbered)
    versions = [match[1] for line in lines if (match := _VERSION.match(line.strip()))]
    digest = hashlib.sha256("\n".join(prompts).encode()).hexdigest()
    return PromptSuite(name=path.stem, version=versions[0] if versions else "1", prompts=prompts, sha256=digest)


def _text_prompts(lines: list[str], path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, prompt); blank lines are allowed only around the prompts."""
    last = max((number for number, line in enumerate(lines, 1) if _is_prompt(line)), default=0)
    started = False
    for number, line in enumerate(lines[:last], 1):
        text = line.strip()
        if text.startswith("#"):
            continue
        if not text and started:
            raise DataError(
                f"Line {number} of '{path}' is blank: delete it, or put '#' in front to use it as a spacer."
            )
        if text:
            started = True
            yield number, text


def _is_prompt(line: str) -> bool:
    return bool(line.strip()) and not line.strip().startswith("#")


def _json_prompts(lines: list[str], path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, prompt) of every JSON object."""
    for number, line in enumerate(lines, 1):
        if not line.strip() and number == len(lines):
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f'Line {number} of \'{path}\' is not JSON ({error.msg}): write {{"prompt": "..."}}.'
            ) from error
        prompt = record.get("prompt") if isinstance(record, dict) else None
        if not isinstance(prompt, str) or not prompt.strip():
            raise DataError(f'Line {number} of \'{path}\' has no text under "prompt": write {{"prompt": "..."}}.')
        yield number, prompt.strip()


def _refuse_duplicates(numbered: list[tuple[int, str]], path: Path) -> None:
    """Raise DataError when two prompts differ in case or white space at most."""
    seen: dict[str, int] = {}
    for number, prompt in numbered:
        key = " ".join(prompt.split()).casefold()
        if key in seen:
            raise DataError(
                f"Line {number} of '{path}' repeats line {seen[key]} ('{prompt[:80]}'): delete one of them, "
                "a prompt counted twice narrows every interval wrongly."
            )
        seen[key] = number
