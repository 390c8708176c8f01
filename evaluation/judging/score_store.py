"""Scores of clips in an append-only JSON lines file, so that each clip is scored once and a killed run goes on."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from evaluation.option_hash import options_sha256
from rlhf_video.errors import DataError

_OPENING = b'{"key": "'
"""How every line begins; what is torn off a line begins so too."""


@dataclass(frozen=True, kw_only=True)
class RewardIdentity:
    """What a score depends on beside clip and prompt."""

    reward: str
    """Name and version, for example "hps_v2@1"."""
    options: str
    """SHA-256 over the options, and over the content of every file or folder that they name."""

    @classmethod
    def of(cls, name: str, version: str, options: Mapping[str, object]) -> Self:
        """Return the identity of a reward built with these options."""
        return cls(reward=f"{name}@{version}", options=options_sha256(options))


@dataclass(frozen=True, kw_only=True)
class ClipScore:
    """A clip's scores, and what is measured on its pixels to see what the reward leans on."""

    values: Mapping[str, float]
    """Reward dimension -> finite score."""
    covariates: Mapping[str, float]
    """Name -> finite value, see `evaluation.judging.scoring.COVARIATES`."""


class ScoreStore:
    """The file and an index of it. One process at a time: two that append to one file would tear each other's lines."""

    def __init__(self, path: Path, identity: RewardIdentity) -> None:
        """Read what is there and drop a last line that a killed run left unfinished.

        Raises:
            DataError: A line before the last one is not a score: the file is not ours, or damaged.
        """
        self.path, self._identity = path, identity
        self._scores: dict[str, ClipScore] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes() if path.is_file() else b""
        whole, _, torn = content.rpartition(b"\n")
        if not torn.startswith(_OPENING) and not _OPENING.startswith(torn):
            raise DataError(f"'{path}' is not a score file: give another file with --cache; this one was not touched.")
        for number, line in enumerate(whole.split(b"\n") if whole else [], 1):
            key, score = self._parse(line, number)
            self._scores[key] = score
        self._stream = path.open("ab")
        if torn:
            self._stream.truncate(len(content) - len(torn))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def __len__(self) -> int:
        """Return the number of scores in the file, of all rewards."""
        return len(self._scores)

    def find(self, clip_sha256: str, prompt: str) -> ClipScore | None:
        """Return the score of a clip by its content, None if it is not there."""
        return self._scores.get(self._key(clip_sha256, prompt))

    def add(self, clip_sha256: str, prompt: str, score: ClipScore) -> None:
        """Append a score; it is in the file when this returns, also if the process is killed then."""
        key = self._key(clip_sha256, prompt)
        record = {
            "key": key,
            "clip_sha256": clip_sha256,
            "prompt": prompt,
            "reward": self._identity.reward,
            "options_sha256": self._identity.options,
            "values": dict(score.values),
            "covariates": dict(score.covariates),
        }
        self._stream.write(json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        self._stream.flush()
        self._scores[key] = score

    def _key(self, clip_sha256: str, prompt: str) -> str:
        parts = [clip_sha256, prompt, self._identity.reward, self._identity.options]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _parse(self, line: bytes, number: int) -> tuple[str, ClipScore]:
        try:
            record = json.loads(line)
            return str(record["key"]), ClipScore(values=record["values"], covariates=record["covariates"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"Line {number} of the score file '{self.path}' is not a score: delete that line, or give another file "
                "with --cache."
            ) from error
