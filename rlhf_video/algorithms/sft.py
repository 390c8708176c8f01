"""Supervised fine-tuning: train a LoRA by the flow-matching loss on given clips.

Flow matching (Lipman et al. 2022, arXiv:2210.02747) with the resolution shift and the logit-normal levels of Esser et
al. 2024 (arXiv:2403.03206). Kept: frozen base, LoRA, latents encoded once, prompt dropout for guidance. Left out: loss
weights over noise levels (the two distributions of levels do that), captions that change from step to step.

With `batch.token_budget` clips may be of mixed sizes and lengths: a step trains clips of one size, as many as have that
many tokens (Training with Token Length, arXiv:2405.18991).

    repeat
        draw clips x of one size with prompts c, noise e, levels s
        z     <- (1 - s) x + s e
        loss  <- |velocity(z, s, c) - (e - x)|^2
        step AdamW, update the average
"""

import logging
import time
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from rlhf_video.algorithms.config_sections import may_change
from rlhf_video.algorithms.draws import dropped_prompts, measured_sigmas, training_sigmas
from rlhf_video.algorithms.dry_run import config_folder
from rlhf_video.algorithms.held_out_error import HeldOutError
from rlhf_video.algorithms.learner import Learner, StepMetrics
from rlhf_video.algorithms.outcome import Outcome
from rlhf_video.algorithms.sft_config import SftConfig
from rlhf_video.algorithms.sft_data import ClipFiles, EncodedClips, clip_buckets, dealer
from rlhf_video.algorithms.sft_setup import load_suites, open_world
from rlhf_video.algorithms.story import Story, finished_outcome, measure_end, save, tell
from rlhf_video.algorithms.watch import Further, Watch
from rlhf_video.algorithms.world import Validated, World, check_windows
from rlhf_video.backbones import BackboneSpec, meta_backbone
from rlhf_video.data import TokenBuckets
from rlhf_video.diffusion.flow import interpolate, velocity_error, velocity_target
from rlhf_video.runtime import Distribution, Run, cut_padded, peak_memory
from rlhf_video.runtime.run import MAY_CHANGE as RUN_MAY_CHANGE
from rlhf_video.validation import Comparison, CurveView

logger = logging.getLogger(__name__)

MAY_CHANGE = (*RUN_MAY_CHANGE, "test", "prompts.test", "rewards", "judge", "licence", "data.latents")
"""Config fields that a resumed run may change: what only reports, and where latents are kept."""

HELD_OUT_LOSS = "flow_matching/loss"
"""Name of the held-out clips' loss in metrics."""

__all__ = ["SftConfig", "train", "train_step"]


def train(config: SftConfig, *, accelerator: Accelerator, resume: bool = False) -> Outcome:
    """Train, validate, and publish an adapter; call it on every process.

    Args:
        config: The run, without a section `recovery`.
        accelerator: From `create_accelerator`.
        resume: Go on from the last checkpoint in `config.output_dir`.

    Returns:
        What came out, with the paths of the adapter and the report.

    Raises:
        RlhfVideoError, RewardError: The user's input does not fit; nothing was trained.
    """
    if resume and (finished := finished_outcome(config, lambda: load_suites(config))) is not None:
        return finished  # the test prompts are measured once
    distribution = Distribution(accelerator)
    if config.batch.token_budget is None:
        config.batch.micro_batches(distribution.shard_indices(config.batch.global_clips))
    spec = meta_backbone(config_folder(config.backbone)).spec
    files = find_clips(config, spec)  # mistakes in the data are found before weights are read
    buckets = clip_buckets(config, files[0], spec)
    deal = dealer(config, files[0], buckets)
    set_seed(config.seed)  # libraries draw from the global generators while they build layers
    world = open_world(config, distribution)
    clips, held_out = open_clips(config, world, files)
    run = Run.start(
        config.output_dir,
        config,
        accelerator=accelerator,
        resume=resume,
        may_change=may_change(MAY_CHANGE, config.optim),
    )
    error = held_out_loss(config, world, held_out)
    clips.encode()
    learner = Learner(config, world.backbone, distribution)

    def extra(_: Validated, prefix: str) -> Further:
        if error is None:
            return Further()
        comparison = error.latest() if prefix == "result" else error.compare()  # the last step was validated
        return Further(comparison.metrics(prefix=prefix))

    hashes = {"data.train": clips.sha256, "data.validation": held_out.sha256 if held_out is not None else None}
    watch = Watch(world, learner, run, extra, files=hashes)
    for step in range(watch.restore_or_start(), config.num_steps):
        started = time.perf_counter()
        metrics = train_step(config, world, learner, clips, deal(step), step=step)
        metrics |= {"time/step_s": time.perf_counter() - started, "memory/peak_gib": peak_memory(run.device) / 2**30}
        run.log(metrics, step=step)
        logger.info("Step %d/%d: loss %.4f", step + 1, config.num_steps, metrics["loss/flow_matching"])
        is_last = step + 1 == config.num_steps
        if is_last or (step + 1) % config.validation.every == 0:
            watch.validate(step)
        if is_last or (step + 1) % config.checkpoint.every == 0:
            run.save_checkpoint(step + 1, {**learner.state(), **watch.state()})
    save(config, world, learner.published(), run)
    final, prompts_name = measure_end(world, learner, run, extra, latest=watch.latest)
    loss = None if error is None else error.latest()
    outcome = tell(config, world, watch, run, final, prompts_name, _story(world, clips, loss, buckets))
    run.close()
    return outcome


def train_step(
    config: SftConfig, world: World, learner: Learner, clips: EncodedClips, order: list[int], *, step: int
) -> dict[str, float]:
    """Take one optimiser step on the clips of a global batch, all of one size; return its metrics.

    A process whose share is smaller than others' computes a clip that is not counted: the loss is the mean over the
    global batch, however many processes share it.
    """
    distribution, metrics, count = learner.distribution, StepMetrics(), len(order)
    boundary = world.backbone.boundary_sigma
    sigmas = training_sigmas(
        config.noise_levels, count, seed=config.seed, step=step, shift=world.shift, boundary=boundary
    )
    dropped = dropped_prompts(config.prompt_dropout, count, seed=config.seed, step=step)
    rank, num_processes = distribution.rank, distribution.num_processes
    pieces = cut_padded(count, rank=rank, num_processes=num_processes, pieces=config.batch.accumulation)
    for number, padded in enumerate(pieces):
        places = [place % count for place in padded]
        items = [order[place] for place in places]
        clean = clips.latents(items)
        noise = world.maker.noise(places, "train", step, shape=clips.shape(items))
        sigma = sigmas[places].to(clean.device)
        cond = world.condition([clips.prompts[item] for item in items], [dropped[place] for place in places])
        velocity = world.backbone.velocity(interpolate(clean, noise, sigma), sigma, cond)
        errors = velocity_error(velocity, velocity_target(clean, noise))
        is_fill = torch.tensor(padded, device=errors.device) >= count
        loss = errors.masked_fill(is_fill, 0.0).sum() / (count / num_processes)
        distribution.backward(loss, last=number + 1 == len(pieces))
        metrics.add("loss/flow_matching", errors.masked_fill(is_fill, float("nan")))
    numbers = metrics.means(distribution)
    numbers["grad/norm"] = float(learner.step(step))
    if config.batch.token_budget is not None:
        tokens = world.backbone.token_grid(clips.shape(order)).num_tokens
        numbers |= {"batch/clips": float(count), "batch/tokens": float(count * tokens)}
    return numbers | {"optim/learning_rate": config.optim.rate_at(step, config.num_steps)}


def find_clips(config: SftConfig, spec: BackboneSpec) -> tuple[ClipFiles, ClipFiles | None]:
    """Find the clips to learn from and the held-out ones, and look at their sizes; no model is loaded.

    Raises:
        DataError: A list or a clip is missing or does not fit.
        ConfigError: The sampling size does not fit the model.
    """
    assert config.data.train is not None
    size, mixed = config.sampling, config.batch.token_budget is not None
    train = ClipFiles.find(config.data.train, size, spec, field="data.train", mixed=mixed)
    if config.data.validation is None:
        return train, None
    return train, ClipFiles.find(config.data.validation, size, spec, field="data.validation", mixed=mixed)


def open_clips(
    config: SftConfig, world: World, files: tuple[ClipFiles, ClipFiles | None]
) -> tuple[EncodedClips, EncodedClips | None]:
    """Tie the clips to the model that encodes them; nothing is encoded yet.

    Raises:
        DataError: The two lists share a clip.
        ConfigError: The run's windows do not fit a clip's size.
    """
    folder = config.data.latents or config.output_dir / "latents"
    for part in files:
        if part is not None:
            check_windows(world.backbone, part.sizes, field=part.field)
    clips = EncodedClips(files[0], world, folder)
    if files[1] is None:
        return clips, None
    held_out = EncodedClips(files[1], world, folder)
    held_out.check_apart(clips)
    return clips, held_out


def held_out_loss(config: SftConfig, world: World, clips: EncodedClips | None) -> HeldOutError | None:
    """Return the flow-matching loss on held-out clips, at fixed noise and levels; encode them first."""
    if clips is None:
        return None
    clips.encode()
    levels = measured_sigmas(config.noise_levels, config.data.validation_levels, shift=world.shift)

    def error(indices: Sequence[int]) -> Tensor:
        clean, shape = clips.latents(indices), clips.shape(indices)
        cond = world.condition([clips.prompts[i] for i in indices], [False] * len(indices))
        errors = []
        for number, sigma in enumerate(levels.to(clean.device)):
            noise = world.maker.noise(indices, "held-out loss", number, shape=shape)
            velocity = world.backbone.velocity(interpolate(clean, noise, sigma), sigma, cond)
            errors.append(velocity_error(velocity, velocity_target(clean, noise)))
        return torch.stack(errors).mean(dim=0)

    return HeldOutError(
        HELD_OUT_LOSS,
        clips.prompts,
        error,
        backbone=world.backbone,
        distribution=world.distribution,
        batch=config.validation.batch if config.batch.token_budget is None else 1,  # of mixed sizes one at a time
    )


def _story(world: World, clips: EncodedClips, loss: Comparison | None, buckets: TokenBuckets | None) -> Story:
    suite = world.suites.train
    notes = [] if buckets is None else [f"Clips of mixed sizes: {buckets.describe()}."]
    if loss is not None:
        change = loss.change(HELD_OUT_LOSS)
        notes.append(
            f"Flow-matching loss on {loss.num_pairs} held-out clips, same noise: base {change.base.mean:.4f}, adapter "
            f"{change.adapter.mean:.4f}, difference {change.difference.mean:+.4f} [{change.difference.low:+.4f}, "
            f"{change.difference.high:+.4f}]."
        )
    return Story(
        method="sft",
        title="LoRA fine-tuning",
        sentence="flow-matching loss on given clips (arXiv:2210.02747, arXiv:2403.03206)",
        data=f"{len(clips)} clips of {len(suite)} prompts from {suite.name} (sha256 {clips.sha256[:12]})",
        curves=(
            CurveView(title="Training loss", y_label="velocity error", metrics={"training": "loss/flow_matching"}),
            CurveView(
                title="Held-out loss, lower is better",
                y_label="velocity error",
                metrics={"base": f"validation/{HELD_OUT_LOSS}/base", "adapter": f"validation/{HELD_OUT_LOSS}/adapter"},
            ),
            CurveView(title="Gradient norm", y_label="before clipping", metrics={"adapter": "grad/norm"}),
        ),
        notes=tuple(notes),
        card={} if loss is None else {"held_out_loss": loss.to_json()},
    )
