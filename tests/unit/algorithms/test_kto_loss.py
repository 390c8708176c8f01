"""Thumbs: KTO is its closed form, its reference point is a detached clipped mean, and a pair is two thumbs."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rlhf_video.algorithms.dpo_loss import DpoLossConfig, PairErrors
from rlhf_video.algorithms.kto_loss import PairThumbs, kto_loss, kto_pair_loss, kto_reference_point

NAN = math.nan
CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED = 0.5, 0.8, 0.9, 0.7


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def kto(config: DpoLossConfig, liked: list[float], point: float) -> Tensor:
    count = len(liked)
    return kto_loss(
        column(*[CHOSEN] * count),
        column(*[REF_CHOSEN] * count),
        liked=column(*liked),
        sigma=torch.full((count,), 0.4, dtype=torch.float64),
        config=config,
        beta=3.0,
        reference_point=torch.tensor(point, dtype=torch.float64),
    ).loss


def test_kto_pulls_liked_clips_above_the_reference_point_and_disliked_ones_below() -> None:
    config = DpoLossConfig(kind="kto", beta=3.0, disliked_weight=1.3)
    v = 1.5 * (REF_CHOSEN - CHOSEN) - 0.2
    up, down = 1 / (1 + math.exp(v)), 1.3 / (1 + math.exp(-v))
    assert kto(config, [1.0, 0.0, NAN, 0.25], 0.2).tolist() == pytest.approx([up, down, 0, 0.25 * up + 0.75 * down])
    smoothed = kto(replace(config, label_smoothing=0.1, sft_weight=0.2), [1.0, 0.0], 0.2)
    assert smoothed.tolist() == pytest.approx([0.9 * up + 0.1 * down + 0.2 * CHOSEN, 0.1 * up + 0.9 * down])


def test_a_pair_is_two_thumbs_and_both_may_be_down() -> None:
    config = DpoLossConfig(kind="kto", beta=3.0)
    gains = (REF_CHOSEN - CHOSEN, REF_REJECTED - REJECTED)
    up, down = ([1 / (1 + math.exp(sign * (1.5 * gain - 0.2))) for gain in gains] for sign in (1, -1))
    out = kto_pair_loss(
        PairErrors(column(*[CHOSEN] * 3), column(*[REJECTED] * 3)),
        PairErrors(column(*[REF_CHOSEN] * 3), column(*[REF_REJECTED] * 3)),
        thumbs=PairThumbs(column(1.0, 0.0, 1.0), column(0.0, 0.0, NAN)),
        sigma=torch.full((3,), 0.4, dtype=torch.float64),
        config=config,
        beta=3.0,
        reference_point=torch.tensor(0.2, dtype=torch.float64),
    )
    assert out.loss.tolist() == pytest.approx([(up[0] + down[1]) / 2, (down[0] + down[1]) / 2, up[0]])
    assert out.margin.tolist() == [[pytest.approx(gains[0] - gains[1])]] * 3
    assert out.rejected_gain.tolist() == [[pytest.approx(gains[1])]] * 3


def test_the_reference_point_is_the_batch_mean_clipped_at_zero_and_carries_no_gradient() -> None:
    config, gain = DpoLossConfig(kind="kto", beta=3.0), column(0.4, NAN, -0.1).requires_grad_()
    sigma = torch.full((3,), 0.4)
    point = kto_reference_point(gain, sigma=sigma, config=config, beta=3.0)
    assert float(point) == pytest.approx(1.5 * 0.15)
    assert not point.requires_grad
    assert float(kto_reference_point(-gain, sigma=sigma, config=config, beta=3.0)) == 0
    assert float(kto_reference_point(gain * NAN, sigma=sigma, config=config, beta=3.0)) == 0
