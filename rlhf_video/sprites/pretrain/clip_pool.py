"""Clips to learn rewards from, rendered and generated, each with the verifier's reading."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlhf_video.sprites.grammar import Attribute, Scene, Split, random_scenes, swap_one_attribute
from rlhf_video.sprites.renderer import FPS, NUM_FRAMES, render
from rlhf_video.sprites.verifier import ClipReading, judge_reading, reading_of

GROUP = 4
"""Clips come in groups of this size whose scenes are alike: a vote between a red circle and a blue cross teaches little
about shape, one between a red circle and a red square does."""


@dataclass(frozen=True)
class ClipPool:
    """Clips with the scenes they were rendered or generated for, and their readings.

    `videos` is (n, frames, 3, 64, 64) uint8.
    """

    videos: Tensor
    scenes: tuple[Scene, ...]
    readings: tuple[ClipReading, ...]

    def __add__(self, other: "ClipPool") -> "ClipPool":
        """Return both pools as one."""
        return ClipPool(
            torch.cat([self.videos, other.videos]), self.scenes + other.scenes, self.readings + other.readings
        )

    def scores(self, scenes: Sequence[Scene], attributes: tuple[str, ...]) -> np.ndarray:
        """Return the verifier's score of each clip for each scene, shape (scenes, clips) in [0, 1]."""
        return np.array([[judge_reading(r, scene).score(attributes) for r in self.readings] for scene in scenes])

    def groups(self, rng: np.random.Generator, count: int) -> "ClipPool":
        """Return `count` groups: a clip, others of its prompt, then clips of the most similar prompts."""
        chosen: list[int] = []
        for anchor in rng.integers(len(self.scenes), size=count):
            rivals = rng.integers(len(self.scenes), size=64)
            likeness = [_likeness(self.scenes[anchor], self.scenes[rival]) for rival in rivals]
            similar = rivals[np.argsort(likeness)[::-1]].tolist()
            same = [i for i in self._by_scene[self.scenes[anchor]] if i != anchor]
            rng.shuffle(same)
            chosen += [int(anchor), *(same[: GROUP // 2] + similar)[: GROUP - 1]]
        return ClipPool(
            self.videos[chosen], tuple(self.scenes[i] for i in chosen), tuple(self.readings[i] for i in chosen)
        )

    @functools.cached_property
    def _by_scene(self) -> dict[Scene, list[int]]:
        by_scene: dict[Scene, list[int]] = {}
        for i, scene in enumerate(self.scenes):
            by_scene.setdefault(scene, []).append(i)
        return by_scene


def rendered_groups(
    rng: np.random.Generator,
    split: Split,
    count: int,
    *,
    num_frames: int = NUM_FRAMES,
    fps: float = FPS,
    motion_share: float = 0.0,
) -> ClipPool:
    """Render `count` groups: a scene of the split, and scenes that differ from it in one attribute.

    Args:
        rng: Source of randomness.
        split: The set to draw from.
        count: Groups of `GROUP` clips.
        num_frames: Frames per clip.
        fps: Frames per second.
        motion_share: Least share of groups that differ in motion alone; in the others, any one attribute differs.
    """
    generator = random_scenes(split, rng, two_object_share=0.35)
    scenes: list[Scene] = []
    for anchor in itertools.islice(generator, count):
        attribute: Attribute | None = "motion" if rng.random() < motion_share else None
        scenes += [anchor, *(swap_one_attribute(anchor, rng, attribute=attribute) for _ in range(GROUP - 1))]
    video = render(scenes, rng.integers(2**31, size=len(scenes)).tolist(), num_frames=num_frames, fps=fps)
    return ClipPool((video * 255).round().byte(), tuple(scenes), tuple(map(reading_of, scenes)))


def _likeness(one: Scene, other: Scene) -> int:
    """Return how many attributes two scenes share, objects in order."""
    shared = int(one.background == other.background) + int(len(one.sprites) == len(other.sprites))
    for s, t in zip(one.sprites, other.sprites, strict=False):
        shared += (s.colour == t.colour) + (s.shape == t.shape) + (s.motion == t.motion)
    return shared
