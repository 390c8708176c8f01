"""Window recovery: distil a dense model into its own windowed form, so that it loses little and computes less.

After sliding-tile attention's tuning (arXiv:2502.04507: velocity and attention outputs of the dense teacher, on clips
that it generated). Kept: both losses, generated clips. Different: a LoRA on the attention projections instead of all
weights, so teacher and student are one set of weights (plan off and adapter off, or both on); layers lose their dense
attention one after another, from the middle outwards, instead of all at once; relative attention errors, so that
layers count alike.

    let the dense model generate clips x for the training prompts c
    repeat
        windows on k more middle layers, until all of the plan's have theirs
        draw x, c, noise e, levels s;  z <- (1 - s) x + s e         or a state z of the sampler itself
        v*, a*  <- dense, adapter off, no gradient                   velocity and attention outputs
        v, a    <- windows and adapter on
        loss    <- |v - v*|^2 + weight * mean over layers |a - a*|^2 / |a*|^2
        step AdamW, update the average
"""

import logging
import time

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from rlhf_video.algorithms.config_sections import may_change
from rlhf_video.algorithms.draws import dropped_prompts, training_sigmas, trajectory_rows
from rlhf_video.algorithms.generated_clips import GeneratedClips
from rlhf_video.algorithms.learner import Learner, StepMetrics
from rlhf_video.algorithms.outcome import Outcome, score_views
from rlhf_video.algorithms.sft_config import SftConfig
from rlhf_video.algorithms.sft_setup import load_suites, open_world
from rlhf_video.algorithms.story import Story, finished_outcome, measure_end, save, tell
from rlhf_video.algorithms.watch import Watch
from rlhf_video.algorithms.window_recovery_passes import (
    AnnealedWindows,
    attention_error,
    student_pass,
    teacher_pass,
)
from rlhf_video.algorithms.window_recovery_watch import TEACHER_ERROR, RecoveryMeasure, teacher_error
from rlhf_video.algorithms.world import World
from rlhf_video.diffusion.flow import interpolate, velocity_error, velocity_target
from rlhf_video.runtime import Distribution, Run, deck_batch, peak_memory
from rlhf_video.runtime.run import MAY_CHANGE as RUN_MAY_CHANGE
from rlhf_video.validation import PSNR, Comparison, CurveView, FurtherComparison, ScoreView

logger = logging.getLogger(__name__)

MAY_CHANGE = (*RUN_MAY_CHANGE, "test", "prompts.test", "rewards", "judge", "licence")
"""Config fields that a resumed run may change: what only reports."""


def train(config: SftConfig, *, accelerator: Accelerator, resume: bool = False) -> Outcome:
    """Train, validate, and publish an adapter for windowed attention; call it on every process.

    Args:
        config: The run, with a section `recovery`.
        accelerator: From `create_accelerator`.
        resume: Go on from the last checkpoint in `config.output_dir`.

    Returns:
        What came out, with the paths of the adapter and the report.

    Raises:
        RlhfVideoError, RewardError: The user's input does not fit; nothing was trained.
    """
    recovery, config = config.recovery, config.resolved()
    assert recovery is not None
    if resume and (finished := finished_outcome(config, lambda: load_suites(config))) is not None:
        return finished  # the test prompts are measured once
    distribution = Distribution(accelerator)
    config.batch.micro_batches(distribution.shard_indices(config.batch.global_clips))
    set_seed(config.seed)  # libraries draw from the global generators while they build layers
    world = open_world(config, distribution)
    windows = AnnealedWindows(world.backbone, world.maker.shape(1), recovery.anneal_steps)
    run = Run.start(
        config.output_dir,
        config,
        accelerator=accelerator,
        resume=resume,
        may_change=may_change(MAY_CHANGE, config.optim),
    )
    prompts = [prompt for prompt in world.suites.train.prompts for _ in range(recovery.clips_per_prompt)]
    keeps_states = recovery.states == "trajectory"
    clips = GeneratedClips(config, world, prompts, purpose="teacher's clips", keeps_states=keeps_states)
    held_out = GeneratedClips(
        config, world, world.suites.validation.prompts, purpose="teacher's held-out clips", keeps_states=False
    )
    learner = Learner(config, world.backbone, distribution)
    extra = RecoveryMeasure(world, teacher_error(config, world, held_out))
    watch = Watch(world, learner, run, extra, files={"prompts.train": world.suites.train.sha256})
    for step in range(watch.restore_or_start(), config.num_steps):
        started = time.perf_counter()
        with windows.at(step):
            metrics = train_step(config, world, learner, clips, step=step)
        metrics |= {"time/step_s": time.perf_counter() - started, "memory/peak_gib": peak_memory(run.device) / 2**30}
        run.log(metrics | {"recovery/windowed_layers": float(windows.count(step))}, step=step)
        logger.info("Step %d/%d: velocity error %.5f", step + 1, config.num_steps, metrics["loss/teacher_velocity"])
        is_last = step + 1 == config.num_steps
        if is_last or (step + 1) % config.validation.every == 0:
            watch.validate(step)
        if is_last or (step + 1) % config.checkpoint.every == 0:
            run.save_checkpoint(step + 1, {**learner.state(), **watch.state()})
    save(config, world, learner.published(), run)
    final, prompts_name = measure_end(world, learner, run, extra, latest=watch.latest)
    assert extra.latest is not None
    outcome = tell(config, world, watch, run, final, prompts_name, _story(world, clips, extra.latest))
    run.close()
    return outcome


def train_step(
    config: SftConfig, world: World, learner: Learner, clips: GeneratedClips, *, step: int
) -> dict[str, float]:
    """Take one optimiser step on the global batch; return its metrics, means over all processes."""
    assert config.recovery is not None
    recovery, backbone = config.recovery, world.backbone
    distribution, metrics, count = learner.distribution, StepMetrics(), config.batch.global_clips
    order = deck_batch(len(clips), count, step=step, seed=config.seed, name="clip order")
    dropped = dropped_prompts(config.prompt_dropout, count, seed=config.seed, step=step)
    share = list(distribution.shard_indices(count))
    micro_batches = config.batch.micro_batches(share)
    for number, places in enumerate(micro_batches):
        indices = [order[place] for place in places]
        state, sigma, target = _states(config, world, clips, indices, places, step)
        prompts, drop = [clips.prompts[index] for index in indices], [dropped[place] for place in places]
        # without its prompt a clip trains what guidance moves away from
        cond = world.condition(prompts, drop, instead=config.sampling.negative_prompt)
        keeps = recovery.attention_weight > 0
        teacher = teacher_pass(backbone, state, sigma, cond, keeps_attention=keeps)
        student = student_pass(backbone, state, sigma, cond, keeps_attention=keeps)
        errors = velocity_error(student.velocity, teacher.velocity)
        metrics.add("loss/teacher_velocity", errors)
        if keeps:
            attention = attention_error(student, teacher)
            errors = errors + recovery.attention_weight * attention
            metrics.add("loss/teacher_attention", attention)
        if recovery.flow_weight > 0 and target is not None:
            flow = velocity_error(student.velocity, target)
            errors = errors + recovery.flow_weight * flow
            metrics.add("loss/flow_matching", flow)
        distribution.backward(errors.sum() / len(share), last=number + 1 == len(micro_batches))
    numbers = metrics.means(distribution)
    numbers["grad/norm"] = float(learner.step(step))
    return numbers | {"optim/learning_rate": config.optim.rate_at(step, config.num_steps)}


def _states(
    config: SftConfig, world: World, clips: GeneratedClips, indices: list[int], places: list[int], step: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return noised latents, their levels, and the flow-matching target of renoised clips."""
    assert config.recovery is not None
    count, boundary = config.batch.global_clips, world.backbone.boundary_sigma
    if config.recovery.states == "trajectory":
        rows = trajectory_rows(world.maker.sigmas.cpu(), count, seed=config.seed, step=step, boundary=boundary)
        chosen = [rows[place] for place in places]
        return clips.states(indices, chosen), world.maker.sigmas[chosen], None
    sigmas = training_sigmas(
        config.noise_levels, count, seed=config.seed, step=step, shift=world.shift, boundary=boundary
    )
    clean, noise = clips.latents(indices), world.maker.noise(places, "train", step)
    sigma = sigmas[places].to(clean.device)
    return interpolate(clean, noise, sigma), sigma, velocity_target(clean, noise)


def _story(world: World, clips: GeneratedClips, recovered: Comparison) -> Story:
    suite = world.suites.train
    likeness = ScoreView(key=PSNR, label="PSNR to the dense clip, dB", role="likeness")
    regained = FurtherComparison(
        title="What the adapter regains",
        lead="The same windows without and with the adapter, against the dense clips.",
        comparison=recovered,
        views=(likeness, *score_views(recovered, world.reported.roles)),
        names=("windows, no adapter", "windows, adapter"),
    )
    return Story(
        method="window_recovery",
        title="Window recovery",
        sentence="distillation of the dense model's velocity and attention outputs into its windowed form "
        "(arXiv:2502.04507, section 3)",
        data=f"{len(clips)} clips that the dense base generated for {len(suite)} prompts of {suite.name} "
        f"(sha256 {suite.sha256[:12]})",
        curves=(
            CurveView(
                title="Distance to the dense model",
                y_label="error",
                metrics={"velocity": "loss/teacher_velocity", "attention, relative": "loss/teacher_attention"},
            ),
            CurveView(
                title="Held-out velocity error, lower is better",
                y_label="velocity error",
                metrics={
                    "without adapter": f"validation/{TEACHER_ERROR}/base",
                    "with adapter": f"validation/{TEACHER_ERROR}/adapter",
                },
            ),
            CurveView(
                title="Windowed layers", y_label="layers", metrics={"layers with windows": "recovery/windowed_layers"}
            ),
            CurveView(title="Gradient norm", y_label="before clipping", metrics={"adapter": "grad/norm"}),
        ),
        sides=("dense base", "windows"),
        notes=("The base of the first table is the dense model; the adapter is measured under its windows.",),
        further=(regained,),
        card={"recovery": recovered.to_json()},
    )
