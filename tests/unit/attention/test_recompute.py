"""Gradient checkpointing: blocks are recomputed with the windows that their own forward pass saw."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rlhf_video.attention import AttentionPlan, Band, Full, Grid, Local, PlanHandle, Tile, apply_attention_plan
from rlhf_video.errors import ConfigError
from rlhf_video.testing.tiny_transformers import TinyTransformer, tiny_transformer

WIDE, TALL = Grid(2, 4, 6), Grid(2, 6, 4)  # 48 tokens each
PLAN = AttentionPlan(2, (Full(), Band(chunk=0.5, halo=0.25), Tile((1, 2, 2), (1, 1, 2)), Local((1, 2, 2))))
OTHER = AttentionPlan(2, (Local((1, 2, 2)), Full(), Band(chunk=0.25, halo=0.0), Full()))
WAN = "WanTransformer3DModel"


def gradients(tiny: TinyTransformer, *outputs: Tensor) -> list[Tensor]:
    loss = sum(output.square().sum() for output in outputs)
    return list(torch.autograd.grad(loss, list(tiny.model.parameters())))  # type: ignore[arg-type]


def two_grids(tiny: TinyTransformer) -> tuple[Tensor, Tensor]:
    return tiny.run(tiny.inputs(WIDE, batch=2)), tiny.run(tiny.inputs(TALL, batch=2, seed=1))


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(map(torch.equal, left, right))


@pytest.mark.parametrize("enable_first", [True, False])
def test_two_grids_in_one_backward_have_exact_gradients(tiny: TinyTransformer, enable_first: bool) -> None:
    apply_first = not enable_first
    if apply_first:
        apply_attention_plan(tiny.model, PLAN)
    tiny.model.enable_gradient_checkpointing()
    if enable_first:
        apply_attention_plan(tiny.model, PLAN)
    recomputed = gradients(tiny, *two_grids(tiny))
    tiny.model.disable_gradient_checkpointing()
    assert equal(recomputed, gradients(tiny, *two_grids(tiny)))


@pytest.mark.parametrize(
    "function",
    [
        functools.partial(checkpoint, use_reentrant=True),
        lambda block, *inputs: checkpoint(block.__call__, *inputs, use_reentrant=False),
    ],
)
def test_any_checkpoint_function_remembers(function: Callable[..., Any]) -> None:
    tiny = tiny_transformer(WAN)
    handle = apply_attention_plan(tiny.model, PLAN)
    expected = gradients(tiny, *two_grids(tiny))
    calls: list[object] = []

    def counting(block: Any, *inputs: Any) -> Any:
        calls.append(block)
        return function(block, *inputs)

    tiny.model.enable_gradient_checkpointing(counting)
    wide, tall = two_grids(tiny)
    loss = wide.square().sum() + tall.square().sum()
    loss.backward()  # the reentrant kind knows no autograd.grad
    found = [parameter.grad for parameter in tiny.model.parameters()]
    assert len(calls) == 8
    in_blocks = [name.startswith("blocks.1.attn1") for name, _ in tiny.model.named_parameters()]
    assert any(in_blocks)
    for gradient, wanted, inside in zip(found, expected, in_blocks, strict=True):
        if inside:
            torch.testing.assert_close(gradient, wanted, rtol=1e-6, atol=1e-6)
    handle.restore()
    assert tiny.model._gradient_checkpointing_func is counting


def test_plan_switched_between_forward_and_backward_changes_no_gradient() -> None:
    tiny = tiny_transformer(WAN)
    handle = apply_attention_plan(tiny.model, PLAN)
    expected = gradients(tiny, tiny.run(tiny.inputs(WIDE)))
    tiny.model.enable_gradient_checkpointing()
    student = tiny.run(tiny.inputs(WIDE))
    with torch.no_grad(), handle.disabled():
        tiny.run(tiny.inputs(WIDE))
    handle.use(OTHER)
    tiny.run(tiny.inputs(WIDE))
    with handle.disabled():
        assert equal(gradients(tiny, student), expected)
    student = tiny.run(tiny.inputs(WIDE))
    assert not equal(gradients(tiny, student), expected)


def test_dense_pass_is_recomputed_dense() -> None:
    tiny = tiny_transformer(WAN)
    expected = gradients(tiny, tiny.run(tiny.inputs(WIDE)))
    handle = apply_attention_plan(tiny.model, PLAN)
    tiny.model.enable_gradient_checkpointing()
    with handle.disabled():
        dense = tiny.run(tiny.inputs(WIDE))
    tiny.run(tiny.inputs(WIDE))
    assert equal(gradients(tiny, dense), expected)


def test_without_memory_the_recomputation_is_an_error_and_not_another_window(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = tiny_transformer(WAN)
    apply_attention_plan(tiny.model, PLAN)
    tiny.model.enable_gradient_checkpointing()
    monkeypatch.setattr(PlanHandle, "_remember_in_checkpoints", lambda self: None)
    outputs = two_grids(tiny)
    with pytest.raises(ConfigError, match=r"outside of its transformer's forward pass.*enable_gradient_checkpointing"):
        gradients(tiny, *outputs)


def test_layers_that_kept_the_last_grid_would_have_wrong_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = tiny_transformer(WAN)
    handle = apply_attention_plan(tiny.model, PLAN)
    expected = gradients(tiny, *two_grids(tiny))
    handle.restore()
    monkeypatch.setattr(PlanHandle, "_remember_in_checkpoints", lambda self: None)
    monkeypatch.setattr(PlanHandle, "_end", lambda self, *_: None)
    apply_attention_plan(tiny.model, PLAN)
    tiny.model.enable_gradient_checkpointing()
    wrong = gradients(tiny, *two_grids(tiny))  # no error: why the memory is there
    assert max((left - right).abs().max() for left, right in zip(wrong, expected, strict=True)) > 1e-2


def test_checkpointed_compiled_block_has_the_gradients_of_its_grids() -> None:
    tiny = tiny_transformer(WAN)
    apply_attention_plan(tiny.model, PLAN)
    expected = gradients(tiny, *two_grids(tiny))
    tiny.model.enable_gradient_checkpointing()
    tiny.model.blocks[1].compile(fullgraph=True, backend="eager")
    assert equal(gradients(tiny, *two_grids(tiny)), expected)
    torch._dynamo.reset()


def test_a_plan_taken_off_before_the_backward_pass_is_refused() -> None:
    tiny = tiny_transformer(WAN)
    handle = apply_attention_plan(tiny.model, PLAN)
    tiny.model.enable_gradient_checkpointing(functools.partial(checkpoint, use_reentrant=True))
    inputs = tiny.inputs(WIDE, batch=1)
    inputs["hidden_states"].requires_grad_()
    loss = tiny.run(inputs).square().sum()
    handle.restore()
    with pytest.raises(ConfigError, match="run the backward pass first"):
        loss.backward()
