from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rlhf_video.backbones import Conditioning, VideoBackbone, VideoShape
from rlhf_video.errors import AdapterError
from rlhf_video.lora import (
    LoraConfig,
    adapter_off,
    adapter_parameters,
    adapter_scale,
    adapter_state,
    attach,
    load_adapter_state,
)
from rlhf_video.testing import TINY_PROMPTS

SIGMA = torch.tensor(0.6)
CONFIG = LoraConfig(rank=3, alpha=5)


def _inputs(backbone: VideoBackbone) -> tuple[Tensor, Conditioning]:
    shape = VideoShape(batch=2, frames=9, height=32, width=32)
    return backbone.noise(shape, torch.Generator().manual_seed(1)), backbone.encode_prompts(TINY_PROMPTS)


def _perturb(backbone: VideoBackbone) -> None:
    generator = torch.Generator().manual_seed(9)
    for parameter in adapter_parameters(backbone):
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def _gradients(backbone: VideoBackbone, output: Tensor) -> Tensor:
    parameters = adapter_parameters(backbone)
    return torch.cat([grad.flatten() for grad in torch.autograd.grad(output.square().sum(), parameters)])


def test_a_new_adapter_equals_the_base_exactly(tiny_wan: VideoBackbone) -> None:
    noise, cond = _inputs(tiny_wan)
    base = tiny_wan.velocity(noise, SIGMA, cond, guidance=5.0)
    attach(tiny_wan, CONFIG, seed=0)
    assert torch.equal(tiny_wan.velocity(noise, SIGMA, cond, guidance=5.0), base)


def test_only_the_adapter_is_trainable_and_float32(tiny_wan: VideoBackbone) -> None:
    parameters = attach(tiny_wan, CONFIG, seed=0)
    trainable = [p for t in tiny_wan.transformers.values() for p in t.parameters() if p.requires_grad]
    assert {id(p) for p in trainable} == {id(p) for p in parameters}
    assert all(p.dtype == torch.float32 for p in parameters)
    assert len(parameters) == 2 * 2 * 10  # two matrices, two blocks, ten Linears each
    assert not any(p.requires_grad for p in tiny_wan.vae.parameters())


def test_the_start_depends_on_the_seed_alone(make_tiny_wan: Callable[[], VideoBackbone]) -> None:
    states = []
    for seed in (4, 4, 5):
        backbone = make_tiny_wan()
        torch.manual_seed(len(states))
        attach(backbone, CONFIG, seed=seed)
        states.append(adapter_state(backbone))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(*(state["transformer.blocks.0.attn1.to_q.lora_A.weight"] for state in states[1:]))


def test_adapter_off_is_the_base_and_comes_back(tiny_wan: VideoBackbone) -> None:
    noise, cond = _inputs(tiny_wan)
    base = tiny_wan.velocity(noise, SIGMA, cond)
    attach(tiny_wan, CONFIG, seed=0)
    _perturb(tiny_wan)
    tuned = tiny_wan.velocity(noise, SIGMA, cond)
    assert not torch.equal(tuned, base)
    with torch.no_grad(), adapter_off(tiny_wan):
        assert torch.equal(tiny_wan.velocity(noise, SIGMA, cond), base)
    assert torch.equal(tiny_wan.velocity(noise, SIGMA, cond), tuned)
    with pytest.raises(ZeroDivisionError), torch.no_grad(), adapter_off(tiny_wan):
        raise ZeroDivisionError
    assert torch.equal(tiny_wan.velocity(noise, SIGMA, cond), tuned)


def test_adapter_off_refuses_while_gradients_are_recorded(tiny_wan: VideoBackbone) -> None:
    attach(tiny_wan, CONFIG, seed=0)
    with pytest.raises(AdapterError, match=r"torch\.no_grad"), adapter_off(tiny_wan):
        pass


def test_adapter_scale_goes_from_the_base_to_the_adapter(tiny_wan: VideoBackbone) -> None:
    noise, cond = _inputs(tiny_wan)
    base = tiny_wan.velocity(noise, SIGMA, cond)
    attach(tiny_wan, CONFIG, seed=0)
    _perturb(tiny_wan)
    tuned = tiny_wan.velocity(noise, SIGMA, cond)
    outputs = {}
    for scale in (0.0, 0.5, 1.0, 1.25):
        with adapter_scale(tiny_wan, scale):
            outputs[scale] = tiny_wan.velocity(noise, SIGMA, cond)
    assert torch.equal(outputs[0.0], base)
    assert torch.equal(outputs[1.0], tuned)
    assert not torch.equal(outputs[0.5], tuned)
    assert not torch.equal(outputs[1.25], tuned)
    assert torch.equal(tiny_wan.velocity(noise, SIGMA, cond), tuned)


def test_checkpointing_changes_no_velocity_and_no_gradient(tiny_wan: VideoBackbone) -> None:
    noise, cond = _inputs(tiny_wan)
    attach(tiny_wan, CONFIG, seed=0)
    _perturb(tiny_wan)
    plain = tiny_wan.velocity(noise, SIGMA, cond, guidance=5.0)
    expected = _gradients(tiny_wan, plain)
    tiny_wan.set_gradient_checkpointing(True)
    recomputed = tiny_wan.velocity(noise, SIGMA, cond, guidance=5.0)
    assert torch.equal(recomputed, plain)
    assert torch.equal(_gradients(tiny_wan, recomputed), expected)
    tiny_wan.set_gradient_checkpointing(False)
    assert torch.equal(_gradients(tiny_wan, tiny_wan.velocity(noise, SIGMA, cond, guidance=5.0)), expected)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_backward_sees_the_adapter_state_of_its_forward(tiny_wan: VideoBackbone, checkpointing: bool) -> None:
    noise, cond = _inputs(tiny_wan)
    attach(tiny_wan, CONFIG, seed=0)
    _perturb(tiny_wan)
    tiny_wan.set_gradient_checkpointing(checkpointing)
    with adapter_scale(tiny_wan, 0.5):
        expected = _gradients(tiny_wan, tiny_wan.velocity(noise, SIGMA, cond))
        at_half = tiny_wan.velocity(noise, SIGMA, cond)
    assert torch.equal(_gradients(tiny_wan, at_half), expected)  # outside the switch
    full = tiny_wan.velocity(noise, SIGMA, cond)
    expected_full = _gradients(tiny_wan, tiny_wan.velocity(noise, SIGMA, cond))
    with adapter_scale(tiny_wan, 0.0):
        assert torch.equal(_gradients(tiny_wan, full), expected_full)  # inside another one


def test_base_pass_between_forward_and_backward_leaves_the_gradient_alone(tiny_wan: VideoBackbone) -> None:
    noise, cond = _inputs(tiny_wan)
    parameters = attach(tiny_wan, CONFIG, seed=0)
    _perturb(tiny_wan)
    expected = _gradients(tiny_wan, tiny_wan.velocity(noise, SIGMA, cond))
    for checkpointing in (False, True):
        tiny_wan.set_gradient_checkpointing(checkpointing)
        policy = tiny_wan.velocity(noise, SIGMA, cond)
        with torch.no_grad(), adapter_off(tiny_wan):
            tiny_wan.velocity(noise, SIGMA, cond)
        assert all(parameter.requires_grad for parameter in parameters)
        assert torch.equal(_gradients(tiny_wan, policy), expected)


def test_state_goes_round_and_misfits_are_refused(make_tiny_wan: Callable[[], VideoBackbone]) -> None:
    source, target = make_tiny_wan(), make_tiny_wan()
    for backbone in (source, target):
        attach(backbone, CONFIG, seed=0)
    _perturb(source)
    state = adapter_state(source)
    load_adapter_state(target, state)
    assert all(torch.equal(value, state[name]) for name, value in adapter_state(target).items())
    first = next(iter(state))
    with pytest.raises(AdapterError, match="does not fit"):
        load_adapter_state(target, {name: value for name, value in state.items() if name != first})
    with pytest.raises(AdapterError, match="does not fit"):
        load_adapter_state(target, {**state, first: state[first][:1]})


def test_bad_adapters_are_refused(tiny_wan: VideoBackbone) -> None:
    with pytest.raises(AdapterError, match="positive"):
        LoraConfig(rank=0)
    with pytest.raises(AdapterError, match="empty"):
        LoraConfig(targets=())
    with pytest.raises(AdapterError, match="no Linear of transformer ends in 'to_kv'"):
        attach(tiny_wan, LoraConfig(targets=("to_kv",)), seed=0)
    with pytest.raises(AdapterError, match="no adapter"):
        adapter_state(tiny_wan)
    attach(tiny_wan, LoraConfig(targets=("to_q",)), seed=0)
    assert len(adapter_parameters(tiny_wan)) == 8
    with pytest.raises(AdapterError, match="already"):
        attach(tiny_wan, CONFIG, seed=0)
