"""Video-DPO: train a LoRA on preference pairs by what they say about denoising errors.

Diffusion-DPO (Wallace et al. 2023, arXiv:2311.12908) with the flow-matching errors of Flow-DPO (Liu et al. 2025,
arXiv:2501.13918). Kept: one noise level and one noise for both clips, frozen reference, constant beta by default.
Different: a LoRA, several draws of noise a pair, draws fixed by the pair's own name, so that the reference's errors can
be computed once; and both clips may be back-propagated one after the other at the same gradient.

    repeat
        draw pairs (w preferred, l) with prompts c; for each, levels s and noise e, shared by w and l
        e_ref(x) <- |reference(z, s, c) - (e - x)|^2, z = (1 - s) x + s e, x = w and l      no gradient, or cached
        e(x)     <- |velocity(z, s, c) - (e - x)|^2
        margin   <- (e_ref(w) - e(w)) - (e_ref(l) - e(l))
        loss     <- -log sigmoid(beta / 2 * margin)                    and relatives, see dpo_loss.py and kto_loss.py
        step AdamW, update the average
"""

import logging
import time
from functools import partial

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from rlhf_video.algorithms.config_sections import may_change
from rlhf_video.algorithms.dpo_beta import AutoBeta
from rlhf_video.algorithms.dpo_clips import PairClips, deal_pairs
from rlhf_video.algorithms.dpo_config import DpoConfig
from rlhf_video.algorithms.dpo_data import load_parts
from rlhf_video.algorithms.dpo_loss import PairErrors
from rlhf_video.algorithms.dpo_metrics import Table, step_metrics
from rlhf_video.algorithms.dpo_outcome import dpo_story
from rlhf_video.algorithms.dpo_passes import joint_backward, two_pass_backward
from rlhf_video.algorithms.dpo_rows import Rows, member_error
from rlhf_video.algorithms.dpo_setup import Trained, load_suites, open_run
from rlhf_video.algorithms.dpo_watch import DpoMeasure, HeldOutPairs
from rlhf_video.algorithms.dry_run import config_folder
from rlhf_video.algorithms.kto_ahead import look_ahead
from rlhf_video.algorithms.kto_loss import pair_loss
from rlhf_video.algorithms.outcome import Outcome
from rlhf_video.algorithms.story import finished_outcome, measure_end, save, tell
from rlhf_video.algorithms.watch import Watch
from rlhf_video.backbones import meta_backbone
from rlhf_video.runtime import Distribution, Run, cut_padded, peak_memory
from rlhf_video.runtime.run import MAY_CHANGE as RUN_MAY_CHANGE

logger = logging.getLogger(__name__)

MAY_CHANGE = (*RUN_MAY_CHANGE, "test", "prompts.test", "rewards", "judge", "licence", "reference.cache")
"""Config fields that a resumed run may change: what only reports, and where things are kept."""

__all__ = ["DpoConfig", "train", "train_step"]


def train(config: DpoConfig, *, accelerator: Accelerator, resume: bool = False) -> Outcome:
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
    parts = load_parts(config)
    if resume and (finished := finished_outcome(config, lambda: load_suites(config, parts))) is not None:
        return finished  # the test prompts are measured once
    distribution = Distribution(accelerator)
    if config.batch.token_budget is None:
        config.batch.micro_batches(distribution.shard_indices(config.batch.global_pairs))
    spec = meta_backbone(config_folder(config.backbone)).spec
    clips = PairClips.find(parts.train, config, spec)  # mistakes in the data are found before weights are read
    held_out = None if parts.validation is None else PairClips.find(parts.validation, config, spec)
    deal = deal_pairs(config, clips, spec)
    set_seed(config.seed)  # libraries draw from the global generators while they build layers
    opened = open_run(config, parts, clips, held_out, distribution)
    run = Run.start(
        config.output_dir,
        config,
        accelerator=accelerator,
        resume=resume,
        may_change=may_change(MAY_CHANGE, config.optim),
    )
    trained = opened.begin(config, deal)
    world, learner, beta = trained.world, trained.learner, AutoBeta(config.loss)
    unseen = trained.held_out
    measure = DpoMeasure(None if unseen is None else HeldOutPairs(config, world, trained.reference, unseen), beta)
    watch = Watch(world, learner, run, measure, files=trained.files(), parts={"beta": beta})
    for step in range(watch.restore_or_start(), config.num_steps):
        started = time.perf_counter()
        metrics = train_step(config, trained, beta, deal.visits(step), step=step)
        metrics |= {"time/step_s": time.perf_counter() - started, "memory/peak_gib": peak_memory(run.device) / 2**30}
        run.log(metrics, step=step)
        logger.info("Step %d/%d: loss %.4f, accuracy %.2f", step + 1, config.num_steps, metrics["loss/dpo"],
                    metrics["dpo/accuracy"])  # fmt: skip
        is_last = step + 1 == config.num_steps
        if is_last or (step + 1) % config.validation.every == 0:
            watch.validate(step)
        if is_last or (step + 1) % config.checkpoint.every == 0:
            run.save_checkpoint(step + 1, {**learner.state(), **watch.state()})
    published = trained.start.published(learner.published(), world.backbone, config.lora)
    save(config, world, published.state, run, lora=published.config)
    final, prompts_name = measure_end(world, learner, run, measure, latest=watch.latest)
    story = dpo_story(config, trained, measure.latest, published.config)
    outcome = tell(config, world, watch, run, final, prompts_name, story)
    run.close()
    return outcome


def train_step(
    config: DpoConfig, trained: Trained, beta: AutoBeta, visits: list[tuple[int, int]], *, step: int
) -> dict[str, float]:
    """Take one optimiser step on a global batch of pairs; return its metrics, means over all processes.

    A process whose share is smaller than others' computes a pair that is not counted.

    Args:
        config: The run.
        trained: Model, pairs, reference, learner.
        beta: Its value of this step is used; it takes in the step's margins afterwards.
        visits: (index of a pair, number of its visit) over the global batch.
        step: Optimiser step 0, 1, ...
    """
    distribution, count = trained.learner.distribution, len(visits)
    backward = joint_backward if config.passes == "joint" else two_pass_backward
    rank, num_processes = distribution.rank, distribution.num_processes
    pieces = cut_padded(count, rank=rank, num_processes=num_processes, pieces=config.batch.accumulation)
    point, known = torch.zeros(()), None
    if config.loss.kind == "kto":  # a clip is judged by the mean gain of the whole global batch
        point, known = look_ahead(trained, visits, pieces, beta.value)
    parts = []
    for number, places in enumerate(pieces):
        rows, is_fill = trained.piece(visits, places)
        reference = trained.reference_errors(rows) if known is None else known[number]
        # the mean over the global batch, however many processes share it
        scale = (rows.weight / (count * config.draws_per_pair / num_processes)).masked_fill(is_fill, 0.0)
        policy = backward(
            partial(member_error, trained.world.backbone, rows, "chosen", config.loss),
            partial(member_error, trained.world.backbone, rows, "rejected", config.loss),
            partial(_objective, config, rows, reference, scale, beta.value, point),
            distribution.backward,
            last=number + 1 == len(pieces),
        )
        parts.append((rows.without_latents(), policy, reference, is_fill))
    table = Table.gather(parts, distribution, width=trained.pairs.num_segments)
    table.check_finite(trained.pairs.pairs, step)
    numbers = step_metrics(table, config.loss, beta.value)
    numbers["grad/norm"] = float(trained.learner.step(step))
    terms = table.terms(config.loss, beta.value)
    beta.update(terms.judged, sigma=table.sigma, reference_point=float(terms.reference_point))
    if config.batch.token_budget is not None:
        numbers["batch/pairs"] = float(count)
    return numbers | {"optim/learning_rate": config.optim.rate_at(step, config.num_steps)}


def _objective(
    config: DpoConfig,
    rows: Rows,
    reference: PairErrors,
    scale: Tensor,
    beta: float,
    point: Tensor,
    policy: PairErrors,
) -> Tensor:
    """Return a micro-batch's share of the step's loss."""
    terms = pair_loss(
        policy, reference, preference=rows.preference, both_bad=rows.both_bad, sigma=rows.sigma,
        config=config.loss, beta=beta, reference_point=point,
    )  # fmt: skip
    return (scale * terms.loss).sum()
