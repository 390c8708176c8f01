"""Fit a reward on preference pairs by the likelihood of their labels.

Bradley-Terry as PickScore (arXiv:2305.01569) and InstructGPT (arXiv:2203.02155) use it; ties by Rao-Kupper, with a
score per question, as VideoReward (arXiv:2501.13918); Gaussian scores as HPSv3 (arXiv:2508.03789).

    repeat
        draw pairs (prompt c, clips a and b, label y)
        d     <- r(a, c) - r(b, c)
        loss  <- -log P(y | d)          A, tie or B; nothing where a question has no label
        step AdamW, update the average
    calibrate on prompts that nothing else saw, judge on validation prompts, publish
"""

import logging
import time

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from rlhf_video.algorithms.preference_loss import label_targets, preference_loss
from rlhf_video.algorithms.reward_model_config import RewardModelConfig
from rlhf_video.algorithms.reward_model_data import Clip, ClipReader, Pairs, Parts, load_parts, random_frames
from rlhf_video.algorithms.reward_model_learner import Learner
from rlhf_video.algorithms.reward_model_outcome import Outcome, finish, judged_metrics
from rlhf_video.algorithms.reward_model_scores import columns, differences, judge, score_clips
from rlhf_video.runtime import Distribution, Run, deck_batch, generator_for, peak_memory

logger = logging.getLogger(__name__)

MAY_CHANGE = ("output_dir", "licence", "validation.batch", "pairs.memory_gib", "pairs.check_hashes")
"""Config fields that a resumed run may change; not num_steps, which shapes the learning rate."""

__all__ = ["Outcome", "RewardModelConfig", "train"]


def train(config: RewardModelConfig, *, accelerator: Accelerator, resume: bool = False) -> Outcome:
    """Train, validate, calibrate and publish a reward; call it on every process.

    Args:
        config: The run.
        accelerator: From `create_accelerator`.
        resume: Go on from the last checkpoint in `config.output_dir`.

    Returns:
        The published folder and what it is worth on the validation pairs.

    Raises:
        RlhfVideoError, RewardError: The user's input does not fit; nothing was trained.
    """
    distribution = Distribution(accelerator)
    config.batch.micro_batches(distribution.shard_indices(config.batch.global_pairs))
    parts = load_parts(config)
    set_seed(config.seed)  # fresh heads and adapters draw from the global generators
    learner = Learner(config, distribution)
    run = Run.start(config.output_dir, config, accelerator=accelerator, resume=resume, may_change=MAY_CHANGE)
    reader = ClipReader(config.pairs.memory_gib)
    restored = run.restore()
    first_step = 0 if restored is None else restored[0]
    if restored is not None:
        learner.load_state(restored[1])
    for step in range(first_step, config.num_steps):
        started = time.perf_counter()
        metrics = train_step(config, parts.train, learner, reader, step=step)
        metrics |= {"time/step_s": time.perf_counter() - started, "memory/peak_gib": peak_memory(run.device) / 2**30}
        is_last = step + 1 == config.num_steps
        if is_last or (step + 1) % config.validation.every == 0:
            metrics |= validate(config, parts, learner, reader)
        run.log(metrics, step=step)
        logger.info("Step %d/%d: loss %.4f", step + 1, config.num_steps, metrics["loss/preference"])
        if is_last or (step + 1) % config.checkpoint_every == 0:
            run.save_checkpoint(step + 1, learner.state())
    outcome = finish(config, parts, learner, reader, run)
    run.close()
    return outcome


def train_step(
    config: RewardModelConfig, train_pairs: Pairs, learner: Learner, reader: ClipReader, *, step: int
) -> dict[str, float]:
    """Take one optimiser step on the global batch; return its metrics, means over all processes."""
    distribution, loss_config = learner.distribution, config.loss
    device = distribution.accelerator.device
    order = deck_batch(len(train_pairs), config.batch.global_pairs, step=step, seed=config.seed, name="pair order")
    targets = label_targets([train_pairs.pairs[index] for index in order], config.questions, loss_config)
    # Every process knows the labels of the whole batch, so each label weighs the same wherever its pair is scored.
    num_labels = max(float((targets.sum(-1) > 0).sum()), 1.0)
    sums, answers = torch.zeros(5, dtype=torch.float64), columns(learner.reward, config.questions)
    micro_batches = config.batch.micro_batches(distribution.shard_indices(len(order)))
    for number, places in enumerate(micro_batches):
        pairs = [train_pairs.pairs[order[place]] for place in places]
        clips: list[Clip] = []
        for place, pair in zip(places, pairs, strict=True):
            draw = generator_for(config.seed, "frames", step, place)
            clips += [
                random_frames(reader(train_pairs.root / clip.path), config.pairs.frames_per_clip, draw)
                for clip in pair.clips
            ]
        with learner.products():  # to the end of the backward pass: scoring in passes runs the towers again there
            scores = score_clips(learner.reward, clips, [pair.prompt for pair in pairs for _ in "AB"], device=device)
            difference = scores.mean[::2, answers] - scores.mean[1::2, answers]
            deviation = None
            if scores.log_sigma is not None:
                variance = (2 * scores.log_sigma[:, answers]).exp()
                deviation = (variance[::2] + variance[1::2]).sqrt()
            target = targets[places.start : places.stop].to(device)
            noise = None
            if loss_config.uncertainty == "sampled":
                shape = (loss_config.num_draws, len(config.questions))
                draws = [generator_for(config.seed, "draws", step, place) for place in places]
                noise = torch.stack([torch.randn(shape, generator=draw) for draw in draws], dim=1).to(device)
            losses = preference_loss(
                difference, target, loss_config, tie_parameter=learner.tie_parameter, deviation=deviation, noise=noise
            )
            # Gradients are averaged over the processes afterwards: the factor makes their mean the global mean.
            loss = losses.sum() / num_labels * distribution.num_processes
            distribution.backward(loss, last=number + 1 == len(micro_batches))
        decided = (target[..., 0] - target[..., 2]).sign()
        right = (decided * difference.detach() > 0) & (decided != 0)
        deviations = 0.0 if deviation is None else deviation.detach().sum()
        sums += torch.tensor([losses.detach().sum(), right.sum(), decided.abs().sum(), deviations, difference.numel()])
    total = distribution.gather(sums[None].to(device, torch.float32)).sum(dim=0).tolist()
    numbers = {
        "loss/preference": total[0] / num_labels,
        "preference/accuracy": total[1] / total[2] if total[2] else float("nan"),
        "preference/labelled_share": float((targets.sum(-1) > 0).double().mean()),
        "optim/learning_rate": config.optim.rate_at(step, config.num_steps),
    }
    if loss_config.uncertainty != "none":
        numbers["preference/deviation"] = total[3] / total[4]
    if learner.tie_parameter is not None:
        numbers["preference/tie_parameter"] = float(learner.tie_parameter.detach())
    return numbers | {"grad/norm": learner.step(step)}


def validate(config: RewardModelConfig, parts: Parts, learner: Learner, reader: ClipReader) -> dict[str, float]:
    """Judge the averaged weights on the validation pairs; call it on every process."""
    batch, questions = config.validation.batch, config.questions
    with learner.ema.swapped():
        difference = differences(learner.reward, parts.validation, reader, learner.distribution, batch=batch)
    own = difference[:, columns(learner.reward, questions)]
    slopes = [1 / config.loss.temperature] * len(questions)
    judged = judge(parts.validation, own, questions, slopes)
    for question, result in judged.items():
        logger.info("Validation, %s: accuracy %s", question, result.accuracy)
    return judged_metrics("validation", judged)
