"""Auto-beta reaches its target, resumes to the bit, and a fixed beta that saturates is told a better one."""

import json
import math
import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rlhf_video.algorithms.dpo_beta import AutoBeta, gradient_factor
from rlhf_video.algorithms.dpo_loss import AutoBetaConfig, DpoLossConfig, PairErrors, dpo_loss

AUTO = DpoLossConfig(beta=None, auto_beta=AutoBetaConfig(warmup=2, start=500.0, span=20.0))
SIGMA = torch.tensor([0.2, 0.5, 0.9])


def margins(size: float, seed: int = 0) -> Tensor:
    return size * torch.randn(3, 2, generator=torch.Generator().manual_seed(seed))


def test_auto_beta_is_minus_two_logit_of_the_target_over_the_running_margin() -> None:
    beta, sizes = AutoBeta(AUTO), []
    for seed in range(4):
        sizes.append(float(margins(0.002, seed).double().abs().mean()))
        beta.update(margins(0.002, seed), sigma=SIGMA)
    weights = [0.95 ** (3 - index) for index in range(4)]
    mean = sum(weight * size for weight, size in zip(weights, sizes, strict=True)) / sum(weights)
    assert beta.value == pytest.approx(-2 * math.log(0.25 / 0.75) / mean)


@pytest.mark.parametrize(
    "config",
    [AUTO, replace(AUTO, half=False), replace(AUTO, beta_over_noise="flow")],
    ids=["half", "no half", "beta over noise"],
)
def test_a_pair_with_the_mean_margin_has_the_gradient_factor_aimed_at(config: DpoLossConfig) -> None:
    beta, margin, sigma = AutoBeta(config), torch.tensor([[0.003]]), torch.tensor([0.3])
    for _ in range(3):
        beta.update(margin, sigma=sigma)
    factor = gradient_factor(margin, sigma=sigma, config=config, beta=beta.value)
    assert float(factor) == pytest.approx(0.25)
    chosen = torch.zeros(1, 1, requires_grad=True)
    reference = PairErrors(margin, torch.zeros(1, 1))
    out = dpo_loss(
        PairErrors(chosen, torch.zeros(1, 1)),
        reference,
        preference=torch.ones(1, 1),
        sigma=sigma,
        config=config,
        beta=beta.value,
    )
    (slope,) = torch.autograd.grad(out.loss.sum(), chosen)
    per_margin = (0.5 if config.half else 1.0) * (0.7**2 if config.beta_over_noise == "flow" else 1.0)
    assert float(slope) == pytest.approx(0.25 * beta.value * per_margin)


def test_the_first_steps_and_zero_margins_are_no_measure() -> None:
    beta = AutoBeta(AUTO)
    assert beta.value == 500
    beta.update(margins(0.0), sigma=SIGMA)
    assert beta.value == 500
    beta.update(margins(0.0), sigma=SIGMA)
    assert beta.value == 500 * 20  # an adapter that has not moved: the upper bound, not infinity
    for _ in range(100):
        beta.update(margins(1e6), sigma=SIGMA)
    assert beta.value == 500 / 20


def test_segments_that_nobody_labelled_do_not_count() -> None:
    plain, masked = AutoBeta(AUTO), AutoBeta(AUTO)
    for seed in range(3):
        margin = margins(0.01, seed)
        plain.update(margin[:, :1], sigma=SIGMA)
        masked.update(torch.cat([margin[:, :1], torch.full((3, 1), math.nan)], dim=1), sigma=SIGMA)
        masked.update(torch.full((3, 2), math.nan), sigma=SIGMA)
    assert plain.value == masked.value
    assert plain.state() == masked.state()


def test_resuming_goes_on_to_the_bit() -> None:
    straight, first, resumed = AutoBeta(AUTO), AutoBeta(AUTO), AutoBeta(AUTO)
    for step in range(6):
        straight.update(margins(0.01, step), sigma=SIGMA)
        (first if step < 3 else resumed).update(margins(0.01, step), sigma=SIGMA)
        if step == 2:
            resumed.load_state(json.loads(json.dumps(first.state())))
    assert resumed.state() == straight.state()
    assert resumed.value == straight.value


def test_a_fixed_beta_stays_and_is_told_the_better_one_where_it_saturates() -> None:
    config = DpoLossConfig(beta=5000.0)
    beta = AutoBeta(config)
    assert beta.saturation_warning() is None
    beta.update(torch.tensor([[0.01], [-0.02], [0.03]]), sigma=SIGMA)
    assert beta.value == 5000
    warning = beta.saturation_warning()
    assert warning is not None
    better = float(re.findall(r"margins beta ([\d.]+)", warning)[0])
    assert better == pytest.approx(2 * math.log(3) / 0.02, rel=1e-3)
    assert "Beta 5000 saturates: 100% of the last pairs" in warning
    assert "set loss.beta to it, or to null" in warning
    calm = AutoBeta(replace(config, beta=better))
    calm.update(torch.tensor([[0.01], [-0.02], [0.03]]), sigma=SIGMA)
    assert calm.saturation_warning() is None


def test_auto_beta_at_its_bound_asks_for_another_start() -> None:
    beta = AutoBeta(replace(AUTO, reduction="sum"))
    for _ in range(3):
        beta.update(margins(1e4), sigma=SIGMA)
    assert beta.value == 25
    warning = beta.saturation_warning()
    assert warning is not None and "set loss.auto_beta.start to it" in warning


def test_kinds_without_a_sigmoid_are_not_judged() -> None:
    beta = AutoBeta(DpoLossConfig(kind="hinge", beta=5000.0))
    beta.update(margins(1.0), sigma=SIGMA)
    assert beta.saturation_warning() is None


def test_a_beta_of_thumbs_is_judged_by_the_slope_around_the_reference_point() -> None:
    config = DpoLossConfig(kind="kto", beta=5000.0)
    gains = torch.tensor([[0.04], [0.02], [0.03]])  # all on one side of 0: only against their mean do they differ
    beta, point = AutoBeta(config), 2500 * 0.03
    beta.update(gains, sigma=SIGMA, reference_point=point)
    warning = beta.saturation_warning()
    assert warning is not None and "67% of the last clips" in warning and "factor of 0.19: set loss.beta" in warning
    better = float(re.findall(r"gains beta ([\d.]+)", warning)[0])
    assert better == pytest.approx(2 * math.log(3) / (0.02 / 3), rel=1e-3)
    slope = gradient_factor(gains, sigma=SIGMA, config=config, beta=5000.0, reference_point=point)
    assert slope[2, 0] == pytest.approx(0.25) and slope[0, 0] == pytest.approx(math.exp(-25), rel=1e-3)
    calm = AutoBeta(replace(config, beta=better))
    calm.update(gains, sigma=SIGMA, reference_point=better / 2 * 0.03)
    assert calm.saturation_warning() is None
