"""What every importer and exporter shares: clips that are found, hashed and copied, and counts of what is left out."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from rlhf_video.data.files import sha256_file, write_atomic
from rlhf_video.errors import DataError, RlhfVideoError
from rlhf_video.preferences.listing import listed
from rlhf_video.preferences.pair import ClipRecord, PreferencePair, pair_to_plain
from rlhf_video.preferences.store import PreferenceStore

Row = TypeVar("Row")
CLIPS_FOLDER = "clips"
_MATROSKA = b"\x1aE\xdf\xa3"  # first bytes of .mkv and .webm: embedded clips have no name
LATENTS, SAME_CLIP = "a clip is latents, not video", "both clips are one file"


@dataclass(frozen=True)
class Import:
    """Pairs read from another layout."""

    pairs: tuple[PreferencePair, ...]
    """In the order of the rows; append them to the store that the clips were read for."""
    dropped: Mapping[str, int]
    """Why rows became no pair -> how many."""
    lost: Mapping[str, int]
    """Column that a pair has no place for -> how many rows filled it."""


@dataclass(frozen=True)
class Export:
    """What an export wrote and what it left out."""

    num_rows: int
    dropped: Mapping[str, int]
    """Why pairs became no row -> how many."""
    lost: Mapping[str, int]
    """Fact that the layout has no place for -> how many written pairs had it."""


class ClipIntake:
    """Turns files and bytes of another layout into clip records of a store; each file is hashed once.

    Clips stay where they are and are named relative to the store's folder, unless they are to be copied.
    """

    def __init__(self, store: PreferenceStore, *, copy: bool = False) -> None:
        """Prepare for a store.

        Args:
            store: Its folder is where the records' paths start.
            copy: Whether files outside that folder are copied to its `clips` under a name made of their content.
        """
        self._root = store.path.parent.absolute()
        self._copy = copy
        self._known: dict[Path, tuple[str, str]] = {}
        self._copies: dict[Path, Path] = {}

    def from_file(self, name: str, folder: Path, **facts: Any) -> ClipRecord:
        """Return the record of a file.

        Args:
            name: Path as the other layout has it, absolute or relative to `folder`.
            folder: Where relative paths start.
            facts: Further fields of the record.

        Raises:
            DataError: There is no such file.
        """
        file = (folder / name).absolute()
        if file not in self._known:
            if not name or not file.is_file():
                raise DataError(f"clip '{name}' does not exist in '{folder}'")
            digest = sha256_file(file)
            self._known[file] = self._place(file, digest), digest
        path, digest = self._known[file]
        return ClipRecord(path=path, sha256=digest, **facts)

    def from_bytes(self, content: bytes, suffix: str, **facts: Any) -> ClipRecord:
        """Write embedded bytes to the `clips` folder, under a name made of their content, and return the record."""
        digest = hashlib.sha256(content).hexdigest()
        name = f"{CLIPS_FOLDER}/{_content_name(digest, suffix)}"
        if not (self._root / name).is_file():
            write_atomic(self._root / name, content)
        return ClipRecord(path=name, sha256=digest, **facts)

    def from_value(self, value: object, folder: Path, **facts: Any) -> ClipRecord:
        """Return the record of a clip that a row holds: bytes, {"bytes", "path"} as `datasets` has it, or a path.

        Raises:
            DataError: It is neither, or the file does not exist.
        """
        if isinstance(value, Mapping) and set(value) == {"bytes", "path"}:
            if value["bytes"] is not None:
                return self.from_bytes(value["bytes"], PurePosixPath(value["path"] or "").suffix or ".mp4", **facts)
            value = value["path"]
        if isinstance(value, bytes):
            return self.from_bytes(value, ".mkv" if value.startswith(_MATROSKA) else ".mp4", **facts)
        if isinstance(value, str):
            return self.from_file(value, folder, **facts)
        raise DataError(f"a clip is {type(value).__name__}: give a path, bytes, or {{'bytes': ..., 'path': ...}}")

    def finish(self) -> None:
        """Copy what is to be copied; call it once every row has been read."""
        for source, target in self._copies.items():
            write_atomic(target, source.read_bytes())

    def _place(self, file: Path, digest: str) -> str:
        if file.is_relative_to(self._root) and ".." not in file.parts:
            return file.relative_to(self._root).as_posix()
        if self._copy:
            name = f"{CLIPS_FOLDER}/{_content_name(digest, file.suffix)}"
            self._copies[file] = self._root / name
            return name
        # The folder is resolved and the file not: caches of downloads link names with an ending to ones without.
        return PurePosixPath(os.path.relpath(file.parent.resolve() / file.name, self._root.resolve())).as_posix()


def import_rows(
    rows: Iterable[tuple[str, Row]], build: Callable[[Row], PreferencePair | str], *, intake: ClipIntake, source: Path
) -> tuple[tuple[PreferencePair, ...], Counter[str]]:
    """Turn rows into pairs; what is wrong with any of them is said in one message.

    Args:
        rows: Place of each row for messages, and the row.
        build: Gives the pair of a row, or why there is none; raises a RlhfVideoError where the row is wrong.
        intake: Where the clips go; it copies them once all rows are right.
        source: What is read, for the message.

    Returns:
        The pairs, and the counts of rows without one, by reason.

    Raises:
        DataError: Rows are wrong or name missing clips, or no row became a pair.
    """
    pairs: list[PreferencePair] = []
    dropped: Counter[str] = Counter()
    problems: list[str] = []
    for where, row in rows:
        try:
            made = build(row)
        except RlhfVideoError as error:
            problems.append(f"{where}: {str(error).rstrip('.')}")
            continue
        if isinstance(made, str):
            dropped[made] += 1
        else:
            pairs.append(made)
    total = len(pairs) + dropped.total() + len(problems)
    if problems:
        raise DataError(
            f"{len(problems)} of {total} rows of '{source}' cannot be imported: {listed(problems)}. Correct these rows "
            "or restore their clips; nothing was imported."
        )
    if not pairs:
        raise DataError(f"None of {total} rows of '{source}' is a pair: {counts_text(dropped) or 'there is no row'}.")
    intake.finish()
    return tuple(pairs), dropped


class ClipOutlet:
    """Names the clips of a store for a file in another folder, and copies them there where asked to."""

    def __init__(self, store: PreferenceStore, folder: Path, *, copy: bool) -> None:
        """Prepare for a target folder.

        Args:
            store: Where the clips lie.
            folder: Of the exported file.
            copy: Whether clips are copied to `clips` in that folder under a name made of their content.
        """
        self._store, self._folder, self._copy = store, folder.absolute(), copy

    def __call__(self, clip: ClipRecord) -> str:
        """Return a clip's path relative to the target folder; copy it first where asked to."""
        source = self._store.clip_path(clip)
        if not self._copy:
            place = source.absolute().parent.resolve() / source.name
            return PurePosixPath(os.path.relpath(place, self._folder.resolve())).as_posix()
        name = f"{CLIPS_FOLDER}/{_content_name(clip.sha256, source.suffix)}"
        if not (self._folder / name).is_file():
            write_atomic(self._folder / name, source.read_bytes())
        return name


def videos_of(pairs: Sequence[PreferencePair], dropped: Counter[str]) -> Iterator[PreferencePair]:
    """Yield the pairs whose clips are videos; the others are counted, since other layouts know no latents."""
    for pair in pairs:
        if any(clip.is_latent for clip in pair.clips):
            dropped[LATENTS] += 1
        else:
            yield pair


def lost_facts(pairs: Iterable[PreferencePair], holds: Collection[str]) -> Counter[str]:
    """Count the facts that a layout has no place for.

    Args:
        pairs: What was written.
        holds: Names of what the layout holds, for example "margin", "labels.overall", "clips.seed".

    Returns:
        Name of a fact -> number of pairs that have it.
    """
    return Counter(fact for pair in pairs for fact in _facts(pair) if fact not in holds)


def refuse_nothing(num_rows: int, dropped: Mapping[str, int], path: Path) -> None:
    """Refuse an export without a row.

    Raises:
        DataError: There is none; the message says why each pair was left out.
    """
    if not num_rows:
        raise DataError(f"No pair can be written to '{path}': {counts_text(dropped) or 'there are no pairs'}.")


def text_of(row: Mapping[str, Any], name: str) -> str | None:
    """Return a foreign row's text; None where there is none.

    Raises:
        DataError: It is something else.
    """
    value = row.get(name)
    if value is None or isinstance(value, str):
        return value
    raise DataError(f"{name}={value!r} must be text")


def counts_text(counts: Mapping[str, int]) -> str:
    """Return counts as one phrase, the largest first; empty where there are none."""
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item)))


def _facts(pair: PreferencePair) -> set[str]:
    """Return the names of what a pair says beyond its prompt and its files."""
    plain = pair_to_plain(pair)
    facts = {f"{name}.{question}" for name in ("labels", "soft") for question in plain.get(name, {})}
    facts |= {f"clips.{name}" for side in ("a", "b") for name in plain[side] if name not in ("path", "sha256")}
    facts |= set(plain) - {"version", "prompt", "a", "b", "labels", "soft", "weight"}
    return facts | ({"weight"} if pair.weight != 1.0 else set())


def _content_name(digest: str, suffix: str) -> str:
    return f"{digest[:32]}{suffix.lower()}"
