"""The renderer is deterministic, anti-aliased and defined for any duration."""

import numpy as np
import pytest
import torch

from rlhf_video.sprites.grammar import SHAPES, parse_prompt, random_scenes
from rlhf_video.sprites.renderer import coverage, render


def test_a_clip_depends_on_its_scene_and_seed_alone() -> None:
    scenes = [scene for scene, _ in zip(random_scenes("train", np.random.default_rng(0)), range(4), strict=False)]
    together = render(scenes, [5, 6, 7, 8])
    alone = render([scenes[2]], [7])
    assert torch.equal(together[2], alone[0])
    assert not torch.equal(render([scenes[2]], [9]), alone)


def test_clips_have_the_built_in_size_and_range() -> None:
    video = render([parse_prompt("a red circle moving left on a navy background")], [0])
    assert video.shape == (1, 21, 3, 64, 64)
    assert video.dtype == torch.float32
    assert 0 <= video.min() <= video.max() <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_outlines_are_anti_aliased_and_areas_alike(shape: str) -> None:
    alpha = coverage([shape], torch.tensor([[32.3]]), torch.tensor([[31.6]]), torch.tensor([[11.0]]), size=64)
    assert ((alpha > 0.05) & (alpha < 0.95)).sum() > 10
    assert alpha.sum() == pytest.approx(np.pi * 11**2, rel=0.15)


def test_a_glide_wraps_around_and_lasts_for_ever() -> None:
    video = render([parse_prompt("a white circle moving right on a black background")], [3], num_frames=200)
    bright = (video[0].mean(1) > 0.5).float()
    assert bright.sum((1, 2)).min() > 0.8 * bright.sum((1, 2)).max()  # never lost at the border
    assert bright.amax((0, 1)).min() == 1  # visits every column


def test_a_longer_clip_starts_with_the_shorter_one() -> None:
    scene = parse_prompt("a green cross circling and a red square moving up on a teal background")
    assert torch.equal(render([scene], [1], num_frames=33)[:, :21], render([scene], [1]))


def test_half_the_frame_rate_shows_every_other_frame() -> None:
    scene = parse_prompt("a green cross circling on a teal background")
    torch.testing.assert_close(render([scene], [1], num_frames=11, fps=4), render([scene], [1])[:, ::2])
