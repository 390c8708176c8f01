"""Which denoising steps carry the reward's gradient, and the reverse pass through just those steps.

A clip is sampled without a graph and its states are kept: x_0 (noise), x_1, ..., x_N (clip). Euler makes each step
x_{i+1} = x_i + (s_{i+1} - s_i) v(x_i, s_i). From g_N = dR/dx_N on, active steps are re-run one at a time, last first:

    g_i = g_{i+1} + (s_{i+1} - s_i) J_i^T g_{i+1},      J_i = dv(x_i)/dx_i

and the same backward call gives the parameters (s_{i+1} - s_i) g_{i+1}^T dv/dtheta. An inactive step, whose velocity is
detached, hands g on unchanged. That is the exact gradient of the graph with detached inactive velocities
(tests/unit/algorithms/test_gradient_estimators.py) at the memory of one step. The price is one more forward pass per
active step than keeping all graphs, the same as checkpointing whole steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rlhf_video.errors import ConfigError

Velocity = Callable[[Tensor, Tensor], Tensor]
"""Maps latents (batch, channels, Fl, Hl, Wl) and a scalar sigma to the velocity of the same shape."""
Penalty = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Maps latents, sigma and the policy's velocity to a scalar loss that is added at an active step."""


@dataclass(frozen=True, kw_only=True)
class EstimatorConfig:
    """How the gradient of the reward with respect to the adapter is estimated."""

    name: Literal["draft_k", "draft_lv", "align_prop", "refl", "drtune"] = "draft_k"
    """draft_k: last K steps, full chain (DRaFT-K, arXiv:2309.17400). draft_lv: last step, averaged over re-noised
    copies (DRaFT-LV, same paper, algorithm 1). align_prop: everything after a random cut-off (arXiv:2310.03739). refl:
    reward of the one-step prediction at one random late step (ImageReward, arXiv:2304.05977). drtune: evenly spread
    steps whose network input is detached (arXiv:2405.00760)."""
    steps: Literal["last", "tail", "uniform", "random", "list"] | None = None
    """Which steps are active, instead of the estimator's own choice (draft_k: tail, drtune: uniform; the others fix
    it). Names as in EasyAnimate's backprop_strategy."""
    num_grad_steps: int = 5
    """Active steps K. 5-10 for flow models: gradients vanish at K=1 (EasyAnimate v3, arXiv:2405.18991 section 4.3)."""
    step_list: tuple[int, ...] = ()
    """The active steps for steps=list, numbered from 0 (pure noise) to num_steps - 1."""
    first_step: int | None = None
    """Earliest step that steps=random, align_prop's cut-off and refl may draw. None: 0; refl: three quarters of the way
    (30 of 40, as the ImageReward code does)."""
    detach_input: bool | None = None
    """Cut the gradient at the network input of every active step (DRTune's stabiliser). None: only for drtune."""
    num_copies: int = 2
    """draft_lv: last steps averaged, the sampled one included (DRaFT uses n=2)."""

    def __post_init__(self) -> None:
        """Refuse combinations that would silently mean something else."""
        if self.num_grad_steps < 1:
            raise ConfigError(f"estimator.num_grad_steps={self.num_grad_steps} must be at least 1.")
        if self.steps is not None and self.name not in ("draft_k", "drtune"):
            raise ConfigError(
                f"estimator.steps={self.steps} does not fit estimator.name={self.name}, which fixes its own steps: "
                "remove estimator.steps, or use draft_k or drtune."
            )
        if (self.steps == "list") != bool(self.step_list):
            raise ConfigError("estimator.step_list and estimator.steps=list belong together: give both or neither.")
        if self.name == "draft_lv" and self.num_copies < 1:
            raise ConfigError(f"estimator.num_copies={self.num_copies} must be at least 1.")
        if self.name == "refl" and self.detach_input is False:
            raise ConfigError("estimator.detach_input=false has no meaning for refl, which has one active step.")


@dataclass(frozen=True)
class ActiveSteps:
    """The estimator's draw for one optimiser step; the same on every process, or collectives would wait for ever.

    Attributes:
        indices: Active steps, ascending.
        detach_input: Whether the chain is cut at each active step's network input.
        terminal: What the reward sees: the sampled clip, or the clip predicted from the (one) active step.
        num_copies: How many last steps are averaged; all but the first start from the re-noised clip.
    """

    indices: tuple[int, ...]
    detach_input: bool
    terminal: Literal["endpoint", "prediction"]
    num_copies: int = 1

    @property
    def num_rollout_steps(self) -> int | None:
        """Steps the roll-out must take; None means all."""
        return self.indices[0] + 1 if self.terminal == "prediction" else None


def choose_steps(config: EstimatorConfig, num_steps: int, generator: torch.Generator) -> ActiveSteps:
    """Draw the active steps of one optimiser step.

    Args:
        config: The estimator.
        num_steps: Sampling steps N.
        generator: CPU generator, seeded by run seed and optimiser step only.

    Raises:
        ConfigError: The choice does not fit `num_steps`.
    """

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    first = config.first_step
    if first is None:
        first = (3 * num_steps) // 4 if config.name == "refl" else 0
    if not 0 <= first < num_steps:
        raise ConfigError(f"estimator.first_step={first} must lie between 0 and {num_steps - 1}.")
    if config.name == "refl":
        return ActiveSteps((draw(first, num_steps),), True, "prediction")
    if config.name == "draft_lv":
        return ActiveSteps((num_steps - 1,), True, "endpoint", config.num_copies)
    if config.name == "align_prop":
        return ActiveSteps(tuple(range(draw(first, num_steps), num_steps)), config.detach_input is True, "endpoint")
    strategy = config.steps or ("uniform" if config.name == "drtune" else "tail")
    detach = config.name == "drtune" if config.detach_input is None else config.detach_input
    return ActiveSteps(_strategy_steps(config, strategy, num_steps, first, draw, generator), detach, "endpoint")


def _strategy_steps(
    config: EstimatorConfig,
    strategy: str,
    num_steps: int,
    first: int,
    draw: Callable[[int, int], int],
    generator: torch.Generator,
) -> tuple[int, ...]:
    """Return the ascending active steps of EasyAnimate's strategies; every index is below `num_steps`."""
    count = config.num_grad_steps
    if strategy == "last":
        return (num_steps - 1,)
    if strategy != "list" and count > num_steps:
        raise ConfigError(
            f"estimator.num_grad_steps={config.num_grad_steps} is more than sampling.num_steps={num_steps}: "
            f"use at most {num_steps}."
        )
    if strategy == "tail":
        return tuple(range(num_steps - count, num_steps))
    if strategy == "uniform":
        stride = num_steps // count
        offset = draw(0, num_steps - stride * (count - 1))
        return tuple(offset + stride * k for k in range(count))
    if strategy == "random":
        if count > num_steps - first:
            raise ConfigError(
                f"estimator.num_grad_steps={count} is more than the {num_steps - first} steps from "
                f"estimator.first_step={first} on: lower one of them."
            )
        chosen = torch.randperm(num_steps - first, generator=generator)[:count] + first
        return tuple(sorted(int(index) for index in chosen))
    steps = config.step_list
    if list(steps) != sorted(set(steps)) or not 0 <= steps[0] <= steps[-1] < num_steps:
        raise ConfigError(
            f"estimator.step_list={list(steps)} does not fit sampling.num_steps={num_steps}: give ascending numbers "
            f"from 0 to {num_steps - 1}."
        )
    return steps


@dataclass(frozen=True)
class Segment:
    """A stretch of the sampled chain whose last state is scored.

    Attributes:
        states: x_0 ... x_n, each (batch, channels, Fl, Hl, Wl), without graph.
        sigmas: (n + 1,), the noise level of each state.
        active: Ascending positions in 0 ... n - 1 that are re-run with a graph.
    """

    states: Sequence[Tensor]
    sigmas: Tensor
    active: tuple[int, ...]


def segments(
    steps: ActiveSteps,
    states: Sequence[Tensor],
    sigmas: Tensor,
    *,
    velocity: Velocity,
    renoise: Callable[[int], Tensor],
) -> list[Segment]:
    """Cut the sampled chain into the stretches whose gradients the estimator averages.

    Args:
        steps: The draw of `choose_steps`.
        states: The roll-out's states, (num_rollout_steps or N) + 1 of them.
        sigmas: The sampler's noise levels (N + 1,).
        velocity: The policy, called without graph for DRaFT-LV's extra last steps.
        renoise: Noise (batch, channels, Fl, Hl, Wl) of copy number 1, 2, ...
    """
    if steps.terminal == "prediction":
        (index,) = steps.indices
        x, delta = states[index], sigmas[index + 1] - sigmas[index]
        v = (states[index + 1] - x) / delta
        return [Segment([x, x - sigmas[index] * v], torch.stack([sigmas[index], torch.zeros_like(delta)]), (0,))]
    found = [Segment(states, sigmas, steps.indices)]
    for copy in range(1, steps.num_copies):
        last = sigmas[-2]
        x = (1 - last) * states[-1] + last * renoise(copy)
        with torch.no_grad():
            clip = x + (sigmas[-1] - last) * velocity(x, last)
        found.append(Segment([x, clip], sigmas[-2:], (0,)))
    return found


def backward_through(
    segment: Segment,
    gradient: Tensor,
    *,
    velocity: Velocity,
    backward: Callable[[Tensor], None],
    detach_input: bool = False,
    penalty: Penalty | None = None,
) -> Tensor:
    """Carry the gradient of the last state back through the active steps, accumulating parameter gradients.

    Args:
        segment: What was sampled.
        gradient: d loss / d last state, (batch, channels, Fl, Hl, Wl), without graph.
        velocity: The policy, called with a graph, one active step at a time.
        backward: Called with one scalar per pass; must run `backward` on it before it returns.
        detach_input: Cut the chain at every active step's network input (DRTune).
        penalty: A further loss at each active step, given the sampled state. Its gradient goes to the parameters only,
            never on to earlier steps: through the state it would need the Jacobian of the base, which runs without a
            graph, and half of it (the policy's Jacobian alone) points elsewhere. So a step that hands a gradient on
            runs once more, on the detached state, for the penalty; `num_backwards` counts these.

    Returns:
        Sum over active steps of the penalty, a detached scalar (zero without one).
    """
    total = torch.zeros((), device=gradient.device)
    for index in reversed(segment.active):
        wants_input = not detach_input and index != segment.active[0]
        x = segment.states[index].detach().requires_grad_(wants_input)
        sigma, delta = segment.sigmas[index], segment.sigmas[index + 1] - segment.sigmas[index]
        v = velocity(x, sigma)
        surrogate = (delta * gradient * v.float()).sum()
        if wants_input:
            backward(surrogate)
            assert x.grad is not None
            gradient = gradient + x.grad
            if penalty is None:
                continue
            x, surrogate = x.detach(), torch.zeros_like(surrogate)
            v = velocity(x, sigma)
        if penalty is not None:
            cost = penalty(x, sigma, v)
            total += cost.detach()
            surrogate = surrogate + cost
        backward(surrogate)
    return total


def num_backwards(steps: ActiveSteps, *, has_penalty: bool) -> int:
    """Return how often `backward_through` calls `backward` over all segments of a draw."""
    handing_on = 0 if steps.detach_input else len(steps.indices) - 1
    return len(steps.indices) + steps.num_copies - 1 + has_penalty * handing_on
