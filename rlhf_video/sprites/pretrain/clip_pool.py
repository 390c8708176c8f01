"""Clips to learn rewards from, rendered and generated, each with the verifier's reading; and noisy votes on them."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlhf_video.sprites.grammar import Scene
from rlhf_video.sprites.verifier import ClipReading, judge_reading

VOTE_SHARPNESS = 10.0
"""How surely a vote follows a difference in verifier score: P(A wins) = sigmoid(sharpness x difference)."""
VOTE_FLIPS = 0.08
"""Share of votes that are simply wrong."""


@dataclass(frozen=True)
class ClipPool:
    """Clips with their prompts' scenes and readings.

    `videos` is (n, frames, 3, 64, 64) uint8; `scenes[i]` is what clip i was rendered or generated for.
    """

    videos: Tensor
    scenes: tuple[Scene, ...]
    readings: tuple[ClipReading, ...]

    def __add__(self, other: "ClipPool") -> "ClipPool":
        """Return both pools as one."""
        return ClipPool(
            torch.cat([self.videos, other.videos]), self.scenes + other.scenes, self.readings + other.readings
        )

    def scores(self, clips: Sequence[int], scenes: Sequence[Scene], attributes: tuple[str, ...]) -> np.ndarray:
        """Return the verifier's score of each clip for each scene, shape (scenes, clips) in [0, 1]."""
        return np.array([[judge_reading(self.readings[i], scene).score(attributes) for i in clips] for scene in scenes])

    def draw(self, rng: np.random.Generator, num_groups: int, group_size: int) -> list[int]:
        """Return clip indices in groups: clips of one scene first, then those of similar scenes.

        Similar clips make informative pairs: a vote between a red circle and a blue cross teaches little about shape.
        """
        chosen: list[int] = []
        for anchor in rng.integers(len(self.scenes), size=num_groups):
            rivals = rng.integers(len(self.scenes), size=64)
            likeness = [_likeness(self.scenes[anchor], self.scenes[rival]) for rival in rivals]
            nearest = rivals[np.argsort(likeness)[::-1][: group_size - 1]]
            same = [i for i in self._by_scene[self.scenes[anchor]] if i != anchor]
            rng.shuffle(same)
            chosen += [int(anchor), *(same + nearest.tolist())[: group_size - 1]]
        return chosen

    @functools.cached_property
    def _by_scene(self) -> dict[Scene, list[int]]:
        by_scene: dict[Scene, list[int]] = {}
        for i, scene in enumerate(self.scenes):
            by_scene.setdefault(scene, []).append(i)
        return by_scene


def votes(
    scores: np.ndarray, rng: np.random.Generator, *, pairs_per_prompt: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Let noisy voters compare clips under each prompt.

    Args:
        scores: Verifier scores, shape (prompts, clips).
        rng: Source of randomness.
        pairs_per_prompt: Comparisons per prompt.

    Returns:
        Prompt, winner and loser indices, each of shape (votes,). Pairs that look alike (difference < 0.02) get no vote.
    """
    num_prompts, num_clips = scores.shape
    prompt = np.repeat(np.arange(num_prompts), pairs_per_prompt)
    a, b = rng.integers(num_clips, size=(2, len(prompt)))
    difference = scores[prompt, a] - scores[prompt, b]
    keep = np.abs(difference) > 0.02
    prompt, a, b, difference = prompt[keep], a[keep], b[keep], difference[keep]
    a_wins = rng.random(len(prompt)) < 1 / (1 + np.exp(-VOTE_SHARPNESS * difference))
    a_wins ^= rng.random(len(prompt)) < VOTE_FLIPS
    return prompt, np.where(a_wins, a, b), np.where(a_wins, b, a)


def _likeness(one: Scene, other: Scene) -> int:
    """Return how many attributes two scenes share, objects in order."""
    shared = int(one.background == other.background) + int(len(one.sprites) == len(other.sprites))
    for s, t in zip(one.sprites, other.sprites, strict=False):
        shared += (s.colour == t.colour) + (s.shape == t.shape) + (s.motion == t.motion)
    return shared
