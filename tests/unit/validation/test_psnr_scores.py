"""Likeness to a reference clip in decibels, pair by pair."""

import pytest
import torch

from rlhf_video.errors import DataError
from rlhf_video.validation import Clips, psnr_scores


def clips(video: torch.Tensor, *, seeds: tuple[int, ...] = (0, 1)) -> Clips:
    return Clips(video, ("a", "a"), seeds)


def test_psnr_is_ten_times_the_logarithm_of_one_over_the_squared_error() -> None:
    reference = torch.full((2, 3, 3, 4, 4), 0.5)
    changed = reference.clone()
    changed[1] += 0.1
    values = psnr_scores(clips(changed), clips(reference))["psnr/to_dense"]
    assert values.tolist() == pytest.approx([100.0, 20.0], abs=1e-4), "equal clips are capped at 100 dB"


def test_clips_that_are_no_pairs_are_refused() -> None:
    video = torch.zeros(2, 3, 3, 4, 4)
    with pytest.raises(DataError, match="equal prompt, seed and size"):
        psnr_scores(clips(video), clips(video, seeds=(1, 0)))
    with pytest.raises(DataError, match="equal prompt, seed and size"):
        psnr_scores(clips(video), clips(video[:, :2]))
