import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from rewards.base import FramePolicy, RewardOutput, RewardSpec, masked_output
from rewards.frame_difference import FrameDifference
from rewards.saturation import Saturation
from rlhf_video.errors import DataError
from rlhf_video.validation import Clips, GuardConfig, diversity_scores, join_scores, score_clips


class FirstPixel:
    """Score the first pixel's red, and refuse clips where it is below the threshold."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.batches: list[int] = []
        self.spec = RewardSpec(
            name="first_pixel",
            version="1",
            dimensions=("red",),
            range=(0.0, 1.0),
            higher_is_better=True,
            is_differentiable=True,
            frames=FramePolicy("all"),
            resolution=None,
            licence="Apache-2.0",
            paper=None,
            uses_prompt=False,
        )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        self.batches.append(len(video))
        values = video[:, 0, 0, 0, 0]
        valid = values >= self.threshold
        return masked_output({"red": values}, valid, tuple(None if ok else "too dark" for ok in valid.tolist()))


def _clips(red: Sequence[float], prompts: Sequence[str] | None = None) -> Clips:
    video = torch.zeros(len(red), 3, 3, 16, 16)
    video[:, :, 0] = torch.tensor(red)[:, None, None, None]
    return Clips(video, tuple(prompts or [f"p{i}" for i in range(len(red))]), tuple(range(len(red))))


def test_scores_are_the_same_in_any_batch_size_and_masked_ones_are_nan() -> None:
    clips, reward = _clips([0.1, 0.5, 0.9]), FirstPixel(threshold=0.4)
    by_two = score_clips(clips, {"pixel": reward}, fps=8, batch=2)
    assert reward.batches == [2, 1]
    assert list(by_two) == ["pixel/red"]
    np.testing.assert_allclose(by_two["pixel/red"], [math.nan, 0.5, 0.9], atol=1e-7)
    np.testing.assert_array_equal(by_two["pixel/red"], score_clips(clips, {"pixel": reward}, fps=8)["pixel/red"])


def test_a_reward_that_masks_every_clip_is_an_error_with_its_reason() -> None:
    with pytest.raises(DataError, match=r"'pixel' scored none of the 2 clips \(too dark\)"):
        score_clips(_clips([0.1, 0.2]), {"pixel": FirstPixel(threshold=0.4)}, fps=8)


def test_no_clip_is_an_error() -> None:
    with pytest.raises(DataError, match="no clip"):
        score_clips(_clips([]), {}, fps=8)


def test_clips_need_one_prompt_and_seed_each() -> None:
    with pytest.raises(DataError, match="2 clips, 1 prompts and 2 seeds"):
        Clips(torch.zeros(2, 1, 3, 4, 4), ("a",), (0, 1))
    with pytest.raises(DataError, match="must be"):
        Clips(torch.zeros(2, 3, 4, 4), ("a", "b"), (0, 1))


def test_clusters_number_prompts_by_first_appearance() -> None:
    assert _clips([0, 0, 0, 0], ["b", "a", "b", "c"]).clusters.tolist() == [0, 1, 0, 2]


def test_diversity_is_the_mean_distance_within_a_prompt() -> None:
    # Red differs by 0.4: root mean square over three channels is 0.4 / sqrt(3).
    clips = _clips([0.2, 0.6, 0.5, 0.5, 0.9], ["a", "a", "b", "b", "c"])
    scores = diversity_scores(clips)["diversity/pixels"]
    np.testing.assert_allclose(scores, [0.4 / 3**0.5] * 2 + [0.0, 0.0, math.nan], atol=1e-5)


def test_diversity_is_left_out_when_no_prompt_has_two_clips() -> None:
    assert diversity_scores(_clips([0.1, 0.2])) == {}


def test_scores_of_equal_name_are_not_overwritten() -> None:
    assert join_scores([{"a": np.zeros(1)}, {"b": np.ones(1)}]).keys() == {"a", "b"}
    with pytest.raises(DataError, match="'a' is computed twice"):
        join_scores([{"a": np.zeros(1)}, {"a": np.ones(1)}])


def test_default_guards_read_what_the_weightless_rewards_write() -> None:
    rewards = {reward.spec.name: reward for reward in (FrameDifference(), Saturation())}
    clips = _clips([0.1, 0.7], ["a", "a"])
    scores = score_clips(clips, rewards, fps=8) | diversity_scores(clips)
    config = GuardConfig()
    assert set(scores) == {config.motion_score, config.saturation_score, config.diversity_score}
