"""A zero adapter is undecided to the bit; two passes give the joint gradient of every loss, in half the memory."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf_video.algorithms.dpo_loss import (
    DpoLossConfig,
    PairErrors,
    dpo_loss,
    segment_errors,
)
from rlhf_video.algorithms.dpo_passes import Objective, error_weights, joint_backward, two_pass_backward
from rlhf_video.algorithms.kto_loss import PairThumbs, kto_pair_loss
from rlhf_video.backbones import VideoBackbone, VideoShape
from rlhf_video.diffusion.flow import interpolate, velocity_target
from rlhf_video.diffusion.prediction_errors import squared_error
from rlhf_video.lora import LoraConfig, adapter_off, attach
from rlhf_video.lora.adapter import adapter_parameters
from rlhf_video.testing.live_bytes import LiveBytes

Pass = Callable[..., PairErrors]
PAIRS = 2
PROMPTS = ["a red circle", "a blue square"]
SIGMA = torch.tensor([0.3, 0.8])
SEGMENTS = torch.tensor([[1.0, 0, 0], [0, 1, 1]]).expand(PAIRS, 2, 3)
PREFERENCE = torch.tensor([[1.0, 0.3], [math.nan, 0.0]])
KINDS: list[dict[str, Any]] = [
    {},
    {"label_smoothing": 0.1, "sft_weight": 0.5},
    {"half": False, "beta_over_noise": "flow"},
    {"kind": "hinge"},
    {"kind": "ipo", "beta": 2.0},
    {"kind": "robust", "label_smoothing": 0.1},
    {"kind": "simpo", "simpo_margin": 0.2},
    {"kind": "kto"},
    {"reduction": "sum", "beta": 0.1},
]


class Pairs:
    """Two pairs of random latents under shared noise, and the errors of a model with an adapter on them."""

    def __init__(self, backbone: VideoBackbone) -> None:
        self.backbone = backbone
        self.parameters = attach(backbone, LoraConfig(rank=4, alpha=4.0), seed=0)
        shape = VideoShape(batch=PAIRS, frames=9, height=32, width=32)
        self.chosen, self.rejected, self.noise = (
            backbone.noise(shape, torch.Generator().manual_seed(seed)) for seed in range(3)
        )
        self.cond = backbone.encode_prompts(PROMPTS)

    def error(self, clean: Tensor, rows: slice = slice(None), *, reduction: Any = "mean") -> Tensor:
        noise, sigma = self.noise[rows], SIGMA[rows]
        cond = self.backbone.encode_prompts(PROMPTS[rows])
        velocity = self.backbone.velocity(interpolate(clean[rows], noise, sigma), sigma, cond)
        return segment_errors(squared_error(velocity, velocity_target(clean[rows], noise)), SEGMENTS[rows], reduction)

    def errors(self, **options: Any) -> PairErrors:
        return PairErrors(self.error(self.chosen, **options), self.error(self.rejected, **options))

    def reference(self, **options: Any) -> PairErrors:
        with torch.no_grad(), adapter_off(self.backbone):
            return self.errors(**options)

    def move_adapter(self) -> None:
        generator = torch.Generator().manual_seed(7)
        for parameter in adapter_parameters(self.backbone):
            parameter.data.normal_(generator=generator, std=0.1)

    def gradient(self, way: Pass, config: DpoLossConfig, *, parts: int = 1) -> tuple[Tensor, list[bool]]:
        """Return the gradient of one optimiser step in `parts` micro-batches, and what `last` was at each backward."""
        reference, lasts = self.reference(reduction=config.reduction), []

        def backward(loss: Tensor, *, last: bool) -> None:
            lasts.append(last)
            loss.backward()

        for part in range(parts):
            rows = slice(part * PAIRS // parts, (part + 1) * PAIRS // parts)
            way(
                lambda rows=rows: self.error(self.chosen, rows, reduction=config.reduction),
                lambda rows=rows: self.error(self.rejected, rows, reduction=config.reduction),
                objective_of(config, PairErrors(*(error[rows] for error in reference)), rows),
                backward,
                last=part + 1 == parts,
            )
        gradient = torch.cat([parameter.grad.flatten() for parameter in self.parameters])  # type: ignore[union-attr]
        for parameter in self.parameters:
            parameter.grad = None
        return gradient, lasts


def objective_of(config: DpoLossConfig, reference: PairErrors, rows: slice) -> Objective:
    assert config.beta is not None
    options: dict[str, Any] = {"sigma": SIGMA[rows], "config": config, "beta": config.beta}

    def objective(errors: PairErrors) -> Tensor:
        if config.kind == "kto":  # a pair as two thumbs
            thumbs, point = PairThumbs(PREFERENCE[rows], 1 - PREFERENCE[rows]), torch.tensor(0.1)
            out = kto_pair_loss(errors, reference, thumbs=thumbs, reference_point=point, **options)
            return out.loss.sum() / PAIRS
        return dpo_loss(errors, reference, preference=PREFERENCE[rows], **options).loss.sum() / PAIRS

    return objective


@pytest.fixture
def pairs(tiny_wan: VideoBackbone) -> Pairs:
    return Pairs(tiny_wan)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_fresh_adapter_is_undecided_to_the_bit(pairs: Pairs, reduction: str) -> None:
    config = DpoLossConfig(reduction=reduction)  # type: ignore[arg-type]
    labels = {"preference": torch.ones(PAIRS, 2), "sigma": SIGMA}
    policy, reference = pairs.errors(reduction=reduction), pairs.reference(reduction=reduction)
    out = dpo_loss(policy, reference, **labels, config=config, beta=500.0)
    assert (out.loss == torch.tensor(2.0).log()).all()
    assert (out.margin == 0).all() and (out.chosen_gain == 0).all() and (out.rejected_gain == 0).all()


def test_swapping_chosen_and_rejected_flips_the_gradient_of_a_fresh_adapter(pairs: Pairs) -> None:
    config, reference, gradients = DpoLossConfig(), pairs.reference(), []
    labels = {"preference": torch.ones(PAIRS, 2), "sigma": SIGMA}
    for order in ((0, 1), (1, 0)):
        errors = pairs.errors()
        swapped = [PairErrors(*(side[index] for index in order)) for side in (errors, reference)]
        rows = dpo_loss(*swapped, **labels, config=config, beta=500.0).loss
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(rows.sum(), pairs.parameters)]))
    assert gradients[0].abs().max() > 0.1
    torch.testing.assert_close(gradients[0], -gradients[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("values", KINDS, ids=lambda values: ",".join(f"{k}={v}" for k, v in values.items()) or "plain")
def test_two_passes_give_the_joint_gradient(pairs: Pairs, values: dict[str, Any]) -> None:
    pairs.move_adapter()
    config = DpoLossConfig(**({"beta": 50.0} | values))
    joint, _ = pairs.gradient(joint_backward, config)
    two_pass, _ = pairs.gradient(two_pass_backward, config)
    assert joint.abs().max() > 0
    assert float((two_pass - joint).abs().max() / joint.abs().max()) <= 1e-6


def test_recomputed_blocks_change_neither_gradient(pairs: Pairs) -> None:
    pairs.move_adapter()
    stored, _ = pairs.gradient(joint_backward, DpoLossConfig(beta=50.0))
    pairs.backbone.set_gradient_checkpointing(True)
    for way in (joint_backward, two_pass_backward):
        recomputed, _ = pairs.gradient(way, DpoLossConfig(beta=50.0))
        assert float((recomputed - stored).abs().max() / stored.abs().max()) <= 1e-6


@pytest.mark.parametrize("way", [joint_backward, two_pass_backward])
def test_micro_batches_add_up_and_only_the_last_backward_is_last(pairs: Pairs, way: Pass) -> None:
    pairs.move_adapter()
    whole, once = pairs.gradient(way, DpoLossConfig(beta=50.0))
    parts, lasts = pairs.gradient(way, DpoLossConfig(beta=50.0), parts=2)
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6 * float(whole.abs().max()))
    assert once == ([True] if way is joint_backward else [False, True])
    assert lasts == [False] * (len(lasts) - 1) + [True] and len(lasts) == 2 * len(once)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["stored", "recomputed"])
def test_two_passes_hold_about_half_of_the_activations(pairs: Pairs, checkpointing: bool) -> None:
    pairs.backbone.set_gradient_checkpointing(checkpointing)
    weights = [
        tensor
        for transformer in pairs.backbone.transformers.values()
        for tensor in (*transformer.parameters(), *transformer.buffers())
    ]
    peaks = [
        LiveBytes(weights).measure(partial(pairs.gradient, way, DpoLossConfig()))
        for way in (joint_backward, two_pass_backward)
    ]
    assert peaks[0] > (40_000 if checkpointing else 400_000)
    assert 0.45 <= peaks[1] / peaks[0] <= 0.55


def test_the_model_runs_three_times_a_pair(pairs: Pairs) -> None:
    calls: list[tuple[str, bool]] = []

    def run(name: str) -> Tensor:
        calls.append((name, torch.is_grad_enabled()))
        return pairs.parameters[0].sum()[None, None] * (2.0 if name == "chosen" else 3.0)

    def backward(loss: Tensor, *, last: bool) -> None:
        loss.backward()

    way = two_pass_backward
    errors = way(lambda: run("chosen"), lambda: run("rejected"), lambda e: (e[0] * e[1]).sum(), backward, last=True)
    assert calls == [("rejected", False), ("chosen", True), ("rejected", True)]
    assert not errors.chosen.requires_grad and not errors.rejected.requires_grad


def test_an_error_that_the_loss_does_not_use_has_no_weight() -> None:
    weights = error_weights(lambda errors: 2 * errors.chosen.sum(), PairErrors(torch.ones(2, 1), torch.ones(2, 1)))
    assert weights.chosen.tolist() == [[2.0], [2.0]]
    assert weights.rejected.tolist() == [[0.0], [0.0]]
