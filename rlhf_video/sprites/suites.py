"""The prompt files of the sprite world: disjoint combinations for training, tuning, and the README's numbers."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from rlhf_video.sprites.grammar import Scene, Split, one_object_scenes, random_scenes

SIZES: dict[Split, tuple[int, int]] = {"train": (200, 40), "validation": (40, 8), "test": (60, 12)}
"""Prompts with one and with two objects in each file; few with two, which the built-in model never gets right."""
NUM_PAIR_PROMPTS = 480
"""Prompts that the clips of assets/sprite-pairs were made for: of the 603 train combinations of one object."""
NUM_DISTILL_TWOS = 120
"""Prompts with two objects for distillation, one to five of one object, as in the splits."""
_SEED = 2405


def suite(split: Split) -> list[str]:
    """Return the prompts of a split's file: distinct, one- and two-object prompts interleaved 5 to 1."""
    rng = np.random.default_rng((_SEED, len(split)))
    num_one, num_two = SIZES[split]
    one_object = one_object_scenes(split)
    ones = [one_object[i].prompt for i in rng.permutation(len(one_object))[:num_one]]
    twos = list(islice(_distinct(random_scenes(split, rng, two_object_share=1.0)), num_two))
    per_two = num_one // num_two
    groups = [[*ones[i * per_two : (i + 1) * per_two], two] for i, two in enumerate(twos)]
    return [prompt for group in groups for prompt in group]


def pair_suite() -> list[str]:
    """Return the prompts of preference pairs: distinct train combinations of one object, many rather than often."""
    rng = np.random.default_rng((_SEED, NUM_PAIR_PROMPTS))
    scenes = one_object_scenes("train")
    return [scenes[i].prompt for i in rng.permutation(len(scenes))[:NUM_PAIR_PROMPTS]]


def distill_suite() -> list[str]:
    """Return the prompts that distillation samples from: every train combination of one object, 120 of two."""
    rng = np.random.default_rng((_SEED, NUM_DISTILL_TWOS))
    scenes = one_object_scenes("train")
    ones = [scenes[i].prompt for i in rng.permutation(len(scenes))]
    return [*ones, *islice(_distinct(random_scenes("train", rng, two_object_share=1.0)), NUM_DISTILL_TWOS)]


def write_suites(folder: Path) -> None:
    """Write the three splits and, of train combinations, sprite-pairs.txt and sprite-distill.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, tuple[Split, list[str]]] = {split: (split, suite(split)) for split in SIZES}
    files |= {"pairs": ("train", pair_suite()), "distill": ("train", distill_suite())}
    for name, (split, prompts) in files.items():
        title = f"# Sprite world, {split} combinations; written by `python -m rlhf_video.sprites.pretrain`."
        (folder / f"sprite-{name}.txt").write_text("\n".join([title, *prompts]) + "\n")


def _distinct(scenes: Iterator[Scene]) -> Iterator[str]:
    seen: set[str] = set()
    for scene in scenes:
        if scene.prompt not in seen:
            seen.add(scene.prompt)
            yield scene.prompt
