"""A file of preference pairs, .jsonl or .parquet, which hold the same records; its clips lie beside it."""

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rlhf_video.data.files import sha256_file
from rlhf_video.errors import DataError
from rlhf_video.preferences.jsonl_file import append_jsonl, read_jsonl
from rlhf_video.preferences.listing import listed
from rlhf_video.preferences.pair import ClipRecord, PreferencePair
from rlhf_video.preferences.parquet_file import append_parquet, read_parquet


class PreferenceStore:
    """The pairs of one file and the clips that they name.

    JSON lines are for growing (each append adds lines), Parquet for publishing (each append writes the file anew).
    """

    def __init__(self, path: str | Path) -> None:
        """Name the file; it need not exist yet.

        Raises:
            DataError: The file has another ending than .jsonl or .parquet.
        """
        self.path = Path(path)
        if self.path.suffix not in (".jsonl", ".parquet"):
            raise DataError(
                f"Preference pairs '{self.path}' must be a .jsonl file, one JSON object a line, or a .parquet file; "
                "`rlhf-video pairs import` reads other layouts."
            )

    def append(self, pairs: Iterable[PreferencePair]) -> int:
        """Write pairs at the end and flush them to the disk.

        Returns:
            How many were written.

        Raises:
            DataError: The last line of the file was cut off by a kill, or pyarrow, which Parquet needs, is missing.
        """
        append = append_jsonl if self.path.suffix == ".jsonl" else append_parquet
        return append(self.path, tuple(pairs))

    def read(self) -> tuple[PreferencePair, ...]:
        """Return every pair in file order.

        Raises:
            DataError: The file is missing, empty, damaged, or a line or row is no pair; the message names both. Or
                pyarrow, which Parquet needs, is missing.
        """
        if not self.path.is_file():
            raise DataError(f"There is no file of preference pairs '{self.path}': build it first, or correct the path.")
        pairs = read_jsonl(self.path) if self.path.suffix == ".jsonl" else read_parquet(self.path)
        if not pairs:
            raise DataError(f"'{self.path}' holds no preference pair: write at least one.")
        return pairs

    def clip_path(self, clip: ClipRecord) -> Path:
        """Return where a clip lies."""
        return self.path.parent / clip.path

    def clip_problems(self, pairs: Sequence[PreferencePair], *, hashes: bool = True) -> dict[str, str]:
        """Return what is wrong with the files of clips: recorded path -> one phrase that names it.

        Args:
            pairs: Pairs of this store.
            hashes: Whether to compare contents too, which reads every file once.
        """
        recorded: dict[str, str] = {}
        problems: dict[str, str] = {}
        for clip in (clip for pair in pairs for clip in pair.clips):
            if recorded.setdefault(clip.path, clip.sha256) != clip.sha256:
                problems[clip.path] = f"{clip.path} is recorded with two hashes"
        for name, digest in recorded.items():
            file = self.path.parent / name
            if not file.is_file():
                problems[name] = f"{name} is missing"
            elif hashes and name not in problems and sha256_file(file) != digest:
                problems[name] = f"{name} is not the recorded file (sha256 differs)"
        return problems

    def check_clips(self, pairs: Sequence[PreferencePair], *, hashes: bool = True) -> None:
        """Refuse missing and changed clips, all at once, before anything expensive starts.

        Args:
            pairs: Pairs of this store.
            hashes: Whether to compare contents too, which reads every file once.

        Raises:
            DataError: A clip is missing, its content is another than recorded, or one path is recorded with two hashes.
        """
        problems = list(self.clip_problems(pairs, hashes=hashes).values())
        if problems:
            count = len({clip.path for pair in pairs for clip in pair.clips})
            raise DataError(
                f"{len(problems)} of {count} clips of '{self.path}' cannot be used: {listed(problems)}. "
                "Restore the clips, or leave their pairs out."
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
