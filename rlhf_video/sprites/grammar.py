"""Sprite scenes and their prompts: colour x shape x motion x background, one or two objects.

A prompt reads "a red circle moving left and a blue square pulsing on a navy background". Scenes are split by
*combination* into disjoint train, validation and test sets: a hash of the scene decides, so the split never changes.
"""

import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from rlhf_video.errors import DataError

Colour = Literal["red", "green", "blue", "yellow", "purple", "white"]
Shape = Literal["circle", "square", "triangle", "cross"]
Motion = Literal["moving left", "moving right", "moving up", "moving down", "standing still", "pulsing", "circling"]
Background = Literal["black", "navy", "gray", "brown", "teal"]
Split = Literal["train", "validation", "test"]
Attribute = Literal["colour", "shape", "motion", "background"]
_Word = TypeVar("_Word", bound=str)

_ATTRIBUTES: tuple[Attribute, ...] = get_args(Attribute)
COLOURS: tuple[Colour, ...] = get_args(Colour)
SHAPES: tuple[Shape, ...] = get_args(Shape)
MOTIONS: tuple[Motion, ...] = get_args(Motion)
BACKGROUNDS: tuple[Background, ...] = get_args(Background)

RGB: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.15, 0.15),
    "green": (0.20, 0.80, 0.25),
    "blue": (0.25, 0.45, 0.95),
    "yellow": (0.95, 0.85, 0.20),
    "purple": (0.72, 0.28, 0.85),
    "white": (0.95, 0.95, 0.95),
    "black": (0.05, 0.05, 0.05),
    "navy": (0.08, 0.10, 0.38),
    "gray": (0.45, 0.45, 0.45),
    "brown": (0.36, 0.20, 0.08),
    "teal": (0.02, 0.42, 0.40),
}
"""Colours of objects and backgrounds, RGB in [0, 1]."""

_SPLIT_PERCENT: dict[Split, tuple[int, int]] = {"train": (0, 75), "validation": (75, 84), "test": (84, 100)}
_OBJECT = rf"a ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)}) ({'|'.join(MOTIONS)})"
_PROMPT = re.compile(rf"{_OBJECT}(?: and {_OBJECT})? on a ({'|'.join(BACKGROUNDS)}) background")


@dataclass(frozen=True, order=True)
class Sprite:
    """One object of a scene."""

    colour: Colour
    shape: Shape
    motion: Motion

    def phrase(self) -> str:
        """Return its part of the prompt, for example "a red circle moving left"."""
        return f"a {self.colour} {self.shape} {self.motion}"


@dataclass(frozen=True)
class Scene:
    """What a clip shows: one or two objects of different colours on a plain background."""

    sprites: tuple[Sprite, ...]
    background: Background

    def __post_init__(self) -> None:
        """Check the number of objects and that colours tell them apart."""
        if len(self.sprites) not in (1, 2) or len({sprite.colour for sprite in self.sprites}) != len(self.sprites):
            raise DataError(f"A sprite scene has one object, or two of different colours, not {self.sprites}.")

    @property
    def prompt(self) -> str:
        """The caption of the scene."""
        return f"{' and '.join(sprite.phrase() for sprite in self.sprites)} on a {self.background} background"

    @property
    def split(self) -> Split:
        """The set the combination belongs to, whatever the order of its objects."""
        key = " and ".join(sprite.phrase() for sprite in sorted(self.sprites)) + self.background
        percent = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 100
        return next(split for split, (low, high) in _SPLIT_PERCENT.items() if low <= percent < high)


def parse_prompt(prompt: str) -> Scene:
    """Return the scene a prompt describes.

    Raises:
        DataError: The prompt is not a sentence of the sprite grammar.
    """
    match = _PROMPT.fullmatch(prompt.strip().lower())
    if match is None:
        raise DataError(
            f"'{prompt}' is not a sprite prompt. Write it like 'a red circle moving left on a navy background'; "
            f"colours: {', '.join(COLOURS)}; shapes: {', '.join(SHAPES)}; motions: {', '.join(MOTIONS)}; backgrounds: "
            f"{', '.join(BACKGROUNDS)}."
        )
    words: Any = match.groups()  # the pattern admits the grammar's words only
    sprites = [Sprite(*words[:3])] + ([Sprite(*words[3:6])] if words[3] else [])
    return Scene(tuple(sprites), words[6])


def one_object_scenes(split: Split) -> list[Scene]:
    """Return every one-object scene of a split, in grammar order."""
    scenes = (
        Scene((Sprite(colour, shape, motion),), background)
        for colour, shape, motion, background in itertools.product(COLOURS, SHAPES, MOTIONS, BACKGROUNDS)
    )
    return [scene for scene in scenes if scene.split == split]


def random_scenes(split: Split, rng: np.random.Generator, *, two_object_share: float = 0.3) -> Iterator[Scene]:
    """Yield scenes of a split for ever, uniformly over combinations.

    Args:
        split: The set to draw from.
        rng: Source of randomness.
        two_object_share: Share of scenes with two objects, in [0, 1].
    """
    while True:
        count = 2 if rng.random() < two_object_share else 1
        colours = rng.permutation(len(COLOURS))[:count]
        sprites = tuple(
            Sprite(COLOURS[colour], SHAPES[rng.integers(len(SHAPES))], MOTIONS[rng.integers(len(MOTIONS))])
            for colour in colours
        )
        scene = Scene(sprites, BACKGROUNDS[rng.integers(len(BACKGROUNDS))])
        if scene.split == split:
            yield scene


def swap_one_attribute(scene: Scene, rng: np.random.Generator, *, attribute: Attribute | None = None) -> Scene:
    """Return a scene of the same split with one attribute of one object, or the background, replaced by another value.

    Caption noise, and pairs of clips that differ in one thing: what trains must stay within its combinations. The few
    scenes without such a neighbour (some of the small splits) are returned as they are.

    Args:
        scene: Where to start.
        rng: Source of randomness.
        attribute: Which one; a random one for None.
    """
    for _ in range(40):
        swapped = _swap(scene, rng, attribute or _ATTRIBUTES[rng.integers(4)])
        if swapped.split == scene.split:
            return swapped
    return scene


def _swap(scene: Scene, rng: np.random.Generator, attribute: Attribute) -> Scene:
    which = int(rng.integers(len(scene.sprites)))
    if attribute == "background":
        return Scene(scene.sprites, _other(BACKGROUNDS, scene.background, rng))
    sprite = scene.sprites[which]
    if attribute == "colour":
        free = tuple(c for c in COLOURS if c not in {s.colour for s in scene.sprites})
        changed = Sprite(free[rng.integers(len(free))], sprite.shape, sprite.motion)
    elif attribute == "shape":
        changed = Sprite(sprite.colour, _other(SHAPES, sprite.shape, rng), sprite.motion)
    else:
        changed = Sprite(sprite.colour, sprite.shape, _other(MOTIONS, sprite.motion, rng))
    return Scene(tuple(changed if i == which else s for i, s in enumerate(scene.sprites)), scene.background)


def _other(values: tuple[_Word, ...], value: _Word, rng: np.random.Generator) -> _Word:
    rest = [v for v in values if v != value]
    return rest[rng.integers(len(rest))]
