"""Attention plans on backbones: one plan for all transformers, the same tensor everywhere, and the way back."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from rlhf_video.attention import AttentionConfig, AttentionPlan, Band, Full, Grid, Local, apply_attention_plan
from rlhf_video.backbones import Conditioning, VideoBackbone, VideoShape, describe_plan, load_backbone, meta_backbone
from rlhf_video.errors import ConfigError
from rlhf_video.lora import LoraConfig, adapter_off, adapter_parameters, attach
from rlhf_video.testing import TINY_PROMPTS

SHAPE = VideoShape(batch=2, frames=9, height=32, width=48)
GRID = Grid(3, 2, 3)
SIGMA = torch.tensor(0.6)
PLAN = AttentionPlan(6, (Full(), Band(chunk=1.0, halo=0.0)))
COVERING = AttentionPlan(6, (Local((3, 0, 0)), Band(chunk=1.0, halo=1.0)))


def _inputs(backbone: VideoBackbone) -> tuple[Tensor, Conditioning]:
    return backbone.noise(SHAPE, torch.Generator().manual_seed(3)), backbone.encode_prompts(TINY_PROMPTS)


def _velocity(backbone: VideoBackbone, sigma: Tensor = SIGMA) -> Tensor:
    noise, cond = _inputs(backbone)
    with torch.no_grad():
        return backbone.velocity(noise, sigma, cond, guidance=4.0)


def _adapter_gradients(backbone: VideoBackbone, latents: Tensor, cond: Conditioning) -> list[Tensor]:
    for parameter in adapter_parameters(backbone):
        parameter.grad = None
    backbone.velocity(latents, SIGMA, cond, guidance=4.0).square().mean().backward()
    return [parameter.grad.clone() for parameter in adapter_parameters(backbone) if parameter.grad is not None]


def _with_adapter(backbone: VideoBackbone) -> VideoBackbone:
    attach(backbone, LoraConfig(rank=2, alpha=2.0), seed=0)
    for parameter in adapter_parameters(backbone):
        parameter.data.add_(0.05)
    return backbone


def test_a_backbone_knows_its_depth_heads_and_tokens(tiny_wan_folder: Path) -> None:
    for backbone in (load_backbone(tiny_wan_folder), meta_backbone(tiny_wan_folder)):
        assert (backbone.num_layers, backbone.num_heads) == (2, 6)
        assert backbone.token_grid(SHAPE) == GRID
        assert backbone.attention_plan is None
        plan = backbone.plan_for(AttentionConfig(preset="hybrid_middle"), SHAPE)
        assert plan.num_layers == 2
        assert "2 x 3" in plan.describe(backbone.token_grid(SHAPE))
    with pytest.raises(ConfigError, match="temporal stride"):
        backbone.token_grid(VideoShape(batch=1, frames=10, height=32, width=32))


def test_a_plan_changes_velocity_and_goes_without_a_trace(tiny_wan: VideoBackbone) -> None:
    stock = _velocity(tiny_wan)
    tiny_wan.apply_attention(PLAN)
    assert tiny_wan.attention_plan == PLAN
    assert (_velocity(tiny_wan) - stock).abs().max() > 1e-4
    for dense in (None, AttentionPlan(6, (Full(), Full()))):
        tiny_wan.apply_attention(PLAN)
        tiny_wan.apply_attention(dense)
        assert tiny_wan.attention_plan is None
        assert torch.equal(_velocity(tiny_wan), stock)


def test_dense_attention_is_the_stock_model_exactly(tiny_wan_folder: Path, tiny_wan: VideoBackbone) -> None:
    stock = WanTransformer3DModel.from_pretrained(tiny_wan_folder / "transformer")
    noise, cond = _inputs(tiny_wan)
    with torch.no_grad():
        expected = stock(
            hidden_states=noise,
            timestep=torch.full((2,), 600.0),
            encoder_hidden_states=cond.prompt_embeds,
            return_dict=False,
        )[0]
        tiny_wan.apply_attention(PLAN)
        windowed = tiny_wan.velocity(noise, SIGMA, cond)
        with tiny_wan.dense_attention():
            assert torch.equal(tiny_wan.velocity(noise, SIGMA, cond), expected)
        assert torch.equal(tiny_wan.velocity(noise, SIGMA, cond), windowed)
        tiny_wan.apply_attention(COVERING)
        assert torch.equal(tiny_wan.velocity(noise, SIGMA, cond), expected), "windows that cover the clip"
    assert not torch.equal(windowed, expected)


def test_dense_attention_without_a_plan_does_nothing(tiny_wan: VideoBackbone) -> None:
    with tiny_wan.dense_attention():
        inside = _velocity(tiny_wan)
    assert torch.equal(inside, _velocity(tiny_wan))


def test_the_same_inputs_give_the_same_velocity_in_training_and_in_sampling_under_a_plan(
    tiny_wan: VideoBackbone,
) -> None:
    tiny_wan.apply_attention(PLAN)
    noise, cond = _inputs(_with_adapter(tiny_wan))
    sampling = _velocity(tiny_wan)
    for module in tiny_wan.transformers.values():
        module.train()
    for checkpointing in (False, True):
        tiny_wan.set_gradient_checkpointing(checkpointing)
        training = tiny_wan.velocity(noise.clone().requires_grad_(), SIGMA, cond, guidance=4.0)
        assert training.requires_grad
        assert torch.equal(training.detach(), sampling)


def test_checkpointing_changes_no_gradient_under_a_plan(tiny_wan: VideoBackbone) -> None:
    tiny_wan.apply_attention(PLAN)
    noise, cond = _inputs(_with_adapter(tiny_wan))
    gradients = []
    for checkpointing in (False, True):
        tiny_wan.set_gradient_checkpointing(checkpointing)
        gradients.append(_adapter_gradients(tiny_wan, noise, cond))
    assert len(gradients[0]) == len(adapter_parameters(tiny_wan))
    assert all(gradient.abs().max() > 0 for gradient in gradients[0])
    for off, on in zip(*gradients, strict=True):
        torch.testing.assert_close(on, off, rtol=0, atol=1e-7)


def test_a_backward_after_the_plan_is_off_recomputes_what_the_forward_saw(tiny_wan: VideoBackbone) -> None:
    """The teacher runs dense between the policy's forward and its backward."""
    tiny_wan.apply_attention(PLAN)
    noise, cond = _inputs(_with_adapter(tiny_wan))
    tiny_wan.set_gradient_checkpointing(True)
    expected = _adapter_gradients(tiny_wan, noise, cond)
    for parameter in adapter_parameters(tiny_wan):
        parameter.grad = None
    loss = tiny_wan.velocity(noise, SIGMA, cond, guidance=4.0).square().mean()
    with torch.no_grad(), adapter_off(tiny_wan), tiny_wan.dense_attention():
        tiny_wan.velocity(noise, SIGMA, cond)
    with tiny_wan.dense_attention():
        loss.backward()
    for parameter, gradient in zip(adapter_parameters(tiny_wan), expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=1e-7)


def test_both_experts_follow_one_plan(tiny_two_expert_folder: Path) -> None:
    backbone = load_backbone(tiny_two_expert_folder)
    sigmas = torch.tensor(0.8), torch.tensor(0.2)
    stock = [_velocity(backbone, sigma) for sigma in sigmas]
    backbone.apply_attention(PLAN)
    for sigma, expected in zip(sigmas, stock, strict=True):
        assert not torch.equal(_velocity(backbone, sigma), expected)
        with backbone.dense_attention():
            assert torch.equal(_velocity(backbone, sigma), expected)
    assert len(backbone.attention_handles) == 2


def test_windows_are_off_in_the_dense_range_of_noise_levels(tiny_wan: VideoBackbone) -> None:
    high, low = torch.tensor(0.9), torch.tensor(0.5)
    stock = [_velocity(tiny_wan, sigma) for sigma in (high, low)]
    tiny_wan.apply_attention(AttentionPlan(6, PLAN.layers, dense_sigmas=(0.8, 1.0)))
    assert torch.equal(_velocity(tiny_wan, high), stock[0])
    assert not torch.equal(_velocity(tiny_wan, low), stock[1])


def test_an_adapter_attached_before_or_after_the_plan_is_the_same(make_tiny_wan: Callable[[], VideoBackbone]) -> None:
    before, after = make_tiny_wan(), make_tiny_wan()
    _with_adapter(before).apply_attention(PLAN)
    after.apply_attention(PLAN)
    assert torch.equal(_velocity(before), _velocity(_with_adapter(after)))


def test_a_plan_for_another_model_is_refused_and_changes_nothing(tiny_wan: VideoBackbone) -> None:
    tiny_wan.apply_attention(PLAN)
    windowed = _velocity(tiny_wan)
    for plan, message in (
        (AttentionPlan(6, (*PLAN.layers, Full())), "3 layers"),
        (AttentionPlan(4, PLAN.layers), "4 heads"),
    ):
        with pytest.raises(ConfigError, match=message):
            tiny_wan.apply_attention(plan)
    assert tiny_wan.attention_plan == PLAN
    assert torch.equal(_velocity(tiny_wan), windowed)


def test_a_plan_is_described_in_one_line() -> None:
    assert describe_plan(None) == describe_plan(AttentionPlan(6, (Full(), Full()))) == "full"
    line = describe_plan(AttentionPlan(6, PLAN.layers, dense_sigmas=(0.8, 1.0)))
    assert "\n" not in line
    for part in ("layers 0 full", "layers 1 band", "0.8 to 1", "fingerprint"):
        assert part in line


def test_a_plan_put_on_a_transformer_by_hand_is_recorded(tiny_wan: VideoBackbone) -> None:
    apply_attention_plan(tiny_wan.transformers["transformer"], PLAN)
    assert tiny_wan.attention_record() == PLAN.to_json()
    tiny_wan.apply_attention(None)
    assert tiny_wan.attention_record() is None
