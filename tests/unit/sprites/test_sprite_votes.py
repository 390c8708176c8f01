"""Sprite votes on disk: noisy where rewards train, true where they are measured, and never of the same combinations."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlhf_video.algorithms.reward_model_config import RewardModelConfig
from rlhf_video.data import read_video
from rlhf_video.preferences import PreferencePair, PreferenceStore, refuse_shared_prompts
from rlhf_video.settings import load_config
from rlhf_video.sprites.grammar import parse_prompt
from rlhf_video.sprites.pretrain.clip_pool import ClipPool, rendered_groups
from rlhf_video.sprites.pretrain.reward_recipes import RECIPES
from rlhf_video.sprites.pretrain.votes import OTHER_CLIPS, VOTERS, vote, write_votes
from rlhf_video.sprites.renderer import render
from rlhf_video.sprites.verifier import ATTRIBUTES, judge_clip, read_clip

MOTION = replace(RECIPES[2], seed=3)


def rivals_of_one_prompt(pool: ClipPool) -> ClipPool:
    """Return the pool as if every clip of a group had been made for the first one's prompt."""
    return replace(pool, scenes=tuple(pool.scenes[i // 4 * 4] for i in range(len(pool.scenes))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("votes") / "sprite-motion", np.random.default_rng(0)
    pool, held_out = rendered_groups(rng, "train", 3), rivals_of_one_prompt(rendered_groups(rng, "validation", 3))
    write_votes(MOTION, folder, generated=pool, held_out=held_out, num_groups=2)
    return folder


def read(folder: Path, part: str) -> tuple[PreferencePair, ...]:
    store = PreferenceStore(folder / f"{part}.jsonl")
    pairs = store.read()
    store.check_clips(pairs)
    return pairs


def test_voters_prefer_the_clip_that_fits_most_of_the_time() -> None:
    shares = vote(np.array([0.0] * 4000 + [0.5] * 4000 + [-0.5] * 4000), np.random.default_rng(0))
    even, better, worse = shares.reshape(3, -1).mean(axis=1)
    assert even == pytest.approx(0.5, abs=0.01)
    assert better == pytest.approx(1 - worse, abs=0.01) == pytest.approx(0.92 - 0.84 * 0.0067, abs=0.01)


def test_train_pairs_are_votes_and_mostly_right(folder: Path) -> None:
    pairs, right = read(folder, "train"), []
    assert {name for pair in pairs for name in pair.labels} == {"overall", "motion"}
    for pair in pairs:
        assert pair.num_votes == VOTERS and set(pair.soft) == set(pair.labels)
        scene = parse_prompt(pair.prompt)
        a, b = (judge_clip(read_video(folder / clip.path)[0], scene).score(ATTRIBUTES) for clip in pair.clips)
        if "overall" in pair.soft and abs(a - b) > 0.2 and pair.soft["overall"] != 0.5:
            right.append((a > b) == (pair.soft["overall"] > 0.5))
    assert len(right) > 40 and np.mean(right) > 0.85
    assert {parse_prompt(pair.prompt).split for pair in pairs} == {"train"}


def test_validation_pairs_are_the_verifiers_opinion_of_unseen_combinations(folder: Path) -> None:
    pairs = read(folder, "validation")
    refuse_shared_prompts({"train": read(folder, "train"), "validation": pairs})
    assert {parse_prompt(pair.prompt).split for pair in pairs} == {"validation"}
    same = [pair for pair in pairs if "overall" in pair.labels]
    assert len(same) == 3 * 6 and any(OTHER_CLIPS in pair.labels for pair in pairs)
    attributes = [name for pair in same for name in pair.labels if name in ATTRIBUTES]
    assert attributes, "clips that differ in one attribute alone say which"
    for pair in same:
        scene = parse_prompt(pair.prompt)
        a, b = (judge_clip(read_video(folder / clip.path)[0], scene).score(ATTRIBUTES) for clip in pair.clips)
        if pair.labels["overall"] != "tie" and abs(a - b) > 0.1:
            assert (pair.labels["overall"] == "A") == (a > b)


def test_a_stored_clip_is_the_clip(folder: Path) -> None:
    pool = rendered_groups(np.random.default_rng(0), "train", 1)
    clip = render(pool.scenes[:1], [5])
    exact = ClipPool(
        (clip * 255).round().byte().repeat(4, 1, 1, 1, 1), (pool.scenes[0],) * 4, (read_clip(clip[0]),) * 4
    )
    exact.videos[1:] = 255 - exact.videos[1:]
    write_votes(MOTION, folder.parent / "exact", generated=pool, held_out=exact, num_groups=1)
    (pair, *_) = PreferenceStore(folder.parent / "exact" / "validation.jsonl").read()
    stored, fps = read_video(folder.parent / "exact" / pair.a.path)
    assert fps == 8 and ((stored * 255).round().byte() == exact.videos[0]).all()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_every_sprite_reward_has_a_config_that_reads_its_votes(recipe: object) -> None:
    name = recipe.name  # type: ignore[attr-defined]
    config = load_config(RewardModelConfig, Path(f"configs/reward_model/{name}.yaml"))
    assert config.options["model"] == f"runs/pretrain/{name}-warmup"
    assert config.pairs.train == Path(f"runs/pretrain/votes/{name}/train.jsonl")
    assert config.questions == (("overall", "motion") if name == "sprite-motion" else ("overall",))
