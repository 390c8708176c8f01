"""Scores of clips for pairs, of whole clips and of stretches of frames; kept by reward, clip and stretch.

A reward's direction is turned here and nowhere else: in what these functions return, higher is better.
"""

import difflib
import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from rewards import registry
from rlhf_video.algorithms.config_sections import RewardTermConfig
from rlhf_video.algorithms.pair_building_clips import Batch, Shelf
from rlhf_video.algorithms.reported_rewards import score_names
from rlhf_video.data import write_atomic
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.runtime import Distribution
from rlhf_video.settings import to_plain

logger = logging.getLogger(__name__)

Span = tuple[int, int]
"""First pixel frame, and the one after the last."""


@dataclass(frozen=True)
class ClipScores:
    """Scores of one stretch of one clip, higher is better."""

    values: dict[str, float]
    """Score name -> value; a score that a reward could not give is left out."""
    reasons: dict[str, str]
    """Score name -> why it is left out."""

    def with_sums(self, sums: Mapping[str, Mapping[str, float]]) -> "ClipScores":
        """Return the same with weighted sums; one that misses a part is left out, with that part's reason."""
        values, reasons = dict(self.values), dict(self.reasons)
        for name, parts in sums.items():
            missing = [part for part in parts if part not in self.values]
            if missing:
                reasons[name] = self.reasons[missing[0]]
            else:
                values[name] = math.fsum(factor * self.values[part] for part, factor in parts.items())
        return ClipScores(values, reasons)


class Scorer:
    """The rewards of a run."""

    def __init__(self, entries: Sequence[RewardTermConfig], sums: Mapping[str, Mapping[str, float]]) -> None:
        """Build every reward and check every name.

        Raises:
            RewardError: A reward or an option is unknown, or weights are missing.
            ConfigError: A dimension is unknown, or a sum names an unknown score.
        """
        self._entries, self._sums = tuple(entries), sums
        self._rewards = {entry.key: registry.build(entry.name, **entry.options) for entry in entries}
        self._names = {entry.key: score_names(entry, self._rewards[entry.key]) for entry in entries}
        own = [name for names in self._names.values() for name in names]
        for name, parts in sums.items():
            if name in own:
                raise ConfigError(f"sums.{name} has the name of a reward's score: choose another one.")
            for part in parts:
                _refuse_unknown(f"sums.{name}", part, own)
        self.names = (*own, *sums)

    def check(self, name: str, *, field: str) -> None:
        """Refuse a score that no reward gives.

        Raises:
            ConfigError: Names the field and the known scores.
        """
        _refuse_unknown(field, name, self.names)

    def score_all(
        self,
        batches: Sequence[Batch],
        spans: Sequence[Span],
        *,
        shelf: Shelf,
        decode: Callable[[Tensor], Tensor],
        folder: Path,
        distribution: Distribution,
    ) -> None:
        """Score what is not scored yet, every process its own batches; call it on every process.

        Args:
            batches: Clips of one size each.
            spans: Stretches of frames to score; the whole clip is one of them.
            shelf: Where the clips are.
            decode: From latents to pixels, for clips that are kept as latents.
            folder: Where scores are kept.
            distribution: The processes.
        """
        own = range(distribution.rank, len(batches), distribution.num_processes)
        for number in tqdm(own, unit="batch", desc="scores", disable=None if distribution.is_main else True):
            todo = [entry for entry in self._entries if self._kept(folder, entry, batches[number], spans) is None]
            if not todo:
                continue
            video = torch.stack([shelf.read(item.clip, decode) for item in batches[number]])
            for entry in todo:
                content = self._score(entry, video, batches[number], spans, distribution.accelerator.device)
                write_atomic(self._file(folder, entry, batches[number], spans), (json.dumps(content) + "\n").encode())
        distribution.barrier()

    def read(self, batch: Batch, spans: Sequence[Span], *, folder: Path) -> list[list[ClipScores]]:
        """Return the scores of a batch: per clip, per span; `score_all` comes before.

        Raises:
            DataError: A file of scores is missing or damaged.
        """
        rows = [[ClipScores({}, {}) for _ in spans] for _ in batch]
        for entry in self._entries:
            table = self._kept(folder, entry, batch, spans)
            if table is None:
                raise DataError(f"Scores of {entry.key} are missing in '{folder}': go on with --resume.")
            for row, cells in zip(rows, table, strict=True):
                for scores, cell in zip(row, cells, strict=True):
                    for name in self._names[entry.key]:
                        if isinstance(cell, str):
                            scores.reasons[name] = cell
                        else:
                            scores.values[name] = cell[name]
        return [[scores.with_sums(self._sums) for scores in row] for row in rows]

    @torch.no_grad()
    def _score(
        self, entry: RewardTermConfig, video: Tensor, batch: Batch, spans: Sequence[Span], device: torch.device
    ) -> list[list[object]]:
        """Return per clip and span {score: value}, or the reason why there is none."""
        reward, names = self._rewards[entry.key], self._names[entry.key]
        sign = 1.0 if reward.spec.higher_is_better else -1.0
        table: list[list[object]] = [[] for _ in batch]
        for start, stop in spans:
            output = reward(video[:, start:stop].to(device), [item.prompt for item in batch], fps=_fps(batch))
            for number, row in enumerate(table):
                numbers = {name: float(output.values[name.rsplit("/", 1)[1]][number]) for name in names}
                if not bool(output.valid[number]):
                    row.append(output.reasons[number] or "the reward gave no reason")
                elif not all(math.isfinite(value) for value in numbers.values()):
                    row.append("the score is not finite")
                else:
                    row.append({name: sign * value for name, value in numbers.items()})
        return table

    def _kept(self, folder: Path, entry: RewardTermConfig, batch: Batch, spans: Sequence[Span]) -> list[list] | None:
        try:
            return list(json.loads(self._file(folder, entry, batch, spans).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except json.JSONDecodeError as error:
            file = self._file(folder, entry, batch, spans)
            raise DataError(f"'{file}' is damaged ({error}): delete it and go on with --resume.") from error

    def _file(self, folder: Path, entry: RewardTermConfig, batch: Batch, spans: Sequence[Span]) -> Path:
        """Return where scores are kept: the name changes with the reward, the clips and the stretches."""
        facts = {
            "reward": [entry.name, to_plain(entry.options), self._rewards[entry.key].spec.version],
            "names": self._names[entry.key],
            "clips": [[item.prompt, item.clip.sha256] for item in batch],
            "spans": list(spans),
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
        return folder / f"{digest}.json"


def _fps(batch: Batch) -> float:
    fps = batch[0].clip.fps
    assert fps is not None, "every clip of this program's own has its frame rate"
    return fps


def _refuse_unknown(field: str, name: str, known: Sequence[str]) -> None:
    if name in known:
        return
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise ConfigError(f"{field} names a score '{name}' that no reward gives.{hint} Known: {', '.join(known)}.")
