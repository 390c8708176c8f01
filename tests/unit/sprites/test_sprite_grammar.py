"""Prompts and scenes are the same thing, and the three sets of combinations never meet."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_video.data import load_prompts
from rlhf_video.errors import DataError
from rlhf_video.sprites.grammar import (
    Scene,
    Split,
    Sprite,
    one_object_scenes,
    parse_prompt,
    random_scenes,
    swap_one_attribute,
)
from rlhf_video.sprites.suites import NUM_PAIR_PROMPTS, SIZES, pair_suite, suite


@given(seed=st.integers(0, 2**32 - 1), split=st.sampled_from(["train", "validation", "test"]))
def test_a_prompt_parses_back_to_its_scene(seed: int, split: Split) -> None:
    scene = next(random_scenes(split, np.random.default_rng(seed), two_object_share=0.5))
    assert parse_prompt(scene.prompt) == scene
    assert scene.split == split


@given(seed=st.integers(0, 2**32 - 1), split=st.sampled_from(["train", "validation", "test"]))
def test_a_swap_changes_one_attribute_and_stays_in_its_set(seed: int, split: Split) -> None:
    rng = np.random.default_rng(seed)
    scene = next(random_scenes(split, rng, two_object_share=0.5))
    noisy = swap_one_attribute(scene, rng)
    assert noisy.split == split
    assert noisy != scene or split != "train"
    parts = [(scene.background, noisy.background)]
    for a, b in zip(scene.sprites, noisy.sprites, strict=True):
        parts += [(a.colour, b.colour), (a.shape, b.shape), (a.motion, b.motion)]
    assert sum(a != b for a, b in parts) <= 1


def test_the_order_of_two_objects_does_not_move_a_scene_to_another_set() -> None:
    scene = Scene((Sprite("red", "circle", "pulsing"), Sprite("blue", "cross", "circling")), "navy")
    assert scene.split == Scene(scene.sprites[::-1], "navy").split


def test_the_three_sets_share_no_combination_and_cover_the_grammar() -> None:
    sets = [set(one_object_scenes(split)) for split in ("train", "validation", "test")]
    assert sum(map(len, sets)) == len(set.union(*sets)) == 6 * 4 * 7 * 5
    assert len(sets[0]) > 550
    assert min(map(len, sets)) > 60


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_committed_suite_is_what_the_grammar_writes(split: Split) -> None:
    prompts = load_prompts(f"assets/prompts/sprite-{split}.txt").prompts
    assert list(prompts) == suite(split)
    assert len(prompts) == sum(SIZES[split])
    assert {parse_prompt(prompt).split for prompt in prompts} == {split}


def test_the_prompts_of_pairs_are_train_combinations() -> None:
    prompts = load_prompts("assets/prompts/sprite-pairs.txt").prompts
    assert list(prompts) == pair_suite() and len(prompts) == NUM_PAIR_PROMPTS
    assert {parse_prompt(prompt).split for prompt in prompts} == {"train"}


@pytest.mark.parametrize(
    "prompt", ["", "a red blob moving left on a navy background", "a red circle on a navy background"]
)
def test_a_sentence_outside_the_grammar_is_refused_with_the_words_that_fit(prompt: str) -> None:
    with pytest.raises(DataError, match="colours: red, green"):
        parse_prompt(prompt)


def test_two_objects_of_one_colour_are_refused() -> None:
    with pytest.raises(DataError, match="different colours"):
        parse_prompt("a red circle pulsing and a red square pulsing on a navy background")
