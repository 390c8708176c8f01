"""Scores of clips for training and for judging, and what they are worth on held-out pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rewards.trainable import TrainableReward, UncertainReward
from rlhf_video.algorithms.reward_model_data import Clip, ClipReader, Pairs
from rlhf_video.errors import DataError
from rlhf_video.runtime import Distribution
from rlhf_video.stats import Interval, bootstrap_mean, brier_score, calibration_error, fit_slope, win_probability


@dataclass(frozen=True)
class Scores:
    """Scores of a batch of clips, in the reward's own unit."""

    mean: Tensor
    """(clips, dimensions)."""
    log_sigma: Tensor | None
    """Like `mean`; None for a reward that does not say."""


def score_clips(
    reward: TrainableReward, clips: Sequence[Clip], prompts: Sequence[str], *, device: torch.device
) -> Scores:
    """Score clips of any mix of sizes; gradients reach weights that require them.

    Args:
        reward: What is trained.
        clips: Decoded clips.
        prompts: One per clip.
        device: Where to score.

    Raises:
        DataError: The reward cannot score a clip.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for row, clip in enumerate(clips):
        groups.setdefault((tuple(clip.video.shape), clip.fps), []).append(row)
    means, logs = [], []
    for rows in groups.values():
        video = torch.stack([clips[row].video for row in rows]).to(device).float() / 255
        mean, log_sigma = _score(reward, video, [prompts[row] for row in rows], fps=clips[rows[0]].fps)
        means.append(mean)
        logs.append(log_sigma)
    back = torch.tensor([row for rows in groups.values() for row in rows], device=device).argsort()
    known = [part for part in logs if part is not None]
    return Scores(torch.cat(means)[back], torch.cat(known)[back] if known else None)


def _score(reward: TrainableReward, video: Tensor, prompts: list[str], *, fps: float) -> tuple[Tensor, Tensor | None]:
    if isinstance(reward, UncertainReward) and reward.has_uncertainty:
        mean, log_sigma = reward.distribution(video, prompts, fps=fps)
        if not bool(torch.isfinite(mean.detach()).all()):
            raise DataError("The reward cannot score a clip of the pairs (its mean is not finite). Leave its pair out.")
        return mean, log_sigma
    output = reward(video, prompts, fps=fps)
    if not bool(output.valid.all()):
        reason = next(reason for reason in output.reasons if reason is not None)
        raise DataError(f"The reward cannot score a clip of the pairs: {reason}. Leave its pair out.")
    return torch.stack([output.values[name] for name in reward.spec.dimensions], dim=1), None


def columns(reward: TrainableReward, questions: Sequence[str]) -> list[int]:
    """Return which score answers each question: its own, or the only one."""
    names = list(reward.spec.dimensions)
    return [0] * len(questions) if len(names) == 1 else [names.index(question) for question in questions]


@torch.no_grad()
def differences(
    reward: TrainableReward, part: Pairs, reader: ClipReader, distribution: Distribution, *, batch: int
) -> np.ndarray:
    """Return score of A minus score of B of every pair, (pairs, dimensions); the processes share the work.

    Args:
        reward: What is judged.
        part: Pairs.
        reader: Decodes their clips.
        distribution: The processes of the run; call it on all of them.
        batch: Clips per forward pass.
    """
    own = range(distribution.rank, len(part), distribution.num_processes)
    rows = list(dict.fromkeys((clip.path, part.pairs[i].prompt) for i in own for clip in part.pairs[i].clips))
    score: dict[tuple[str, str], np.ndarray] = {}
    for start in range(0, len(rows), batch):
        chunk = rows[start : start + batch]
        clips = [reader(part.root / path) for path, _ in chunk]
        scores = score_clips(reward, clips, [prompt for _, prompt in chunk], device=distribution.accelerator.device)
        score.update(zip(chunk, scores.mean.double().cpu().numpy(), strict=True))
    result = np.zeros((len(part), len(reward.spec.dimensions)))
    found = {i: score[part.pairs[i].a.path, part.pairs[i].prompt] - score[part.pairs[i].b.path, part.pairs[i].prompt]
             for i in own}  # fmt: skip
    for shared in distribution.gather_objects(found):
        for i, difference in shared.items():
            result[i] = difference
    return result


@dataclass(frozen=True)
class Judged:
    """What a reward's scores are worth for one question, on pairs that have a winner."""

    accuracy: Interval
    """Share of pairs whose winner scores higher, ties of the score counting half; clustered by prompt."""
    brier: float
    calibration_error: float


def judge(part: Pairs, difference: np.ndarray, questions: Sequence[str], slopes: Sequence[float]) -> dict[str, Judged]:
    """Compare differences with labels; questions without a decided pair are left out.

    Args:
        part: Pairs.
        difference: (pairs, questions).
        questions: Names of labels, one per column.
        slopes: Per question the slope that turns a difference into a log-odds.
    """
    prompts, judged = np.array(part.prompts), {}
    for column, question in enumerate(questions):
        decided, a_won = _decided(part, question)
        if not len(decided):
            continue
        d = difference[decided, column]
        right = np.where(d == 0, 0.5, (d > 0) == a_won)
        p = win_probability(d, slopes[column])
        judged[question] = Judged(
            bootstrap_mean(right, prompts[decided]), brier_score(p, a_won), calibration_error(p, a_won)
        )
    return judged


def calibrate(part: Pairs, difference: np.ndarray, questions: Sequence[str]) -> list[float | None]:
    """Return per question the slope fitted on the decided pairs of `part`; None where no score tells one apart."""
    slopes: list[float | None] = []
    for column, question in enumerate(questions):
        decided, a_won = _decided(part, question)
        d = difference[decided, column]
        slopes.append(fit_slope(d, a_won) if d.any() else None)
    return slopes


def _decided(part: Pairs, question: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows with a winner and whether it is A."""
    winners = [pair.winner(question) for pair in part.pairs]
    rows = [row for row, winner in enumerate(winners) if winner is not None]
    return np.array(rows, dtype=int), np.array([winners[row] == "A" for row in rows])
