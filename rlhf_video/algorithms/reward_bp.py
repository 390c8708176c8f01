"""Reward backpropagation: train a LoRA by the gradient of rewards through the last sampling steps.

DRaFT (arXiv:2309.17400) and its relatives (`gradient_estimators`), as EasyAnimate v3 applies it to video models
(arXiv:2405.18991 section 4.3). Kept: truncated gradient, frozen base, LoRA policy. Different: the roll-out keeps no
graph and only active steps run again, one at a time; the whole clip can be scored; validation compares with the base.

    repeat
        draw prompts c and noise x_0
        x_0, ..., x_N  <- sample the clip, no graph
        g              <- -dR(decode(x_N), c) / dx_N
        for i in active steps, last first
            v          <- velocity(x_i) with graph
            accumulate   (s_{i+1} - s_i) g . dv/dtheta  and the pull to the base
            g          <- g + (s_{i+1} - s_i) g . dv/dx_i
        step AdamW, update the average
"""

import logging
import time
from collections.abc import Callable
from functools import partial

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from rlhf_video.algorithms.config_sections import may_change
from rlhf_video.algorithms.data_anchor import DataAnchor
from rlhf_video.algorithms.gradient_estimators import (
    Penalty,
    Velocity,
    backward_through,
    choose_steps,
    num_backwards,
    segments,
)
from rlhf_video.algorithms.learner import Learner, StepMetrics
from rlhf_video.algorithms.reward_bp_config import RewardBpConfig
from rlhf_video.algorithms.reward_bp_outcome import Outcome, finish, finished_outcome
from rlhf_video.algorithms.reward_bp_setup import World, open_world
from rlhf_video.algorithms.reward_bp_watch import Watch
from rlhf_video.diffusion.samplers import rollout
from rlhf_video.lora import adapter_off
from rlhf_video.runtime import Distribution, Run, deck_batch, generator_for, peak_memory
from rlhf_video.runtime.run import MAY_CHANGE as RUN_MAY_CHANGE

logger = logging.getLogger(__name__)

MAY_CHANGE = (*RUN_MAY_CHANGE, "sweep", "test", "prompts.test", "judge", "licence")
"""Config fields that a resumed run may change: what only happens after training, or only reports."""

ADVICE = "Lower optim.learning_rate or estimator.num_grad_steps, or set estimator.detach_input=true"
"""What to do when a gradient is not finite."""


def train(config: RewardBpConfig, *, accelerator: Accelerator, resume: bool = False) -> Outcome:
    """Train, validate, and publish an adapter; call it on every process.

    Args:
        config: The run.
        accelerator: From `create_accelerator`.
        resume: Go on from the last checkpoint in `config.output_dir`.

    Returns:
        What came out, with the paths of the adapter and the report.

    Raises:
        RlhfVideoError, RewardError: The user's input does not fit; nothing was trained.
    """
    if resume and (finished := finished_outcome(config)) is not None:
        return finished  # the test prompts are measured once
    distribution = Distribution(accelerator)
    config.batch.micro_batches(distribution.shard_indices(config.batch.global_prompts))
    config.data_anchor.check_share(distribution.num_processes)
    set_seed(config.seed)  # libraries draw from the global generators while they build layers
    world = open_world(config, distribution)
    anchor = DataAnchor.open(config, world)
    run = Run.start(
        config.output_dir,
        config,
        accelerator=accelerator,
        resume=resume,
        may_change=may_change(MAY_CHANGE, config.optim),
    )
    learner = Learner(config, world.backbone, distribution, advice=ADVICE)
    watch = Watch(config, world, learner, run)
    first_step = watch.restore_or_start()
    for step in range(first_step, config.num_steps):
        if watch.has_stopped:
            break
        started = time.perf_counter()
        metrics = train_step(config, world, learner, anchor, step=step)
        metrics |= {"time/step_s": time.perf_counter() - started, "memory/peak_gib": peak_memory(run.device) / 2**30}
        run.log(metrics, step=step)
        logger.info("Step %d/%d: reward %+.3f", step + 1, config.num_steps, metrics["reward/total"])
        is_last = step + 1 == config.num_steps
        if (step + 1) % config.validation.every == 0:
            watch.validate(step)
        if is_last or watch.has_stopped or (step + 1) % config.checkpoint.every == 0:
            run.save_checkpoint(step + 1, {**learner.state(), **watch.state()})
    if not watch.has_stopped and config.num_steps % config.validation.every:
        watch.validate(config.num_steps, decides=False)
    outcome = finish(config, world, learner, watch, run)
    run.close()
    return outcome


def train_step(
    config: RewardBpConfig, world: World, learner: Learner, anchor: DataAnchor | None, *, step: int
) -> dict[str, float]:
    """Take one optimiser step on the global batch; return its metrics, means over all processes."""
    distribution, metrics = learner.distribution, StepMetrics()
    steps = choose_steps(config.estimator, config.sampling.num_steps, generator_for(config.seed, "active steps", step))
    order = deck_batch(len(world.suites.train), config.batch.global_prompts, step=step, seed=config.seed)
    share = list(distribution.shard_indices(len(order)))
    micro_batches = config.batch.micro_batches(share)
    per_micro_batch = num_backwards(steps, has_penalty=config.pull.weight > 0)
    backward = _counted_backward(distribution, len(micro_batches) * per_micro_batch + (anchor is not None))
    for indices in micro_batches:
        prompts = [world.suites.train.prompts[order[index]] for index in indices]
        velocity = world.velocity(prompts)
        states = rollout(velocity, world.noise(indices, "train", step), _sigmas(world, steps.num_rollout_steps))
        renoise = partial(world.noise, indices, "copy", step)
        pieces = segments(steps, states, world.sigmas, velocity=velocity, renoise=renoise)
        for piece in pieces:
            scored = world.objective.gradient(piece.states[-1], prompts)
            share_of_loss = 1.0 / (len(share) * len(pieces))
            pull = backward_through(
                piece,
                -scored.gradient * share_of_loss,
                velocity=velocity,
                backward=backward,
                detach_input=steps.detach_input,
                penalty=_pull(world, velocity, config.pull.weight * len(indices) * share_of_loss),
            )
            _record(metrics, scored.output.values, scored.shares, scored.gradient)
            metrics.add("reward/masked_share", (~scored.output.valid).double())
            metrics.add("loss/pull", pull / (len(indices) * share_of_loss))
    if anchor is not None:
        metrics.add("loss/anchor", anchor.backward(step, backward))
    numbers = metrics.means(distribution)
    numbers["grad/norm"] = float(learner.step(step))
    return numbers | {
        "optim/learning_rate": config.optim.rate_at(step, config.num_steps),
        "estimator/num_active_steps": float(len(steps.indices)),
        "estimator/first_active_step": float(steps.indices[0]),
    }


def _sigmas(world: World, num_rollout_steps: int | None) -> Tensor:
    return world.sigmas if num_rollout_steps is None else world.sigmas[: num_rollout_steps + 1]


def _pull(world: World, velocity: Velocity, weight: float) -> Penalty | None:
    """Return the squared distance to the base's velocity, mean over elements, times weight; None where it is off."""
    if weight == 0:
        return None

    def penalty(latents: Tensor, sigma: Tensor, policy: Tensor) -> Tensor:
        with torch.no_grad(), adapter_off(world.backbone):
            base = velocity(latents, sigma)
        return weight * (policy.float() - base.float()).square().mean()

    return penalty


def _counted_backward(distribution: Distribution, count: int) -> Callable[[Tensor], None]:
    """Return a backward that knows its last call: DeepSpeed reduces gradients there."""
    left = [count]

    def backward(loss: Tensor) -> None:
        left[0] -= 1
        distribution.backward(loss, last=left[0] == 0)

    return backward


def _record(metrics: StepMetrics, values: dict[str, Tensor], shares: dict[str, float], gradient: Tensor) -> None:
    for name, scores in values.items():
        metrics.add(f"reward/{name}", scores)
    for name, share in shares.items():
        metrics.add(f"gradient_share/{name}", share)
    metrics.add("grad/latent_norm", gradient.flatten(1).norm(dim=1))
