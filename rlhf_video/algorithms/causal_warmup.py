"""Causal warm-up: teach the student's adapter block-causal attention before distillation.

A base that never saw a mask makes noise under one, and distribution matching cannot start from noise. Two ways, both on
clips of the teacher and with the mask of teacher forcing, where every noised chunk sees the clean chunks before it
(CausVid, arXiv:2412.07772; Self-Forcing, arXiv:2506.08009):

    let the teacher generate clips for the training prompts, with all states z_s of its sampler
    repeat
        trajectory        a level s for each chunk; target (z_s - z_0) / s: from any state to the path's end
        teacher_forcing   noise e, a level s for each chunk; z_s <- (1 - s) z_0 + s e; target e - z_0
        loss <- |velocity([z_0 | z_s], [0 | s], c) - target|^2 on the noised half
        step AdamW, update the average

"trajectory" is the ODE initialisation with velocities in place of clean latents: it makes few-step students at once.
Left out: consistency distillation, which needs no stored paths.
"""

import logging
import time

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from rlhf_video.algorithms.asd_config import AsdConfig
from rlhf_video.algorithms.asd_setup import (
    files_of,
    generated_clips,
    load_suites,
    open_continuation,
    open_student,
    open_world,
)
from rlhf_video.algorithms.asd_student import Student
from rlhf_video.algorithms.asd_watch import StepsMeasure, story
from rlhf_video.algorithms.clip_maker import clip_shape
from rlhf_video.algorithms.config_sections import may_change
from rlhf_video.algorithms.continuation import Continuation
from rlhf_video.algorithms.generated_clips import GeneratedClips
from rlhf_video.algorithms.learner import Learner, StepMetrics
from rlhf_video.algorithms.outcome import Outcome
from rlhf_video.algorithms.story import finished_outcome, measure_end, save, tell
from rlhf_video.algorithms.watch import Watch
from rlhf_video.algorithms.world import World
from rlhf_video.diffusion.flow import expand_sigma, interpolate, velocity_error, velocity_target
from rlhf_video.diffusion.sigmas import shift_sigma
from rlhf_video.lora.roles import role
from rlhf_video.runtime import Distribution, Run, deck_batch, generator_for, peak_memory
from rlhf_video.runtime.run import MAY_CHANGE as RUN_MAY_CHANGE

logger = logging.getLogger(__name__)

MAY_CHANGE = (*RUN_MAY_CHANGE, "test", "prompts.test", "rewards", "judge", "licence")
"""Config fields that a resumed run may change: what only reports."""


def train(config: AsdConfig, *, accelerator: Accelerator, resume: bool = False) -> Outcome:
    """Warm up, validate, and publish a causal adapter; call it on every process.

    Args:
        config: The run, with a section `warmup`.
        accelerator: From `create_accelerator`.
        resume: Go on from the last checkpoint in `config.output_dir`.

    Returns:
        What came out, with the paths of the adapter and the report.

    Raises:
        RlhfVideoError, RewardError: The user's input does not fit; nothing was trained.
    """
    assert config.warmup is not None
    if resume and (finished := finished_outcome(config, lambda: load_suites(config))) is not None:
        return finished  # the test prompts are measured once
    distribution = Distribution(accelerator)
    config.batch.micro_batches(distribution.shard_indices(config.batch.global_clips))
    set_seed(config.seed)  # libraries draw from the global generators while they build layers
    world = open_world(config, distribution)
    run = Run.start(
        config.output_dir,
        config,
        accelerator=accelerator,
        resume=resume,
        may_change=may_change(MAY_CHANGE, config.optim),
    )
    student, learner = open_student(config, world)
    # raises before the teacher makes its clips
    student.backbone.teacher_forcing(student.backbone.token_grid(clip_shape(config.sampling, 1)))
    files = files_of(config, world)
    continuation = open_continuation(config, world, student, files)
    prompts = [prompt for prompt in world.suites.train.prompts for _ in range(config.warmup.clips_per_prompt)]
    clips = generated_clips(config, world, prompts, keeps_states=config.warmup.kind == "trajectory")
    measure = StepsMeasure(config, world, student)
    watch = Watch(world, learner, run, measure, files=files)
    for step in range(watch.restore_or_start(), config.num_steps):
        started = time.perf_counter()
        metrics = train_step(config, world, student, learner, clips, continuation, step=step)
        metrics |= {"time/step_s": time.perf_counter() - started, "memory/peak_gib": peak_memory(run.device) / 2**30}
        run.log(metrics, step=step)
        logger.info("Step %d/%d: velocity error %.4f", step + 1, config.num_steps, metrics["loss/warmup"])
        is_last = step + 1 == config.num_steps
        if is_last or (step + 1) % config.validation.every == 0:
            watch.validate(step)
        if is_last or (step + 1) % config.checkpoint.every == 0:
            run.save_checkpoint(step + 1, {**learner.state(), **watch.state()})
    save(config, world, learner.published(), run, metadata=student.recipe())
    final, prompts_name = measure_end(world, learner, run, measure, latest=watch.latest)
    outcome = tell(config, world, watch, run, final, prompts_name, story(config, world, measure))
    run.close()
    return outcome


def train_step(
    config: AsdConfig,
    world: World,
    student: Student,
    learner: Learner,
    clips: GeneratedClips,
    continuation: Continuation | None = None,
    *,
    step: int,
) -> dict[str, float]:
    """Take one optimiser step on the global batch; return its metrics, means over all processes."""
    distribution, metrics, count = learner.distribution, StepMetrics(), config.batch.global_clips
    order = deck_batch(len(clips), count, step=step, seed=config.seed, name="clip order")
    share = list(distribution.shard_indices(count))
    if continuation is not None:
        continuation.backward(distribution, metrics, step=step)
    micro_batches = config.batch.micro_batches(share)
    for number, places in enumerate(micro_batches):
        indices = [order[place] for place in places]
        clean = clips.latents(indices)
        noised, sigma, target = _noised(config, world, clips, clean, indices, places, step)
        context, context_sigma = _context(config, world, clean, places, step)
        cond = student.backbone.encode_prompts([clips.prompts[index] for index in indices])
        mask = student.backbone.teacher_forcing(student.backbone.latent_grid(clean))
        with role(student.backbone, "student"):
            both = student.backbone.velocity(
                torch.cat([context, noised], dim=2), torch.cat([context_sigma, sigma], dim=1), cond, context=mask
            )
        errors = velocity_error(both[:, :, clean.shape[2] :], target)
        metrics.add("loss/warmup", errors)
        distribution.backward(errors.sum() / len(share), last=number + 1 == len(micro_batches))
    numbers = metrics.means(distribution)
    numbers["grad/norm"] = float(learner.step(step))
    return numbers | {"optim/learning_rate": config.optim.rate_at(step, config.num_steps)}


def _noised(
    config: AsdConfig,
    world: World,
    clips: GeneratedClips,
    clean: Tensor,
    indices: list[int],
    places: list[int],
    step: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return noised latents, their levels (batch, Fl), and the velocity to learn; a level for each chunk."""
    assert config.warmup is not None
    chunks = config.causal.chunks(clean.shape[2])
    generators = [generator_for(config.seed, "warm-up", step, place) for place in places]
    is_first = torch.stack([torch.rand(len(chunks), generator=g) for g in generators]) < config.warmup.first_state_share
    free = torch.stack([torch.rand(len(chunks), generator=g) for g in generators])
    lengths = torch.tensor([chunk.stop - chunk.start for chunk in chunks])
    if config.warmup.kind == "teacher_forcing":
        levels = torch.where(is_first, torch.ones_like(free), shift_sigma(free, world.shift))
        sigma = levels.repeat_interleave(lengths, dim=1).to(clean.device)
        noise = world.maker.noise(places, "warm-up", step)
        return interpolate(clean, noise, sigma), sigma, velocity_target(clean, noise)
    num_states = len(world.maker.sigmas) - 1  # without the clean one
    rows = torch.where(is_first, 0, (free * num_states).long())
    noised = torch.cat(
        [clips.states(indices, rows[:, number].tolist())[:, :, chunk] for number, chunk in enumerate(chunks)], dim=2
    )
    sigma = world.maker.sigmas[rows.to(clean.device)].repeat_interleave(lengths.to(clean.device), dim=1)
    return noised, sigma, (noised - clean) / expand_sigma(sigma, clean)


def _context(config: AsdConfig, world: World, clean: Tensor, places: list[int], step: int) -> tuple[Tensor, Tensor]:
    """Return the clean half, a little noised where the config says so, and its levels (batch, Fl)."""
    assert config.warmup is not None
    highest = config.warmup.context_noise
    levels = torch.stack(
        [highest * torch.rand((), generator=generator_for(config.seed, "past", step, p)) for p in places]
    )
    sigma = levels.to(clean.device)[:, None].expand(-1, clean.shape[2])
    if highest == 0:
        return clean, sigma
    return interpolate(clean, world.maker.noise(places, "past", step), sigma), sigma
