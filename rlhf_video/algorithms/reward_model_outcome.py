"""The end of reward-model training: publish, calibrate, judge what was published, and write its card."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from rewards import registry
from rewards.trainable import TrainableReward
from rlhf_video.algorithms.reward_model_config import RewardModelConfig
from rlhf_video.algorithms.reward_model_data import ClipReader, Pairs, Parts
from rlhf_video.algorithms.reward_model_learner import Learner
from rlhf_video.algorithms.reward_model_scores import Judged, calibrate, columns, differences, judge
from rlhf_video.command import command_line
from rlhf_video.data import sha256_file, write_atomic
from rlhf_video.report import Series, chart_file, markdown_table
from rlhf_video.runtime import Run, read_metrics
from rlhf_video.stats import Interval

logger = logging.getLogger(__name__)

_CURVE = "learning_curve.svg"


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    folder: Path
    """The published reward with its card."""
    judged: Mapping[str, Judged]
    """Per question, on the validation pairs, by the folder as a user loads it; calibrated."""
    slopes: Mapping[str, float]
    """Per question: log-odds that A wins = slope * (score of A - score of B)."""

    @property
    def table(self) -> str:
        """Markdown table of accuracy and calibration."""
        rows = [
            [
                question,
                f"{100 * r.accuracy.mean:.1f}%",
                "one prompt" if r.accuracy.num_clusters == 1 else _percent_interval(r.accuracy),
                str(r.accuracy.num_items),
                str(r.accuracy.num_clusters),
                f"{r.brier:.3f}",
                f"{r.calibration_error:.3f}",
            ]
            for question, r in self.judged.items()
        ]
        header = ["question", "accuracy", "95% interval", "pairs", "prompts", "Brier", "calibration error"]
        return markdown_table(header, rows, align="lrrrrrr")


def finish(config: RewardModelConfig, parts: Parts, learner: Learner, reader: ClipReader, run: Run) -> Outcome:
    """Publish the averaged weights and judge the folder as a user would load it; call it on every process."""
    folder, distribution = config.output_dir / "reward", learner.distribution
    if run.is_main:
        learner.publish(folder)
    distribution.barrier()
    reward = load_published(config, folder)
    asked = _judged_questions(config, reward, parts.validation)
    answers, batch = columns(reward, asked), config.validation.batch
    slopes: dict[str, float] = {}
    if len(parts.calibration):
        d = differences(reward, parts.calibration, reader, distribution, batch=batch)[:, answers]
        fitted = calibrate(parts.calibration, d, asked)
        slopes = {question: slope for question, slope in zip(asked, fitted, strict=True) if slope is not None}
    d = differences(reward, parts.validation, reader, distribution, batch=batch)[:, answers]
    # A question that the calibration pairs do not answer is read with the first one's slope, or as it was trained.
    usual = next(iter(slopes.values()), 1 / config.loss.temperature)
    judged = judge(parts.validation, d, asked, [slopes.get(question, usual) for question in asked])
    outcome = Outcome(folder, judged, slopes)
    slope_metrics = {f"result/{question}/slope": slope for question, slope in slopes.items()}
    run.log(judged_metrics("result", judged) | slope_metrics, step=config.num_steps)
    if run.is_main:
        _write_card(config, parts, outcome, learner, run)
    distribution.barrier()
    return outcome


def load_published(config: RewardModelConfig, folder: Path) -> TrainableReward:
    """Load a published folder frozen, with the options that it was trained with."""
    options = {key: value for key, value in config.options.items() if key != "tokenizer"}
    return cast(TrainableReward, registry.build(config.reward, **{**options, "model": str(folder)}))


def judged_metrics(family: str, judged: Mapping[str, Judged]) -> dict[str, float]:
    """Return metrics of judged questions; the interval is left out with a single prompt."""
    metrics: dict[str, float] = {}
    for question, result in judged.items():
        metrics[f"{family}/{question}/accuracy"] = result.accuracy.mean
        if math.isfinite(result.accuracy.low):
            metrics[f"{family}/{question}/accuracy_low"] = result.accuracy.low
            metrics[f"{family}/{question}/accuracy_high"] = result.accuracy.high
        metrics[f"{family}/{question}/brier"] = result.brier
        metrics[f"{family}/{question}/calibration_error"] = result.calibration_error
    return metrics


def _judged_questions(config: RewardModelConfig, reward: TrainableReward, part: Pairs) -> list[str]:
    """Return the trained questions, and for a reward with one score every other label of the validation pairs."""
    asked = list(config.questions)
    if len(reward.spec.dimensions) == 1:
        asked += sorted({name for pair in part.pairs for name in (*pair.labels, *pair.soft)} - set(asked))
    return asked


def _write_card(config: RewardModelConfig, parts: Parts, outcome: Outcome, learner: Learner, run: Run) -> None:
    """Write README.md and the learning curve beside the weights, and card.json into the run."""
    folder, distribution = outcome.folder, learner.distribution
    curve = _learning_curve(config, run)
    if curve:
        picture = chart_file("Accuracy on validation pairs", curve, x_label="optimiser steps")
        write_atomic(folder / _CURVE, picture.encode())
    with learner.ema.swapped():  # the published weights are the averaged ones
        tie = None if learner.tie_parameter is None else float(learner.tie_parameter.detach())
    facts = {
        "command": command_line(distribution.num_processes),
        "reward": config.reward,
        "start": str(config.options["model"]),
        "pairs": {str(p): sha256_file(p) for p in (config.pairs.train, config.pairs.validation) if p is not None},
        "num_pairs": {name: len(part) for name, part in vars(parts).items()},
        "accuracy": {question: vars(result.accuracy) for question, result in outcome.judged.items()},
        "slopes": dict(outcome.slopes),
        "tie_parameter": tie,
    }
    run.write_card(facts)
    write_atomic(folder / "README.md", _card_text(config, facts, outcome, curve).encode())


def _card_text(config: RewardModelConfig, facts: Mapping[str, object], outcome: Outcome, curve: list[Series]) -> str:
    options = {key: value for key, value in config.options.items() if key not in ("model", "tokenizer")}
    arguments = "".join(f", {key}={value!r}" for key, value in options.items())
    counts = ", ".join(f"{count} {name}" for name, count in cast(dict[str, int], facts["num_pairs"]).items())
    files = "\n".join(f"- `{name}`, sha256 `{digest}`" for name, digest in cast(dict[str, str], facts["pairs"]).items())
    slopes = "; ".join(f"{question} {slope:.4g}" for question, slope in outcome.slopes.items()) or "not fitted"
    tie = facts["tie_parameter"]
    return f"""---
license: {config.licence}
tags: [reward-model, video]
---
# {config.output_dir.name}

A reward for `{config.reward}`, fitted on preference pairs from `{config.options["model"]}` ({config.trains}).
`registry.build("{config.reward}", model="<this folder>"{arguments})` loads it; so does `from_pretrained`.

Command: `{facts["command"]}`

Likelihood: {config.loss.model}, temperature {config.loss.temperature:g}, label smoothing \
{config.loss.label_smoothing:g}{f", learned tie parameter {tie:.3f}" if isinstance(tie, float) else ""}. \
{config.num_steps} steps of {config.batch.global_pairs} pairs, AdamW {config.optim.learning_rate:g}, seed {config.seed}.

Pairs ({counts}; validation and calibration prompts are never trained on):

{files}

Accuracy on validation pairs that have a winner, intervals clustered by prompt:

{outcome.table}
Calibration: log-odds that A wins a pair (by the majority of its voters) = slope x (score of A - score of B). Slope,
fitted on the calibration pairs: {slopes}.
Brier score and calibration error are those of the calibrated probabilities; they are off where validation labels are
surer than the calibration pairs' voters.

## Learning curve

{_curve_table(curve)}
![Accuracy on validation pairs against optimiser steps]({_CURVE})
"""


def _percent_interval(interval: Interval) -> str:
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"


def _learning_curve(config: RewardModelConfig, run: Run) -> list[Series]:
    """Return accuracy by finished steps per trained question, from the run's own log."""
    lines, curves = read_metrics(run.directory), []
    for question in config.questions:
        key = f"validation/{question}/accuracy"
        points = [line for line in lines if line.get(key) is not None]
        if points:
            steps, values, lows, highs = (
                [math.nan if (value := line.get(name)) is None else value for line in points]
                for name in ("step", key, f"{key}_low", f"{key}_high")
            )
            curves.append(Series(question, [step + 1 for step in steps], values, lows, highs))
    return curves


def _curve_table(curve: list[Series]) -> str:
    if not curve:
        return ""
    steps = [f"{step:g}" for step in curve[0].x]
    rows = [[step, *(f"{100 * series.y[row]:.1f}%" for series in curve)] for row, step in enumerate(steps)]
    return markdown_table(["steps", *(series.label for series in curve)], rows, align="r" * (1 + len(curve)))
