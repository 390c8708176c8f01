"""Rewards match captions before they learn votes; what they see is what they will see."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rlhf_video.sprites.pretrain.clip_pool import GROUP, ClipPool, rendered_groups
from rlhf_video.sprites.pretrain.reward_recipes import RECIPES, RewardRecipe, image_clip, xclip
from rlhf_video.sprites.pretrain.rewards import agreement, contrast, score_matrix

STILLS = RewardRecipe(
    "tiny",
    lambda: image_clip(32, 1, 16),
    questions=(("colour", "background"),),
    seed=0,
    num_clips=16,
    frames=1,
    pool=0,
)
CLIPS = RewardRecipe(
    "tiny-video",
    lambda: xclip(32, 1, 32),
    questions=(("colour", "motion"), ("motion",)),
    seed=0,
    num_clips=8,
    frames=None,
    pool=0,
)


@pytest.fixture(scope="module")
def pool() -> ClipPool:
    return rendered_groups(np.random.default_rng(0), "validation", 8)


@pytest.mark.parametrize("recipe", [STILLS, CLIPS], ids=lambda recipe: recipe.name)
def test_the_warm_up_trains_and_reports_agreement(recipe: RewardRecipe, pool: ClipPool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = recipe.build()
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    record = contrast(recipe, model, tmp_path / "contrast.pt", held_out=pool, num_steps=2)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert not torch.equal(before, after)
    last = record["history"][-1]  # type: ignore[index]
    assert 0 <= last["agreement"] <= 1


def test_matching_captions_teaches_colours_within_a_few_steps(pool: ClipPool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = STILLS.build()
    contrast(STILLS, model, tmp_path / "state.pt", held_out=pool, num_steps=60)
    assert agreement(model, pool, STILLS.attributes)["agreement"] > 0.65


def test_a_score_belongs_to_one_prompt_and_one_clip(pool: ClipPool) -> None:
    for recipe, frames in ((STILLS, 1), (CLIPS, 21)):
        video = pool.videos[: 2 * GROUP, :frames].float() / 255
        tokens = torch.randint(2, 9, (3, 32))
        with torch.no_grad():
            model = recipe.build().eval()
            scores = score_matrix(model, video, tokens)
            assert scores.shape == (3, 2 * GROUP)
            torch.testing.assert_close(scores[1:2, 2:3], score_matrix(model, video[2:3], tokens[1:2]))


def test_the_held_out_reward_learns_from_clips_that_the_trained_ones_never_saw() -> None:
    pools = {recipe.name: recipe.pool for recipe in RECIPES}
    assert pools["sprite-clip-heldout"] not in (pools["sprite-clip"], pools["sprite-motion"])
