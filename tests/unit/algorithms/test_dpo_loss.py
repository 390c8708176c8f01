"""Every loss is its closed form, labels are probabilities, segments are averaged; the conventions are what they say."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf_video.algorithms.dpo_loss import (
    AutoBetaConfig,
    DpoLossConfig,
    DpoTerms,
    PairErrors,
    dpo_loss,
    segment_errors,
)
from rlhf_video.errors import ConfigError

SIGMOID = DpoLossConfig(beta=3.0)
NAN = math.nan
# Policy and reference errors of one pair; Delta = (0.5 - 0.9) - (0.8 - 0.7) = -0.5.
CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED = 0.5, 0.8, 0.9, 0.7
DELTA = -0.5


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def terms(config: DpoLossConfig, *, p: float = 1.0, sigma: float = 0.4) -> DpoTerms:
    return dpo_loss(
        PairErrors(column(CHOSEN), column(REJECTED)),
        PairErrors(column(REF_CHOSEN), column(REF_REJECTED)),
        preference=column(p),
        sigma=torch.tensor([sigma], dtype=torch.float64),
        config=config,
        beta=config.beta or 0.0,
    )


def loss(config: DpoLossConfig, **options: float) -> float:
    return float(terms(config, **options).loss)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_sigmoid_is_diffusion_dpo() -> None:
    assert loss(SIGMOID) == pytest.approx(softplus(3.0 / 2 * DELTA))
    assert loss(replace(SIGMOID, half=False)) == pytest.approx(softplus(3.0 * DELTA))


def test_margin_and_gains_are_told_without_gradient() -> None:
    out = terms(SIGMOID)
    assert float(out.margin) == pytest.approx(-DELTA)
    assert (float(out.chosen_gain), float(out.rejected_gain)) == pytest.approx((0.4, -0.1))


def test_label_smoothing_is_conservative_dpo() -> None:
    x = 1.5 * -DELTA
    smoothed = replace(SIGMOID, label_smoothing=0.1)
    assert loss(smoothed) == pytest.approx(0.9 * softplus(-x) + 0.1 * softplus(x))
    assert loss(smoothed, p=0.0) == pytest.approx(0.1 * softplus(-x) + 0.9 * softplus(x))


def test_robust_is_unbiased_under_flipped_labels() -> None:
    x, flips = 1.5 * -DELTA, 0.2
    robust = replace(SIGMOID, kind="robust", label_smoothing=flips)
    assert loss(robust) == pytest.approx(((1 - flips) * softplus(-x) - flips * softplus(x)) / (1 - 2 * flips))
    # What Chowdhury et al. (arXiv:2403.00409) ask of it: its mean over flipped labels is the loss on clean ones.
    assert (1 - flips) * loss(robust, p=1.0) + flips * loss(robust, p=0.0) == pytest.approx(loss(SIGMOID))


def test_hinge_is_slic() -> None:
    hinge = replace(SIGMOID, kind="hinge")
    assert loss(hinge) == pytest.approx(1 - 0.75)
    assert loss(hinge, p=0.0) == pytest.approx(1 + 0.75)
    assert loss(replace(hinge, beta=10.0)) == 0


def test_ipo_squares_the_distance_of_the_log_ratio_to_its_target() -> None:
    ipo = replace(SIGMOID, kind="ipo")
    assert loss(ipo) == pytest.approx((0.25 - 1 / 6) ** 2)
    assert loss(replace(ipo, half=False)) == pytest.approx((0.5 - 1 / 6) ** 2)
    assert loss(ipo, p=0.0) == pytest.approx((-0.25 - 1 / 6) ** 2)


def test_simpo_compares_errors_without_the_reference() -> None:
    simpo = replace(SIGMOID, kind="simpo", simpo_margin=0.3)
    assert loss(simpo) == pytest.approx(softplus(0.3 - 1.5 * (REJECTED - CHOSEN)))
    assert loss(simpo, p=0.0) == pytest.approx(softplus(0.3 + 1.5 * (REJECTED - CHOSEN)))
    assert float(terms(simpo).margin) == pytest.approx(REJECTED - CHOSEN)


@pytest.mark.parametrize("kind", ["sigmoid", "hinge", "ipo", "robust", "simpo"])
def test_soft_labels_interpolate(kind: Any) -> None:
    config = replace(SIGMOID, kind=kind, label_smoothing=0.1, sft_weight=0.2)
    expected = 0.7 * loss(config, p=1.0) + 0.3 * loss(config, p=0.0)
    assert loss(config, p=0.7) == pytest.approx(expected)


def test_sft_adds_the_error_of_the_preferred_clip() -> None:
    config = replace(SIGMOID, sft_weight=0.2)
    assert loss(config) == pytest.approx(loss(SIGMOID) + 0.2 * CHOSEN)
    assert loss(config, p=0.0) == pytest.approx(loss(SIGMOID, p=0.0) + 0.2 * REJECTED)


def test_the_derived_weight_of_flow_makes_velocity_errors_noise_errors() -> None:
    flow = replace(SIGMOID, beta_over_noise="flow")
    assert loss(flow, sigma=0.4) == pytest.approx(softplus(1.5 * 0.6**2 * DELTA))
    assert loss(flow, sigma=1.0) == pytest.approx(math.log(2))


def test_beta_of_sums_is_beta_of_means_over_the_elements() -> None:
    squared = torch.rand(4, 3, 4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    whole = torch.ones(3, 1, 2)
    results = []
    for reduction, beta in (("mean", 500.0), ("sum", 500.0 / (4 * 2 * 3 * 3))):
        errors = [segment_errors(one, whole, reduction) for one in squared]  # type: ignore[arg-type]
        config = DpoLossConfig(reduction=reduction, beta=beta)  # type: ignore[arg-type]
        labels = {"preference": torch.ones(3, 1), "sigma": torch.full((3,), 0.5)}
        results.append(dpo_loss(PairErrors(*errors[:2]), PairErrors(*errors[2:]), **labels, config=config, beta=beta))
    torch.testing.assert_close(results[0].loss, results[1].loss)


def test_segment_errors_average_their_own_frames() -> None:
    squared = torch.arange(3.0).view(1, 1, 3, 1, 1).expand(1, 2, 3, 2, 2)  # error of a frame = its number
    segments = torch.tensor([[[1.0, 1, 0], [0, 0.5, 1], [0, 0, 0]]])
    assert segment_errors(squared, segments, "mean").tolist() == [[0.5, pytest.approx(2.5 / 1.5), 0.0]]
    assert segment_errors(squared, segments, "sum").tolist() == [[8.0, 20.0, 0.0]]


def test_one_segment_of_all_frames_is_the_whole_clip() -> None:
    squared = torch.rand(2, 4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(segment_errors(squared, torch.ones(2, 1, 3), "mean")[:, 0], squared.flatten(1).mean(1))
    torch.testing.assert_close(segment_errors(squared, torch.ones(2, 1, 3), "sum")[:, 0], squared.flatten(1).sum(1))


def test_segments_are_averaged_where_labelled() -> None:
    errors = torch.rand(4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    policy, reference = PairErrors(*errors[:2].requires_grad_()), PairErrors(*errors[2:].detach())
    preference = torch.tensor([[1.0, NAN, 0.0], [NAN, NAN, NAN]], dtype=torch.float64)
    sigma = torch.tensor([0.5, 0.5], dtype=torch.float64)
    rows = dpo_loss(policy, reference, preference=preference, sigma=sigma, config=SIGMOID, beta=3.0).loss
    delta = ((errors[0] - errors[2]) - (errors[1] - errors[3]))[0].tolist()
    assert rows.tolist() == pytest.approx([(softplus(1.5 * delta[0]) + softplus(-1.5 * delta[2])) / 2, 0.0])
    (gradient,) = torch.autograd.grad(rows.sum(), policy.chosen)
    assert ((gradient == 0) == preference.isnan()).all()


@pytest.mark.parametrize("kind", ["sigmoid", "hinge", "ipo", "robust", "simpo"])
def test_swapping_the_clips_flips_the_gradient_of_a_pair_that_is_undecided(kind: Any) -> None:
    config = replace(SIGMOID, kind=kind, label_smoothing=0.1)
    gradients = []
    for swapped in (False, True):
        first, second = column(0.6).requires_grad_(), column(0.6).requires_grad_()
        members = (second, first) if swapped else (first, second)
        reference = PairErrors(column(0.6), column(0.6))
        labels = {"preference": column(1.0), "sigma": torch.tensor([0.5])}
        out = dpo_loss(PairErrors(*members), reference, **labels, config=config, beta=3.0)
        gradients.append(torch.autograd.grad(out.loss.sum(), (first, second)))
    for one, other in zip(*gradients, strict=True):
        assert float(one) == -float(other) != 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beta": 0.0}, "above 0"),
        ({"beta": NAN}, "above 0"),
        ({"label_smoothing": 0.5}, "below 0.5"),
        ({"sft_weight": -1.0}, "at least 0"),
        ({"kind": "robust"}, "corrects for flipped labels"),
        ({"kind": "ipo", "beta": None}, "auto-beta aims at"),
        ({"simpo_margin": 0.5}, "belongs to loss.kind=simpo"),
        ({"disliked_weight": 0.5}, "belongs to loss.kind=kto"),
        ({"beta_over_noise": "flow", "error": "epsilon"}, "turns a velocity error into a noise error"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DpoLossConfig(**values)


@pytest.mark.parametrize("values", [{"target": 0.5}, {"decay": 1.0}, {"start": 0.0}, {"warmup": 0}, {"span": 0.5}])
def test_auto_beta_settings_that_make_no_sense_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"loss\.auto_beta\."):
        AutoBetaConfig(**values)


def test_pairs_are_not_thumbs() -> None:
    with pytest.raises(ConfigError, match="kto_loss"):
        terms(DpoLossConfig(kind="kto"))
