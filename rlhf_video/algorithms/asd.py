"""Adversarial self-distillation: one adapter that makes a video model causal and few-step.

After Adversarial Self-Distillation (arXiv:2511.01419) on Self-Forcing (arXiv:2506.08009). Kept: chunked roll-outs on
the student's own past, distribution matching to the many-step teacher, the n-step student against its own (n+1)-step
samples under a relativistic discriminator with one logit for each n, First-Frame Enhancement. Different: teacher,
student and fake score are one resident base with adapters off, on, and another one on, where others hold three models;
the discriminator reads the frozen teacher; First-Frame Enhancement is in the training roll-out too (One-Forcing,
arXiv:2605.23458). With adversarial.weight 0 it is Self-Forcing.

    repeat
        draw n, the same for all
        several times                                                   critics
            x <- roll-out of n steps, no gradient
            step the fake score on flow matching of x
            step D_n: higher for m steps (or the teacher's, or given clips) than for x, at a random noise level
        x <- roll-out of n steps, gradient at one call of each chunk     student
        g <- (fake(x_t) - teacher(x_t)) / mean|x - teacher(x_t)|
        loss <- <g, x> + weight * softplus(D_n(y_t) - D_n(x_t))          gradient collected on a copy of x
        step AdamW through x, update the average
"""

import logging
import time

from accelerate import Accelerator
from accelerate.utils import set_seed

from rlhf_video.algorithms.asd_config import AsdConfig
from rlhf_video.algorithms.asd_draws import Draws
from rlhf_video.algorithms.asd_losses import matching_terms, student_adversarial_loss
from rlhf_video.algorithms.asd_setup import AsdParts, load_suites, open_parts, open_world
from rlhf_video.algorithms.asd_watch import StepsMeasure, story
from rlhf_video.algorithms.config_sections import may_change
from rlhf_video.algorithms.learner import StepMetrics
from rlhf_video.algorithms.outcome import Outcome
from rlhf_video.algorithms.story import finished_outcome, measure_end, save, tell
from rlhf_video.algorithms.watch import Watch
from rlhf_video.lora.roles import leaf, splice
from rlhf_video.runtime import Distribution, Run, peak_memory
from rlhf_video.runtime.run import MAY_CHANGE as RUN_MAY_CHANGE

logger = logging.getLogger(__name__)

MAY_CHANGE = (*RUN_MAY_CHANGE, "test", "prompts.test", "rewards", "judge", "licence")
"""Config fields that a resumed run may change: what only reports."""


def train(config: AsdConfig, *, accelerator: Accelerator, resume: bool = False) -> Outcome:
    """Distil, validate, and publish the student's adapter; call it on every process.

    Args:
        config: The run, without a section `warmup`.
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
    parts = open_parts(config, world)
    measure = StepsMeasure(config, world, parts.student)
    watch = Watch(world, parts.learner, run, measure, files=parts.files, parts=parts.saved)
    for step in range(watch.restore_or_start(), config.num_steps):
        started = time.perf_counter()
        metrics = train_step(config, parts, step=step)
        metrics |= {"time/step_s": time.perf_counter() - started, "memory/peak_gib": peak_memory(run.device) / 2**30}
        run.log(metrics, step=step)
        logger.info(
            "Step %d/%d: n %d, matching %.4f, fake score %.4f",
            step + 1,
            config.num_steps,
            metrics["steps/n"],
            metrics["loss/matching"],
            metrics["loss/fake_score"],
        )
        is_last = step + 1 == config.num_steps
        if is_last or (step + 1) % config.validation.every == 0:
            watch.validate(step)
        if is_last or (step + 1) % config.checkpoint.every == 0:
            run.save_checkpoint(step + 1, {**parts.learner.state(), **watch.state()})
    recipe = parts.student.recipe()
    save(config, world, parts.learner.published(), run, metadata=recipe)
    final, prompts_name = measure_end(world, parts.learner, run, measure, latest=watch.latest)
    outcome = tell(config, world, watch, run, final, prompts_name, story(config, world, measure))
    run.close()
    return outcome


def train_step(config: AsdConfig, parts: AsdParts, *, step: int) -> dict[str, float]:
    """Take one optimiser step of the student, after those of the critics; return its metrics."""
    metrics = StepMetrics()
    for update in range(config.fake.updates):
        update_critics(parts, Draws(config, parts, step, update), metrics)
    if parts.continuation is not None:
        parts.continuation.backward(parts.learner.distribution, metrics, step=step)
    update_student(config, parts, Draws(config, parts, step, None), metrics)
    numbers = metrics.means(parts.learner.distribution)
    numbers["grad/norm"] = float(parts.learner.step(step))
    if "grad/adversarial" in numbers:
        numbers["grad/adversarial_ratio"] = numbers["grad/adversarial"] / max(numbers["grad/matching"], 1e-12)
        numbers["adversarial/logit_gap"] = numbers["adversarial/real"] - numbers["adversarial/fake"]
    return numbers | {"optim/learning_rate": config.optim.rate_at(step, config.num_steps)}


def update_critics(parts: AsdParts, draws: Draws, metrics: StepMetrics) -> None:
    """Take one optimiser step of the fake score, and one of the discriminator, on the same roll-outs."""
    distribution, adversary = parts.learner.distribution, parts.adversary
    for number, batch in enumerate(draws.batches):
        last = number + 1 == len(draws.batches)
        sample = draws.roll_out(batch, draws.num_steps)
        cond = parts.backbone.encode_prompts(batch.prompts)
        errors = parts.fake.errors(sample, draws.noise(batch, "fake score"), draws.levels(batch, "fake score"), cond)
        metrics.add("loss/fake_score", errors)
        distribution.backward(errors.sum() / draws.share, last=last)
        real = draws.real(batch)
        if adversary is None or real is None:
            continue
        found = adversary.losses(*draws.noised(batch, real, sample), draws.perturbations(batch), cond, draws.num_steps)
        metrics.add("loss/discriminator", found["loss"])
        for name in ("real", "fake", "penalty"):
            if name in found:
                metrics.add(f"adversarial/{name}", found[name])
        distribution.backward(found["loss"].sum() / draws.share, last=last)
    parts.fake.step()
    if adversary is not None and draws.better is not None:
        adversary.step()


def update_student(config: AsdConfig, parts: AsdParts, draws: Draws, metrics: StepMetrics) -> None:
    """Back-propagate the student's losses; the optimiser step is the learner's."""
    metrics.add("steps/n", float(draws.num_steps))
    for number, batch in enumerate(draws.batches):
        sample = draws.roll_out(batch, draws.num_steps, grad=True)
        collected = leaf(sample)
        cond = parts.backbone.encode_prompts(batch.prompts, config.sampling.negative_prompt)
        losses = {"matching": matching_terms(config, parts, draws, batch, collected, cond)}
        real = draws.real(batch)
        if parts.adversary is not None and real is not None:
            inputs = draws.noised(batch, real, collected)
            losses["adversarial"] = student_adversarial_loss(config, parts.adversary, inputs, cond, draws.num_steps)
        if parts.reward is not None:
            losses["reward"] = parts.reward.loss(collected, batch.prompts)
        parts.collect(collected, losses, draws.share, metrics)
        spliced = splice(parts.backbone, sample, collected)
        parts.learner.distribution.backward(spliced, last=number + 1 == len(draws.batches))
