"""Clips to be judged, and their scores as plain arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rlhf_video.errors import DataError

if TYPE_CHECKING:
    from rewards.base import Reward

Scores = dict[str, NDArray[np.float64]]
"""Score name "reward/dimension" -> one value per clip, shape (n,); NaN where the reward masked the clip."""

DIVERSITY = "diversity/pixels"
PSNR = "psnr/to_dense"
_DIVERSITY_SIDE = 16  # pixels: coarse enough that noise is not diversity


@dataclass(frozen=True)
class Clips:
    """Generated clips with the prompt and seed of each; base and adapter clips with equal seeds share their noise."""

    video: Tensor
    """Pixels in [0, 1] on the CPU, shape (n, frames, channels, height, width)."""
    prompts: tuple[str, ...]
    """Prompt of each clip, (n,); clips of one prompt form one cluster."""
    seeds: tuple[int, ...]
    """Noise seed of each clip, (n,)."""

    def __post_init__(self) -> None:
        """Check that everything has one entry per clip."""
        if self.video.ndim != 5:
            raise DataError(f"Clips of shape {tuple(self.video.shape)} must be (n, frames, channels, height, width).")
        if not len(self.video) == len(self.prompts) == len(self.seeds):
            counts = f"{len(self.video)} clips, {len(self.prompts)} prompts and {len(self.seeds)} seeds"
            raise DataError(f"{counts} do not match: give one prompt and one seed per clip.")

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.video)

    @property
    def clusters(self) -> NDArray[np.int64]:
        """Index of each clip's prompt, in order of first appearance, shape (n,)."""
        index = {prompt: number for number, prompt in enumerate(dict.fromkeys(self.prompts))}
        return np.array([index[prompt] for prompt in self.prompts], dtype=np.int64)


@torch.no_grad()
def score_clips(
    clips: Clips,
    rewards: Mapping[str, "Reward"],
    *,
    fps: float,
    batch: int = 16,
    device: torch.device | str = "cpu",
) -> Scores:
    """Return every reward's scores of every clip.

    Args:
        clips: Clips to score.
        rewards: Name -> reward; the name becomes the first half of the score's key.
        fps: Frames per second of the clips.
        batch: Clips per call of a reward.
        device: Where the rewards live; clips are moved there batch by batch.

    Returns:
        "name/dimension" -> scores, shape (n,), float64, NaN where the reward declared the clip invalid.

    Raises:
        DataError: There is no clip, or a reward masked all of them (with its first reason).
    """
    if not len(clips):
        raise DataError("There is no clip to score: generate at least one per prompt.")
    scores: Scores = {}
    for name, reward in rewards.items():
        parts: dict[str, list[Tensor]] = {}
        reasons: list[str] = []
        for start in range(0, len(clips), batch):
            video = clips.video[start : start + batch].to(device)
            output = reward(video, list(clips.prompts[start : start + batch]), fps=fps)
            valid = output.valid.cpu()
            reasons += [reason for reason in output.reasons if reason is not None]
            for dimension, values in output.values.items():
                masked = values.detach().double().cpu().masked_fill(~valid, float("nan"))
                parts.setdefault(f"{name}/{dimension}", []).append(masked)
        for key, chunks in parts.items():
            scores[key] = torch.cat(chunks).numpy()
            if np.isnan(scores[key]).all():
                reason = reasons[0] if reasons else "no reason given"
                raise DataError(f"Reward '{name}' scored none of the {len(clips)} clips ({reason}): remove or mend it.")
    return scores


def diversity_scores(clips: Clips) -> Scores:
    """Return each clip's mean distance to the other clips of its prompt, under the key "diversity/pixels".

    The distance is the root mean square over pixels averaged to 16x16, in [0, 1]; its mean over a prompt's clips is the
    mean pairwise distance. A model that collapses to one clip per prompt scores 0.

    Args:
        clips: Clips; prompts with a single clip get NaN.

    Returns:
        Empty when no prompt has two clips, else one array of shape (n,).
    """
    frames = clips.video.flatten(0, 1).float()
    side = (min(_DIVERSITY_SIDE, frames.shape[-2]), min(_DIVERSITY_SIDE, frames.shape[-1]))
    small = functional.adaptive_avg_pool2d(frames, side).unflatten(0, clips.video.shape[:2]).flatten(1).double()
    clusters = torch.from_numpy(clips.clusters)
    values = torch.full((len(clips),), float("nan"), dtype=torch.float64)
    for cluster in clusters.unique():
        members = (clusters == cluster).nonzero()[:, 0]
        if len(members) > 1:
            # The matrix-product shortcut of cdist loses digits on nearly equal clips.
            distances = torch.cdist(small[members], small[members], compute_mode="donot_use_mm_for_euclid_dist")
            distances = distances / small.shape[1] ** 0.5
            values[members] = distances.sum(dim=1) / (len(members) - 1)
    return {} if bool(values.isnan().all()) else {DIVERSITY: values.numpy()}


def psnr_scores(clips: Clips, reference: Clips) -> Scores:
    """Return each clip's peak signal-to-noise ratio to the reference clip of its prompt and seed, in decibels.

    Args:
        clips: Clips to measure.
        reference: Clips of the same prompts and seeds, in the same order.

    Returns:
        "psnr/to_dense" -> shape (n,), at most 100 (equal clips).

    Raises:
        DataError: The two differ in prompts, seeds or size.
    """
    same = clips.prompts == reference.prompts and clips.seeds == reference.seeds
    if not same or clips.video.shape != reference.video.shape:
        raise DataError("PSNR compares clips of equal prompt, seed and size: generate both sets alike.")
    error = (clips.video.double() - reference.video.double()).square().flatten(1).mean(dim=1)
    return {PSNR: (-10 * error.clamp(min=1e-10).log10()).numpy()}


def join_scores(parts: Sequence[Scores]) -> Scores:
    """Return one score table of several; a name that occurs twice raises DataError."""
    joined: Scores = {}
    for part in parts:
        for key, values in part.items():
            if key in joined:
                raise DataError(f"Score '{key}' is computed twice: give one of the two rewards another name.")
            joined[key] = values
    return joined
