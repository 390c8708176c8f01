"""The stepwise reverse pass is the gradient of the full graph, and every estimator picks the steps its paper says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rlhf_video.algorithms.gradient_estimators import (
    ActiveSteps,
    EstimatorConfig,
    Segment,
    backward_through,
    choose_steps,
    num_backwards,
    segments,
)
from rlhf_video.errors import ConfigError

SIGMAS = torch.tensor([1.0, 0.9, 0.7, 0.4, 0.2, 0.0])
NUM_STEPS = 5
SHAPE = (2, 3, 2, 2, 2)


class Field(nn.Module):
    """A small nonlinear velocity field with parameters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(25, 16)
        self.outer = nn.Linear(16, 24)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        flat = torch.cat([x.flatten(1), sigma.expand(len(x), 1)], dim=1)
        return self.outer(torch.tanh(self.inner(flat))).view(x.shape)


def score(latents: Tensor) -> Tensor:
    return (latents.sin() * torch.linspace(0.5, 1.5, latents.numel()).view(latents.shape)).sum()


def penalty(x: Tensor, sigma: Tensor, v: Tensor) -> Tensor:
    """Return the distance to a base that depends on the state, as a frozen model's velocity does."""
    base = (3 * x).sin().detach()
    return 0.1 * (v - base).square().sum() * (1 + sigma)


def noise() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))


def rollout(field: Field, num_steps: int = NUM_STEPS) -> list[Tensor]:
    states = [noise()]
    with torch.no_grad():
        for i in range(num_steps):
            states.append(states[-1] + (SIGMAS[i + 1] - SIGMAS[i]) * field(states[-1], SIGMAS[i]))
    return states


def plain_gradients(active: tuple[int, ...], *, detach_input: bool, with_penalty: bool) -> list[Tensor]:
    """Everything in one graph, inactive velocities detached: what public trainers do."""
    field = Field()
    x, loss = noise(), torch.zeros(())
    for i in range(NUM_STEPS):
        v = field(x.detach() if detach_input else x, SIGMAS[i])
        if i not in active:
            v = v.detach()
        elif with_penalty:
            given = x.detach()  # the penalty sees the sampled state: it has no gradient through it
            loss = loss + penalty(given, SIGMAS[i], field(given, SIGMAS[i]))
        x = x + (SIGMAS[i + 1] - SIGMAS[i]) * v
    (loss + score(x)).backward()
    return [parameter.grad for parameter in field.parameters()]


def stepwise_gradients(field: Field, segment: Segment, *, detach_input: bool, with_penalty: bool) -> list[Tensor]:
    leaf = segment.states[-1].clone().requires_grad_()
    score(leaf).backward()
    backward_through(
        segment,
        leaf.grad,
        velocity=field,
        backward=lambda loss: loss.backward(),
        detach_input=detach_input,
        penalty=penalty if with_penalty else None,
    )
    return [parameter.grad for parameter in field.parameters()]


@pytest.mark.parametrize("active", [(4,), (3, 4), (2, 3, 4), (0, 1, 2, 3, 4), (0, 3), (1,)])
@pytest.mark.parametrize("detach_input", [False, True])
@pytest.mark.parametrize("with_penalty", [False, True])
def test_stepwise_reverse_pass_equals_plain_autograd_through_the_whole_graph(
    active: tuple[int, ...], detach_input: bool, with_penalty: bool
) -> None:
    field = Field()
    segment = Segment(rollout(field), SIGMAS, active)
    found = stepwise_gradients(field, segment, detach_input=detach_input, with_penalty=with_penalty)
    expected = plain_gradients(active, detach_input=detach_input, with_penalty=with_penalty)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_input_gradient_matters_for_more_than_one_active_step() -> None:
    chained = plain_gradients((2, 3, 4), detach_input=False, with_penalty=False)
    cut = plain_gradients((2, 3, 4), detach_input=True, with_penalty=False)
    assert not torch.allclose(chained[0], cut[0], rtol=1e-3)


def test_penalty_alone_is_its_gradient_at_the_sampled_states() -> None:
    """A penalty that leaks into the state would move the parameters through earlier steps as well."""
    field, reference = Field(), Field()
    states = rollout(field)
    segment = Segment(states, SIGMAS, (1, 2, 3, 4))
    calls: list[int] = []

    def backward(loss: Tensor) -> None:
        calls.append(1)
        loss.backward()

    zero = torch.zeros(SHAPE)
    total = backward_through(segment, zero, velocity=field, backward=backward, penalty=penalty)
    expected = sum(penalty(states[i], SIGMAS[i], reference(states[i], SIGMAS[i])) for i in segment.active)
    expected.backward()
    torch.testing.assert_close(total, expected.detach())
    torch.testing.assert_close([p.grad for p in field.parameters()], [p.grad for p in reference.parameters()])
    assert len(calls) == num_backwards(ActiveSteps((1, 2, 3, 4), False, "endpoint"), has_penalty=True) == 7


@pytest.mark.parametrize("detach_input", [False, True])
@pytest.mark.parametrize("with_penalty", [False, True])
def test_backward_passes_are_as_many_as_foretold(detach_input: bool, with_penalty: bool) -> None:
    """DeepSpeed reduces gradients at the last one."""
    calls, field = [], Field()

    def backward(loss: Tensor) -> None:
        calls.append(1)
        loss.backward()

    for steps in (ActiveSteps((2, 4), detach_input, "endpoint"), ActiveSteps((4,), True, "endpoint", 3)):
        calls.clear()
        for segment in segments(steps, rollout(field), SIGMAS, velocity=field, renoise=lambda copy: noise()):
            backward_through(
                segment,
                torch.ones(SHAPE),
                velocity=field,
                backward=backward,
                detach_input=steps.detach_input,
                penalty=penalty if with_penalty else None,
            )
        assert len(calls) == num_backwards(steps, has_penalty=with_penalty)


def test_only_one_step_graph_is_alive_at_a_time() -> None:
    alive: list[int] = []
    field = Field()

    def backward(loss: Tensor) -> None:
        alive.append(1)
        loss.backward()
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()

    backward_through(Segment(rollout(field), SIGMAS, (2, 3, 4)), torch.ones(SHAPE), velocity=field, backward=backward)
    assert len(alive) == 3


def test_refl_scores_the_one_step_prediction_and_its_gradient_is_autograds() -> None:
    field = Field()
    steps = ActiveSteps((3,), True, "prediction")
    assert steps.num_rollout_steps == 4
    (segment,) = segments(steps, rollout(field, 4), SIGMAS, velocity=field, renoise=lambda copy: noise())
    found = stepwise_gradients(field, segment, detach_input=True, with_penalty=False)
    reference = Field()
    x = rollout(reference, 3)[-1]
    prediction = x - SIGMAS[3] * reference(x, SIGMAS[3])
    torch.testing.assert_close(segment.states[-1], prediction.detach(), rtol=1e-5, atol=1e-5)
    score(prediction).backward()
    torch.testing.assert_close(found, [p.grad for p in reference.parameters()], rtol=1e-4, atol=1e-5)


def test_draft_lv_averages_last_steps_from_renoised_clips() -> None:
    field = Field()
    steps = ActiveSteps((4,), True, "endpoint", 3)
    states = rollout(field)
    found = segments(steps, states, SIGMAS, velocity=field, renoise=lambda copy: noise() * copy)
    assert len(found) == 3
    assert found[0].states[-1] is states[-1]
    for copy in (1, 2):
        torch.testing.assert_close(found[copy].states[0], 0.8 * states[-1] + 0.2 * noise() * copy)
        expected = found[copy].states[0] - 0.2 * field(found[copy].states[0], SIGMAS[4])
        torch.testing.assert_close(found[copy].states[1], expected.detach())


def draw(num_steps: int = 10, seed: int = 0, **config: object) -> ActiveSteps:
    return choose_steps(EstimatorConfig(**config), num_steps, torch.Generator().manual_seed(seed))  # type: ignore[arg-type]


def test_each_estimator_has_its_papers_default_steps() -> None:
    assert draw(name="draft_k", num_grad_steps=3) == ActiveSteps((7, 8, 9), False, "endpoint")
    assert draw(name="draft_k", steps="last") == ActiveSteps((9,), False, "endpoint")
    assert draw(name="draft_lv") == ActiveSteps((9,), True, "endpoint", 2)
    assert draw(name="draft_k", steps="list", step_list=(1, 4)).indices == (1, 4)
    drtune = draw(name="drtune", num_grad_steps=3)
    assert drtune.detach_input
    assert len(drtune.indices) == 3
    for seed in range(20):
        refl = draw(name="refl", num_steps=40, seed=seed)
        assert refl.terminal == "prediction"
        assert 30 <= refl.indices[0] < 40
        align = draw(name="align_prop", seed=seed)
        assert align.indices == tuple(range(align.indices[0], 10))
        assert not align.detach_input


def test_align_prop_reaches_every_cut_off() -> None:
    assert {draw(name="align_prop", seed=seed, num_steps=4).indices[0] for seed in range(60)} == {0, 1, 2, 3}


@settings(deadline=None)
@given(
    num_steps=st.integers(1, 50),
    count=st.integers(1, 50),
    strategy=st.sampled_from(["tail", "uniform", "random"]),
    seed=st.integers(0, 2**31),
)
def test_chosen_steps_exist_and_are_as_many_as_asked(num_steps: int, count: int, strategy: str, seed: int) -> None:
    if count > num_steps:
        with pytest.raises(ConfigError, match="num_grad_steps"):
            draw(num_steps, seed, steps=strategy, num_grad_steps=count)
        return
    indices = draw(num_steps, seed, steps=strategy, num_grad_steps=count).indices
    assert len(indices) == count
    assert list(indices) == sorted(set(indices))
    assert indices[0] >= 0
    assert indices[-1] < num_steps


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"num_grad_steps": 0}, "num_grad_steps"),
        ({"name": "refl", "steps": "tail"}, "estimator.steps"),
        ({"steps": "list"}, "step_list"),
        ({"steps": "list", "step_list": (3, 1)}, "step_list"),
        ({"steps": "list", "step_list": (10,)}, "step_list"),
        ({"name": "align_prop", "first_step": 10}, "first_step"),
        ({"steps": "random", "first_step": 8, "num_grad_steps": 3}, "first_step"),
        ({"name": "draft_lv", "num_copies": 0}, "num_copies"),
    ],
)
def test_a_choice_that_does_not_fit_names_its_field(config: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        draw(**config)
