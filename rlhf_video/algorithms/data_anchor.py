"""A plain flow-matching loss on given clips beside the reward: the forward-KL anchor of DDRL (arXiv:2512.04332)."""

from collections.abc import Callable

import torch
from torch import Tensor

from rlhf_video.algorithms.reward_bp_config import RewardBpConfig
from rlhf_video.algorithms.reward_bp_setup import World
from rlhf_video.data import read_clip_list
from rlhf_video.diffusion.flow import interpolate, velocity_target
from rlhf_video.diffusion.sigmas import shift_sigma
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
        entries = read_clip_list(config.data_anchor.manifest, field="data_anchor.manifest")
        size, latents = config.sampling, []
        for entry in entries:
            video = entry.read((size.num_frames, 3, size.height, size.width), field="data_anchor.manifest")
            with torch.no_grad():
                latents.append(world.backbone.encode(video[None]).cpu())
        prompts = tuple(entry.prompt for entry in entries)
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
