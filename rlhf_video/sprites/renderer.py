"""Draw sprite scenes: anti-aliased, vectorised over clips, deterministic by seed, on a torus of any size and duration.

Letters: B batch, F frames, H height, W width, S sprites.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlhf_video.sprites.grammar import RGB, Scene, Sprite

SIZE, NUM_FRAMES, FPS = 64, 21, 8
_DIRECTIONS = {
    "moving left": (-1.0, 0.0),
    "moving right": (1.0, 0.0),
    "moving up": (0.0, -1.0),
    "moving down": (0.0, 1.0),
}


@dataclass(frozen=True)
class Placement:
    """Where one object starts and how fast it goes; sizes and speeds as fractions of the frame's side."""

    x: float
    y: float
    radius: float
    speed: float
    phase: float
    period: float

    def track(self, sprite: Sprite, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return x, y (on the unit torus) and radius at each time; every motion is defined for any duration."""
        angle = self.phase + 2 * math.pi * seconds / self.period
        x, y = np.full_like(seconds, self.x), np.full_like(seconds, self.y)
        radius = np.full_like(seconds, self.radius)
        if sprite.motion in _DIRECTIONS:
            dx, dy = _DIRECTIONS[sprite.motion]
            x, y = x + dx * self.speed * seconds, y + dy * self.speed * seconds
        elif sprite.motion == "circling":
            x, y = x + 0.14 * np.cos(angle), y + 0.14 * np.sin(angle)
        elif sprite.motion == "pulsing":
            radius = radius * (1 + 0.32 * np.sin(angle))
        return x % 1, y % 1, radius


def place(scene: Scene, rng: np.random.Generator) -> tuple[Placement, ...]:
    """Draw placements; of several draws the one whose objects stay furthest apart, so that both can be seen."""
    low, high = (0.17, 0.23) if len(scene.sprites) == 1 else (0.16, 0.19)
    seconds = np.arange(NUM_FRAMES) / FPS

    def draw() -> tuple[Placement, ...]:
        return tuple(_place_one(sprite, rng.uniform(low, high), rng) for sprite in scene.sprites)

    if len(scene.sprites) == 1:
        return draw()

    def closest(placements: tuple[Placement, ...]) -> float:
        (xa, ya, _), (xb, yb, _) = (p.track(s, seconds) for p, s in zip(placements, scene.sprites, strict=True))
        dx, dy = ((a - b + 0.5) % 1 - 0.5 for a, b in ((xa, xb), (ya, yb)))
        return float(np.sort(np.hypot(dx, dy))[: NUM_FRAMES // 3].mean())

    return max((draw() for _ in range(24)), key=closest)


def _place_one(sprite: Sprite, radius: float, rng: np.random.Generator) -> Placement:
    """Start an object so that the clips of the built-in length show it whole most of the time; longer ones wrap."""
    reach = {"circling": 0.14, "pulsing": 0.32 * radius}.get(sprite.motion, 0.0) + 1.1 * radius
    x, y = rng.uniform(reach, 1 - reach, size=2)
    if sprite.motion in _DIRECTIONS:
        dx, dy = _DIRECTIONS[sprite.motion]
        start = rng.uniform(0.1, 0.3)
        x, y = (start if dx > 0 else 1 - start) if dx else x, (start if dy > 0 else 1 - start) if dy else y
    return Placement(
        x=x,
        y=y,
        radius=radius,
        speed=rng.uniform(0.2, 0.28),
        phase=rng.uniform(0, 2 * math.pi),
        period=rng.uniform(1.6, 2.2),
    )


def render(
    scenes: Sequence[Scene], seeds: Sequence[int], *, num_frames: int = NUM_FRAMES, size: int = SIZE, fps: float = FPS
) -> Tensor:
    """Return one clip per scene, shape (batch, frames, 3, size, size) float32 in [0, 1].

    Args:
        scenes: What each clip shows.
        seeds: One seed per clip; the same scene and seed give the same pixels whatever else is in the batch.
        num_frames: Frames per clip, >= 1.
        size: Height and width in pixels.
        fps: Frames per second.
    """
    seconds = np.arange(num_frames) / fps
    video = torch.tensor([RGB[scene.background] for scene in scenes]).view(-1, 1, 3, 1, 1)
    video = video.repeat(1, num_frames, 1, size, size)
    placements = [place(scene, np.random.default_rng(seed)) for scene, seed in zip(scenes, seeds, strict=True)]
    for layer in range(2):
        clips = [i for i, scene in enumerate(scenes) if len(scene.sprites) > layer]
        if not clips:
            continue
        sprites = [scenes[i].sprites[layer] for i in clips]
        tracks = np.stack([placements[i][layer].track(s, seconds) for i, s in zip(clips, sprites, strict=True)])
        x_BF, y_BF, radius_BF = (torch.from_numpy(tracks[:, k] * size).float() for k in range(3))
        alpha = coverage([sprite.shape for sprite in sprites], x_BF, y_BF, radius_BF, size=size)[:, :, None]
        colour = torch.tensor([RGB[sprite.colour] for sprite in sprites]).view(-1, 1, 3, 1, 1)
        video[clips] = video[clips] * (1 - alpha) + colour * alpha
    return video


def coverage(shapes: Sequence[str], x_BF: Tensor, y_BF: Tensor, radius_BF: Tensor, *, size: int) -> Tensor:
    """Return how much of each pixel a shape covers, shape (batch, frames, size, size) in [0, 1].

    Args:
        shapes: One shape name per clip.
        x_BF: Centre columns in pixels, on a torus of the given size.
        y_BF: Centre rows in pixels.
        radius_BF: Radius of the circle of about equal area, in pixels.
        size: Height and width in pixels.
    """
    centre = torch.arange(size) + 0.5
    dx = (centre - x_BF[..., None] + size / 2) % size - size / 2
    dy = (centre - y_BF[..., None] + size / 2) % size - size / 2
    dx, dy, radius = dx[:, :, None, :], dy[:, :, :, None], radius_BF[..., None, None]
    distance = torch.empty(*x_BF.shape, size, size)
    for shape in set(shapes):
        rows = [i for i, name in enumerate(shapes) if name == shape]
        distance[rows] = _signed_distance(shape, dx[rows], dy[rows], radius[rows])
    return (0.5 - distance).clamp(0, 1)


def _signed_distance(shape: str, dx: Tensor, dy: Tensor, radius: Tensor) -> Tensor:
    """Return the (approximate) distance to the outline in pixels, negative inside; areas are about pi radius^2."""
    if shape == "circle":
        return torch.hypot(dx, dy) - radius
    if shape == "square":
        return torch.maximum(dx.abs(), dy.abs()) - 0.886 * radius
    if shape == "triangle":  # equilateral, tip up, centroid at the centre; inradius 0.78 r
        slanted = math.sqrt(3) / 2 * dx.abs() - dy / 2
        return torch.maximum(slanted, dy) - 0.78 * radius
    if shape == "cross":
        long, wide = 1.12 * radius, 0.44 * radius
        bar = torch.maximum(dx.abs() - long, dy.abs() - wide)
        pole = torch.maximum(dx.abs() - wide, dy.abs() - long)
        return torch.minimum(bar, pole)
    raise AssertionError(shape)
