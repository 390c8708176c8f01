"""Checkpointing of a backbone: one recomputation remembers adapter switches and windows, each from its own room."""

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from rlhf_video.attention import AttentionPlan, Local, PlanHandle, apply_attention_plan
from rlhf_video.backbones import VideoBackbone
from rlhf_video.lora import LoraConfig, adapter_off, adapter_parameters, adapter_scale, attach

SIGMA = torch.tensor([0.5])


def _with_plan(backbone: VideoBackbone) -> PlanHandle:
    transformer = backbone.transformers["transformer"]
    assert isinstance(transformer, WanTransformer3DModel)
    heads = transformer.config.num_attention_heads
    return apply_attention_plan(transformer, AttentionPlan(heads, (Local((1, 1, 2)),) * transformer.config.num_layers))


def _two_passes(backbone: VideoBackbone) -> list[Tensor]:
    """Return velocities of a wide clip at half the adapter, and of a tall one with as many tokens at the whole."""
    generator = torch.Generator().manual_seed(0)
    cond = backbone.encode_prompts(["a red circle"])
    wide = torch.randn(1, 4, 2, 4, 8, generator=generator)
    tall = torch.randn(1, 4, 2, 8, 4, generator=generator)
    with adapter_scale(backbone, 0.5):
        first = backbone.velocity(wide, SIGMA, cond)
    return [first, backbone.velocity(tall, SIGMA, cond)]


def _gradient(backbone: VideoBackbone, velocities: list[Tensor]) -> Tensor:
    loss = torch.stack([velocity.square().sum() for velocity in velocities]).sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, adapter_parameters(backbone))])


def test_adapter_switches_and_windows_are_recomputed_together(tiny_wan: VideoBackbone) -> None:
    attach(tiny_wan, LoraConfig(rank=2), seed=0)
    for number, parameter in enumerate(adapter_parameters(tiny_wan)):
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(number))
    with torch.no_grad():
        dense = _two_passes(tiny_wan)
    handle = _with_plan(tiny_wan)
    expected = _gradient(tiny_wan, _two_passes(tiny_wan))
    tiny_wan.set_gradient_checkpointing(True)
    velocities = _two_passes(tiny_wan)
    assert not any(map(torch.equal, velocities, dense))
    with torch.no_grad(), adapter_off(tiny_wan), handle.disabled():  # a dense reference before the backward pass
        _two_passes(tiny_wan)
    assert torch.equal(_gradient(tiny_wan, velocities), expected)
    tiny_wan.set_gradient_checkpointing(False)
    assert torch.equal(_gradient(tiny_wan, _two_passes(tiny_wan)), expected)
