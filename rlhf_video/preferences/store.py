"""A file of preference pairs, one JSON object a line: appended to, never rewritten; its clips lie beside it."""

import hashlib
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rlhf_video.data.files import sha256_file
from rlhf_video.errors import DataError
from rlhf_video.preferences.pair import ClipRecord, PreferencePair, pair_to_json, parse_pair

_SHOWN = 5  # broken clips that a message lists


class PreferenceStore:
    """The pairs of one JSON lines file and the clips that they name."""

    def __init__(self, path: str | Path) -> None:
        """Name the file; it need not exist yet.

        Raises:
            DataError: The file has another ending than .jsonl.
        """
        self.path = Path(path)
        if self.path.suffix != ".jsonl":
            raise DataError(f"Preference pairs '{self.path}' must be a .jsonl file: one JSON object a line.")

    def append(self, pairs: Iterable[PreferencePair]) -> int:
        """Write pairs at the end and flush them to the disk.

        Returns:
            How many were written.

        Raises:
            DataError: The last line of the file was cut off by a kill.
        """
        lines = [pair_to_json(pair) + "\n" for pair in pairs]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as stream:
            if stream.tell() > 0:
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    raise DataError(f"The last line of '{self.path}' is cut off: delete it, then append again.")
            stream.write("".join(lines).encode())
            stream.flush()
            os.fsync(stream.fileno())
        return len(lines)

    def read(self) -> tuple[PreferencePair, ...]:
        """Return every pair in file order.

        Raises:
            DataError: The file is missing, empty, not UTF-8, or a line is no pair; the message names file and line.
        """
        if not self.path.is_file():
            raise DataError(f"There is no file of preference pairs '{self.path}': build it first, or correct the path.")
        try:
            lines = self.path.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise DataError(f"'{self.path}' is not UTF-8 text (byte {error.start}): save it as UTF-8.") from error
        if lines[-1] == "":
            lines.pop()
        if not lines:
            raise DataError(f"'{self.path}' holds no preference pair: write one a line.")
        return tuple(
            parse_pair(line, where=f"Line {number} of '{self.path}'") for number, line in enumerate(lines, start=1)
        )

    def clip_path(self, clip: ClipRecord) -> Path:
        """Return where a clip lies."""
        return self.path.parent / clip.path

    def check_clips(self, pairs: Sequence[PreferencePair], *, hashes: bool = True) -> None:
        """Refuse missing and changed clips, all at once, before anything expensive starts.

        Args:
            pairs: Pairs of this store.
            hashes: Whether to compare contents too, which reads every file once.

        Raises:
            DataError: A clip is missing, its content is another than recorded, or one path is recorded with two hashes.
        """
        recorded: dict[str, str] = {}
        problems: list[str] = []
        for clip in (clip for pair in pairs for clip in pair.clips):
            known = recorded.setdefault(clip.path, clip.sha256)
            if known != clip.sha256:
                problems.append(f"{clip.path} is recorded with two hashes")
        for name, digest in recorded.items():
            file = self.path.parent / name
            if not file.is_file():
                problems.append(f"{name} is missing")
            elif hashes and sha256_file(file) != digest:
                problems.append(f"{name} is not the recorded file (sha256 differs)")
        if problems:
            more = f", and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
            raise DataError(
                f"{len(problems)} of {len(recorded)} clips of '{self.path}' cannot be used: "
                f"{'; '.join(problems[:_SHOWN])}{more}. Restore the clips, or leave their pairs out."
            )


def prompt_key(prompt: str) -> str:
    """Return what two spellings of one prompt share: case and white space do not count."""
    return " ".join(prompt.split()).casefold()


def split_by_prompt(
    pairs: Sequence[PreferencePair], shares: Mapping[str, float], *, seed: int = 0
) -> dict[str, tuple[PreferencePair, ...]]:
    """Deal the pairs into named parts; all pairs of a prompt go to the same part.

    A hash of seed and prompt decides, so adding pairs or changing their order moves no prompt.

    Args:
        pairs: What to split.
        shares: Part -> share of the prompts, summing to 1, in the order in which parts take hash values.
        seed: Another seed deals anew.

    Raises:
        DataError: The shares are negative or do not sum to 1.
    """
    if any(share < 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-9:
        raise DataError(f"Shares {dict(shares)} must be 0 or more and sum to 1.")
    parts: dict[str, list[PreferencePair]] = {name: [] for name in shares}
    takers = [name for name, share in shares.items() if share > 0]
    bounds = list(zip(takers, itertools.accumulate(shares[name] for name in takers), strict=True))
    for pair in pairs:
        place = _place(pair.prompt, seed)
        # The last one takes what rounding leaves above its bound.
        taker = next((name for name, bound in bounds if place < bound), bounds[-1][0])
        parts[taker].append(pair)
    return {name: tuple(part) for name, part in parts.items()}


def refuse_shared_prompts(parts: Mapping[str, Sequence[PreferencePair]]) -> None:
    """Refuse parts that share a prompt: accuracy on trained prompts proves nothing.

    Raises:
        DataError: Two parts share one; the message names it.
    """
    seen: dict[str, str] = {}
    for name, pairs in parts.items():
        for key in sorted({prompt_key(pair.prompt) for pair in pairs}):
            if key in seen:
                raise DataError(
                    f"The {seen[key]} and {name} pairs share prompts, for example '{key}': remove them from one of the "
                    "two, accuracy on trained prompts proves nothing."
                )
            seen[key] = name


def _place(prompt: str, seed: int) -> float:
    """Return a number in [0, 1) that depends on seed and prompt alone."""
    digest = hashlib.sha256(f"{seed}\0{prompt_key(prompt)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
