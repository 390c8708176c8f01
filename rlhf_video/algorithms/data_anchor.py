"""A plain flow-matching loss on given clips beside the reward: the forward-KL anchor of DDRL (arXiv:2512.04332)."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from rlhf_video.algorithms.reward_bp_config import RewardBpConfig
from rlhf_video.algorithms.reward_bp_setup import World
from rlhf_video.data import read_video
from rlhf_video.diffusion.flow import interpolate, velocity_target
from rlhf_video.diffusion.sigmas import shift_sigma
from rlhf_video.errors import DataError
from rlhf_video.runtime import generator_for


class DataAnchor:
    """Encoded clips with their prompts, and the loss of a few of them per optimiser step."""

    def __init__(self, config: RewardBpConfig, world: World, latents: Tensor, prompts: tuple[str, ...]) -> None:
        self._config, self._world = config, world
        self._latents, self._prompts = latents, prompts

    @classmethod
    def open(cls, config: RewardBpConfig, world: World) -> "DataAnchor | None":
        """Read and encode the clips of the manifest; None where the anchor is off.

        Raises:
            DataError: The manifest or a clip is missing or malformed, or a clip's size is not the sampling size.
        """
        if config.data_anchor.weight == 0 or config.data_anchor.manifest is None:
            return None
        entries = _read_manifest(config.data_anchor.manifest)
        wanted = (config.sampling.num_frames, 3, config.sampling.height, config.sampling.width)
        latents = []
        for file, _ in entries:
            video = read_video(file)[0]
            if tuple(video.shape) != wanted:
                raise DataError(
                    f"data_anchor: '{file}' has shape {tuple(video.shape)} (frames, channels, height, width), the "
                    f"sampling size is {wanted}: generate the anchor clips with the same size."
                )
            with torch.no_grad():
                latents.append(world.backbone.encode(video[None]).cpu())
        prompts = tuple(prompt for _, prompt in entries)
        for prompt in prompts:
            world.backbone.encode_prompts([prompt])
        world.backbone.release_text_encoder()
        return cls(config, world, torch.cat(latents), prompts)

    def backward(self, step: int, backward: Callable[[Tensor], None]) -> float:
        """Back-propagate this process's share of the step's loss; return it.

        Args:
            step: Optimiser step; with the seed it decides clips, noise and noise levels.
            backward: Called once with the weighted loss, the mean over this process's clips.
        """
        config, device = self._config, self._world.backbone.device
        share = self._world.distribution.shard_indices(config.data_anchor.clips_per_step)
        chosen, sigmas, noises = [], [], []
        for index in share:
            generator = generator_for(config.seed, "anchor", step, index)
            chosen.append(int(torch.randint(len(self._prompts), (1,), generator=generator)))
            sigmas.append(torch.rand((), generator=generator))
            noises.append(torch.randn(self._latents.shape[1:], generator=generator))
        clean, noise = self._latents[chosen].to(device), torch.stack(noises).to(device)
        shift = config.sampling.shift or self._world.backbone.spec.default_shift
        sigma = shift_sigma(torch.stack(sigmas), shift).to(device)
        cond = self._world.backbone.encode_prompts([self._prompts[index] for index in chosen])
        velocity = self._world.backbone.velocity(interpolate(clean, noise, sigma), sigma, cond)
        loss = config.data_anchor.weight * (velocity.float() - velocity_target(clean, noise)).square().mean()
        backward(loss)
        return float(loss.detach())


def _read_manifest(path: Path) -> list[tuple[Path, str]]:
    if not path.is_file():
        raise DataError(f"data_anchor.manifest '{path}' does not exist: write one with rlhf_video/generate.py.")
    try:
        clips = json.loads(path.read_text(encoding="utf-8"))["clips"]
        entries = [(path.parent / clip["file"], str(clip["prompt"])) for clip in clips]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f'data_anchor.manifest \'{path}\' is not a manifest ({error}): it needs {{"clips": [{{"file": ..., '
            '"prompt": ...}, ...]}.'
        ) from error
    if not entries:
        raise DataError(f"data_anchor.manifest '{path}' lists no clips.")
    return entries
