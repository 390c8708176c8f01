"""Exposure and temporal flicker on clips whose score is known."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from rewards.base import require_differentiable
from rewards.errors import RewardError
from rewards.exposure import Exposure
from rewards.frame_difference import FrameDifference
from rewards.temporal_flicker import TemporalFlicker
from rewards.testing import RewardContract


class TestTemporalFlicker(RewardContract):
    reward = "temporal_flicker"


class TestExposure(RewardContract):
    reward = "exposure"


def flat(*levels: float) -> Tensor:
    """Return one clip of one grey frame per level."""
    return torch.tensor(levels).reshape(1, -1, 1, 1, 1).expand(1, len(levels), 3, 4, 6).contiguous()


def flickering(video: Tensor) -> float:
    return TemporalFlicker()(video, ["a"], fps=8).values["temporal_flickering"].item()


def test_flicker_is_vbench_s_number_of_8_bit_frames() -> None:
    frames = torch.randint(0, 256, (1, 5, 3, 8, 6), generator=torch.Generator().manual_seed(0))
    pixels = frames[0].numpy().astype(np.int64)
    errors = [np.abs(pixels[f + 1] - pixels[f]).mean() for f in range(4)]
    assert flickering(frames.float() / 255) == pytest.approx((255 - np.mean(errors)) / 255, abs=1e-6)


def test_flicker_of_known_clips() -> None:
    assert flickering(flat(0.3, 0.3, 0.3)) == 1  # still: the best there is
    assert flickering(flat(0.0, 1.0, 0.0)) == 0
    assert flickering(flat(0.2, 0.3, 0.5)) == pytest.approx(1 - 0.15)


def test_flicker_is_the_complement_of_the_frame_difference_per_frame() -> None:
    video = torch.rand(2, 6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    motion = FrameDifference()(video, ["a", "b"], fps=8).values["motion"]
    torch.testing.assert_close(
        TemporalFlicker()(video, ["a", "b"], fps=8).values["temporal_flickering"], 1 - motion / 8
    )


def test_flicker_needs_two_frames() -> None:
    with pytest.raises(RewardError, match=r"2 frame\(s\)"):
        flickering(flat(0.5))


def exposure(video: Tensor, **options: float) -> tuple[float, float]:
    values = Exposure(**options)(video, ["a"], fps=8).values
    return values["well_exposed"].item(), values["unclipped"].item()


def test_mid_grey_is_well_exposed_and_black_and_white_are_not() -> None:
    assert exposure(flat(0.5)) == (1, 1)
    for level in (0.0, 1.0):
        well, unclipped = exposure(flat(level))
        assert well == pytest.approx(math.exp(-3 * 0.25 / (2 * 0.04)), rel=1e-4)
        assert unclipped == 0
    assert exposure(flat(0.7))[0] == pytest.approx(math.exp(-3 / 2), rel=1e-4)  # one sigma in each channel


def test_shares_are_means_over_frames_and_pixels() -> None:
    video = flat(0.5, 0.5)
    video[0, 0, :, :1], video[0, 1, :, :2] = 0, 1  # a quarter of one frame crushed, half of the other blown
    well, unclipped = exposure(video)
    assert unclipped == pytest.approx(1 - 3 / 8)
    assert well == pytest.approx(1 - 3 / 8 + 3 / 8 * math.exp(-9.375), rel=1e-4)


def test_a_pure_colour_is_neither_crushed_nor_blown() -> None:
    red = flat(0.0)
    red[:, :, 0] = 1
    assert exposure(red)[1] == 1


def test_thresholds_move_what_counts_as_clipped() -> None:
    video = flat(0.1, 0.9)
    assert exposure(video)[1] == 1
    assert exposure(video, dark=0.1)[1] == 0.5
    assert exposure(video, dark=0.1, bright=0.9)[1] == 0
    with pytest.raises(RewardError, match="dark < bright"):
        Exposure(dark=0.6, bright=0.4)


def test_gradient_leads_to_mid_grey_from_both_sides() -> None:
    video = flat(0.2, 0.8).requires_grad_()
    (gradient,) = torch.autograd.grad(Exposure()(video, ["a"], fps=8).values["well_exposed"].sum(), video)
    assert (gradient[0, 0] > 0).all()
    assert (gradient[0, 1] < 0).all()


def test_only_the_smooth_dimension_can_be_trained_on() -> None:
    require_differentiable(Exposure(), dimension="well_exposed")
    with pytest.raises(RewardError, match="verdict without gradient"):
        require_differentiable(Exposure(), dimension="unclipped")
