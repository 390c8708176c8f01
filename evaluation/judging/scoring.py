"""Score every clip of a benchmark once; what cannot be scored is listed with its reason and never becomes a number."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from evaluation.judging.score_store import ClipScore, ScoreStore
from rewards.base import Reward
from rewards.errors import RewardError
from rewards.frame_difference import FrameDifference
from rlhf_video.data import read_video, sha256_file
from rlhf_video.errors import DataError, RlhfVideoError

logger = logging.getLogger(__name__)

COVARIATES: Mapping[str, str] = {
    "brightness": "mean of all pixels and channels, in [0, 1]",
    "motion": "mean absolute frame difference, grey levels (of a range of 1) per second",
    "duration": "seconds",
}
"""What is measured on every clip beside its score, with its unit."""

_HOPELESS = 10
"""This many failures at the start and not one score: the reward or the folder is wrong, not the clips."""

ClipKey = tuple[Path, str]
"""A clip's path and its prompt."""


@dataclass(frozen=True)
class ClipFailure:
    """A clip without a score."""

    clip: Path
    prompt: str
    reason: str


def score_clips(
    reward: Reward, clips: Sequence[ClipKey], store: ScoreStore, *, device: str = "cpu", show_progress: bool = False
) -> tuple[dict[ClipKey, ClipScore], tuple[ClipFailure, ...]]:
    """Return the score of every clip, taken from the store where it is known, and the clips that have none.

    A failure is not stored: the next run tries the clip again.

    Args:
        reward: The reward to judge.
        clips: Paths and prompts, each once.
        store: Where scores are kept.
        device: torch device that clips are moved to; rewards follow their clips.
        show_progress: Whether a terminal shows a bar.

    Raises:
        DataError: Not one clip can be scored; the first reason is in the message.
    """
    scores: dict[ClipKey, ClipScore] = {}
    failures: list[ClipFailure] = []
    hashes: dict[Path, str] = {}
    num_known = 0
    for path, prompt in tqdm(clips, unit="clip", disable=None if show_progress else True):
        try:
            if path not in hashes:
                hashes[path] = _sha256(path)
            known = store.find(hashes[path], prompt)
            num_known += known is not None
            if known is None:
                known = _score(reward, path, prompt, device)
                store.add(hashes[path], prompt, known)
            scores[path, prompt] = known
        except (RlhfVideoError, RewardError) as error:
            failures.append(ClipFailure(path, prompt, str(error)))
            if not scores and len(failures) >= min(_HOPELESS, len(clips)):
                raise DataError(
                    f"None of the first {len(failures)} clips could be scored; the first, '{failures[0].clip}': "
                    f"{failures[0].reason}"
                ) from error
    logger.info(
        "%d clips: %d scored now, %d known, %d failed", len(clips), len(scores) - num_known, num_known, len(failures)
    )
    return scores, tuple(failures)


def _sha256(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise DataError(f"Clip '{path}' cannot be read ({error.strerror}).") from error


@torch.no_grad()
def _score(reward: Reward, path: Path, prompt: str, device: str) -> ClipScore:
    """Decode and score one clip.

    Raises:
        RlhfVideoError: The clip cannot be decoded, or the reward declared it invalid or returned a number that is none.
        RewardError: The reward refuses the clip.
    """
    video, fps = read_video(path)
    video = video.to(device)[None]
    output = reward(video, [prompt], fps=fps)
    if not bool(output.valid[0]):
        raise DataError(f"not valid: {output.reasons[0] or 'the reward gave no reason'}")
    values = {key: float(value[0]) for key, value in output.values.items()}
    broken = [key for key, value in values.items() if not math.isfinite(value)]
    if broken:
        raise DataError(f"the reward returned {values[broken[0]]} for {', '.join(broken)}")
    return ClipScore(values=values, covariates=_covariates(video, prompt, fps))


def _covariates(video: Tensor, prompt: str, fps: float) -> dict[str, float]:
    num_frames = video.shape[1]
    motion = FrameDifference()(video, [prompt], fps=fps).values["motion"][0] if num_frames > 1 else 0.0
    return {"brightness": float(video.mean()), "motion": float(motion), "duration": num_frames / fps}
