"""Preference pairs for training: read, checked, dealt by prompt; and their clips, decoded once while memory lasts."""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rlhf_video.algorithms.reward_model_config import RewardModelConfig
from rlhf_video.data import read_video
from rlhf_video.errors import DataError
from rlhf_video.preferences import PreferencePair, PreferenceStore, refuse_shared_prompts, split_by_prompt

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pairs:
    """Pairs and the folder that their clips' paths start from."""

    pairs: tuple[PreferencePair, ...]
    root: Path

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pairs)

    @property
    def prompts(self) -> list[str]:
        """Return the prompt of each pair."""
        return [pair.prompt for pair in self.pairs]


@dataclass(frozen=True)
class Parts:
    """What is trained on, what is measured, and what only calibrates."""

    train: Pairs
    validation: Pairs
    calibration: Pairs


def load_parts(config: RewardModelConfig) -> Parts:
    """Read, deal and check all pairs, before a model is loaded.

    Raises:
        DataError: A file or a clip is missing or broken, a part has no pair with a label that is asked for, or
            validation prompts are among those that are trained on.
    """
    settings = config.pairs
    store = PreferenceStore(settings.train)
    held = 0.0 if settings.validation is not None else settings.validation_share
    shares = {"calibration": settings.calibration_share, "validation": held}
    dealt = split_by_prompt(store.read(), {**shares, "train": 1 - sum(shares.values())}, seed=config.seed)
    stores = dict.fromkeys(dealt, store)
    if settings.validation is not None:
        stores["validation"] = PreferenceStore(settings.validation)
        dealt["validation"] = stores["validation"].read()
    refuse_shared_prompts(dealt)
    dealt["train"] = tuple(pair for pair in dealt["train"] if _is_asked(pair, config.questions))
    for name, pairs in dealt.items():
        decided = sum(any(pair.winner(question) for question in config.questions) for pair in pairs)
        if decided == 0 and not (name == "calibration" and settings.calibration_share == 0):
            raise DataError(
                f"The {name} part of '{stores[name].path}' holds no winner of {' or '.join(config.questions)}:"
                f" {len(pairs)} pairs in all. Add pairs of more prompts, or change the shares, questions or seed."
            )
        stores[name].check_clips(pairs, hashes=settings.check_hashes)
        logger.info("%s: %d pairs, %d decided, %d prompts", name, len(pairs), decided, len({p.prompt for p in pairs}))
    return Parts(**{name: Pairs(pairs, stores[name].path.parent) for name, pairs in dealt.items()})


def _is_asked(pair: PreferencePair, questions: Sequence[str]) -> bool:
    return any(question in pair.labels or question in pair.soft for question in questions)


@dataclass(frozen=True)
class Clip:
    """A decoded clip."""

    video: Tensor
    """(frames, 3, height, width), uint8."""
    fps: float


class ClipReader:
    """Decodes clips and keeps those used last, up to a bound of memory."""

    def __init__(self, memory_gib: float) -> None:
        self._free = int(memory_gib * 2**30)
        self._kept: OrderedDict[Path, Clip] = OrderedDict()

    def __len__(self) -> int:
        """Return how many clips are kept."""
        return len(self._kept)

    def __call__(self, path: Path) -> Clip:
        """Return a clip.

        Raises:
            DataError: It is missing or cannot be decoded.
        """
        clip = self._kept.pop(path, None)
        if clip is None:
            pixels, fps = read_video(path)
            clip = Clip((pixels * 255).round().byte(), fps)
            self._free -= clip.video.nbytes
        self._kept[path] = clip
        while self._free < 0 and self._kept:
            _, dropped = self._kept.popitem(last=False)
            self._free += dropped.video.nbytes
        return clip


def random_frames(clip: Clip, count: int | None, generator: torch.Generator) -> Clip:
    """Return `count` random frames of a clip in their order, all of them where count is None or not less than all."""
    num_frames = len(clip.video)
    if count is None or count >= num_frames:
        return clip
    chosen = torch.randperm(num_frames, generator=generator)[:count].sort().values
    return Clip(clip.video[chosen], clip.fps)
