"""Losses of pairs fall as the margin grows, do not care which clip is called chosen, and meet at their limits."""

import math
from typing import Any, Literal

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlhf_video.algorithms.dpo_beta import AutoBeta
from rlhf_video.algorithms.dpo_loss import AutoBetaConfig, DpoLossConfig, PairErrors, dpo_loss
from rlhf_video.algorithms.kto_loss import kto_loss

FALLING = st.sampled_from(["sigmoid", "hinge", "simpo", "robust"])
PAIRED = st.sampled_from(["sigmoid", "hinge", "ipo", "simpo", "robust"])
MARGINS = st.floats(-3, 3)
SHARES = st.floats(0, 1)
BETAS = st.floats(0.1, 10)
ERRORS = st.lists(st.floats(0, 2), min_size=4, max_size=4)


def config_of(kind: Any, beta: float, **options: Any) -> DpoLossConfig:
    return DpoLossConfig(kind=kind, beta=beta, **({"label_smoothing": 0.1} if kind == "robust" else {}), **options)


def loss(errors: list[float], config: DpoLossConfig, share: float = 1.0, sigma: float = 0.5) -> float:
    chosen, rejected, ref_chosen, ref_rejected = (torch.tensor([[value]], dtype=torch.float64) for value in errors)
    preference = torch.tensor([[share]], dtype=torch.float64)
    level = torch.tensor([sigma], dtype=torch.float64)
    policy, reference = PairErrors(chosen, rejected), PairErrors(ref_chosen, ref_rejected)
    assert config.beta is not None
    out = dpo_loss(policy, reference, preference=preference, sigma=level, config=config, beta=config.beta)
    return float(out.loss)


@given(FALLING, MARGINS, st.floats(0.01, 2), BETAS)
def test_a_larger_margin_never_costs_more(kind: str, margin: float, more: float, beta: float) -> None:
    config = config_of(kind, beta)
    near, far = (loss([1.0, 1.0 + value, 1.0, 1.0], config) for value in (margin, margin + more))
    assert far <= near
    assert far < near or kind == "hinge"


@given(MARGINS, st.floats(0.01, 2), BETAS)
def test_ipo_costs_more_the_farther_the_log_ratio_is_from_its_target(margin: float, more: float, beta: float) -> None:
    config = config_of("ipo", beta)
    distances = {value: abs(value / 2 - 1 / (2 * beta)) for value in (margin, margin + more)}
    losses = {value: loss([1.0, 1.0 + value, 1.0, 1.0], config) for value in distances}
    for value, distance in distances.items():
        assert math.isclose(losses[value], distance**2, rel_tol=1e-9, abs_tol=1e-12)


@given(PAIRED, ERRORS, SHARES, BETAS, st.floats(0, 1), st.sampled_from(["constant", "flow"]))
def test_swapping_the_clips_and_the_label_changes_nothing(
    kind: str, errors: list[float], share: float, beta: float, sft: float, noise: Literal["constant", "flow"]
) -> None:
    config = config_of(kind, beta, sft_weight=sft, beta_over_noise=noise)
    swapped = [errors[1], errors[0], errors[3], errors[2]]
    assert math.isclose(loss(errors, config, share), loss(swapped, config, 1 - share), rel_tol=1e-9, abs_tol=1e-9)


@given(PAIRED, ERRORS, SHARES, BETAS)
def test_soft_labels_interpolate(kind: str, errors: list[float], share: float, beta: float) -> None:
    config = config_of(kind, beta, sft_weight=0.3)
    expected = share * loss(errors, config, 1.0) + (1 - share) * loss(errors, config, 0.0)
    assert math.isclose(loss(errors, config, share), expected, rel_tol=1e-9, abs_tol=1e-9)


@given(ERRORS, BETAS)
def test_label_smoothing_goes_from_the_hard_label_to_the_tie(errors: list[float], beta: float) -> None:
    hard, tie = (loss(errors, DpoLossConfig(beta=beta), share) for share in (1.0, 0.5))
    near, far = (loss(errors, DpoLossConfig(beta=beta, label_smoothing=c)) for c in (1e-9, 0.5 - 1e-9))
    assert math.isclose(near, hard, rel_tol=1e-6, abs_tol=1e-6)
    assert math.isclose(far, tie, rel_tol=1e-6, abs_tol=1e-6)


@given(ERRORS, BETAS, st.floats(0.01, 0.45))
def test_robust_undoes_the_smoothing_of_labels(errors: list[float], beta: float, wrong: float) -> None:
    robust = DpoLossConfig(kind="robust", beta=beta, label_smoothing=wrong)
    clean = loss(errors, DpoLossConfig(beta=beta))
    # The loss is linear in the label, so the expected label after flips stands for the mean over flips.
    assert math.isclose(loss(errors, robust, 1 - wrong), clean, rel_tol=1e-6, abs_tol=1e-6)


@given(PAIRED, ERRORS, BETAS, st.floats(0, 1))
def test_half_is_half_the_beta(kind: str, errors: list[float], beta: float, sigma: float) -> None:
    with_half, without = config_of(kind, 2 * beta), config_of(kind, beta, half=False)
    factor = 4.0 if kind == "ipo" else 1.0  # ipo's square is of h itself, not of beta h
    one, other = factor * loss(errors, with_half, sigma=sigma), loss(errors, without, sigma=sigma)
    assert math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)


@given(MARGINS, st.floats(0.01, 2), BETAS, st.floats(0, 1))
def test_kto_likes_gains_of_liked_clips_and_losses_of_disliked_ones(
    gain: float, more: float, beta: float, point: float
) -> None:
    config = DpoLossConfig(kind="kto", beta=beta)

    def cost(value: float, liked: float) -> Tensor:
        one = torch.tensor([[1.0]], dtype=torch.float64)
        options: dict[str, Any] = {"liked": liked * one, "sigma": one[0], "config": config, "beta": beta}
        return kto_loss(one - value, one, reference_point=torch.tensor(point, dtype=torch.float64), **options).loss

    assert cost(gain + more, 1.0) < cost(gain, 1.0)
    assert cost(gain + more, 0.0) > cost(gain, 0.0)
    assert math.isclose(float(cost(gain, 1.0) + cost(gain, 0.0)), 1.0)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), st.floats(0.05, 0.45), st.floats(1, 50))
def test_auto_beta_stays_in_its_range_and_falls_with_the_margins(
    sizes: list[float], target: float, span: float
) -> None:
    auto = AutoBetaConfig(target=target, span=span, start=10.0, warmup=1)
    small, large = (AutoBeta(DpoLossConfig(beta=None, auto_beta=auto)) for _ in range(2))
    for size in sizes:
        small.update(torch.tensor([[size]], dtype=torch.float64), sigma=torch.tensor([0.5]))
        large.update(torch.tensor([[2 * size]], dtype=torch.float64), sigma=torch.tensor([0.5]))
    assert 10.0 / span <= large.value <= small.value <= 10.0 * span
