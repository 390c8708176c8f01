"""The discriminator's heads: one logit for each number of steps, on features that it never trains."""

import pytest
import torch

from rlhf_video.algorithms.discriminator import Discriminator, DiscriminatorConfig, block_outputs
from rlhf_video.attention import Grid
from rlhf_video.errors import ConfigError
from rlhf_video.testing.tiny_transformers import tiny_transformer

GRID = Grid(2, 2, 2)
CONFIG = DiscriminatorConfig(blocks=(0, 1), num_registers=2, width=8, num_heads=2)


def heads(seed: int = 0) -> Discriminator:
    return Discriminator(CONFIG, num_blocks=2, width=12, num_logits=4, seed=seed)


def features() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 7, 12, generator=generator) for _ in range(2)]


def test_there_is_one_logit_for_each_number_of_steps() -> None:
    assert heads()(features()).shape == (3, 4)


def test_weights_depend_on_the_seed_alone_and_leave_the_global_generator() -> None:
    before = torch.random.get_rng_state()
    first, second = heads(), heads()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first(features()), heads(1)(features()))


def test_only_the_chosen_logits_column_is_trained() -> None:
    model = heads()
    model(features())[:, 2].sum().backward()
    last = model.head[-1]
    assert isinstance(last, torch.nn.Linear)
    assert last.weight.grad is not None
    trained = last.weight.grad.abs().sum(1) > 0
    assert trained.tolist() == [False, False, True, False]


def test_the_order_of_tokens_does_not_matter_and_other_clips_neither() -> None:
    model, states = heads(), features()
    mixed = [state[:, torch.randperm(7, generator=torch.Generator().manual_seed(1))] for state in states]
    torch.testing.assert_close(model(states), model(mixed))
    torch.testing.assert_close(model(states)[:1], model([state[:1] for state in states]))


def test_outputs_are_those_of_the_named_blocks() -> None:
    tiny = tiny_transformer("WanTransformer3DModel")
    with torch.no_grad(), block_outputs(tiny.model, (0, 1)) as outputs:
        tiny.run(tiny.inputs(GRID, batch=2))
    assert len(outputs) == 2
    assert not torch.equal(*outputs)
    with torch.no_grad():
        tiny.run(tiny.inputs(GRID, batch=2))
    assert len(outputs) == 2, "the hooks are gone"


def test_recomputed_blocks_add_nothing_and_the_inputs_gradient_stays_right() -> None:
    tiny = tiny_transformer("WanTransformer3DModel")
    found = []
    for checkpointing in (False, True):
        inputs = tiny.inputs(GRID, batch=1)
        latents = inputs["hidden_states"] = inputs["hidden_states"].clone().requires_grad_()
        if checkpointing:
            tiny.model.enable_gradient_checkpointing()
        with block_outputs(tiny.model, (0, 1)) as outputs:
            tiny.run(inputs)
            (gradient,) = torch.autograd.grad(sum(state.square().sum() for state in outputs), latents)
        assert len(outputs) == 2
        found.append(gradient)
    torch.testing.assert_close(*found)


def test_a_block_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"\[5\]: this model has blocks 0 to 3"):
        DiscriminatorConfig(blocks=(1, 5)).chosen_blocks(4)
    assert DiscriminatorConfig().chosen_blocks(30) == (12, 21, 29)


def test_width_must_be_cut_into_heads() -> None:
    with pytest.raises(ConfigError, match="multiple"):
        DiscriminatorConfig(width=10, num_heads=4)
