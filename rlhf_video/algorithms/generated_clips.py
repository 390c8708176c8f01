"""Clips that the dense base generates for itself, kept as latents: made once, a killed run goes on."""

import hashlib
import json
import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from rlhf_video.algorithms.world import World, WorldConfig
from rlhf_video.data import LatentCache
from rlhf_video.diffusion.samplers import rollout
from rlhf_video.lora import adapter_off
from rlhf_video.settings import to_plain

logger = logging.getLogger(__name__)


class GeneratedClips:
    """Latents of clips of the dense base, with their prompts, or all states that its sampler went through."""

    def __init__(
        self, config: WorldConfig, world: World, prompts: Sequence[str], *, purpose: str, keeps_states: bool
    ) -> None:
        """Generate what is not on disk yet; call it on every process; adapters are off meanwhile.

        Batches are cut the same way whatever is there already, so the latents are the same bits on any number of
        processes.

        Args:
            config: The run.
            world: Its model and sampler.
            prompts: Prompt of each clip.
            purpose: Name of the noise.
            keeps_states: Keep all states, from noise to clean, not the clean latents alone.
        """
        self.prompts, self._world, self._keeps_states = tuple(prompts), world, keeps_states
        self._cache = LatentCache(config.output_dir / "generated")
        facts = (config.backbone, to_plain(config.sampling), config.precision, config.seed, config.validation.batch)
        self._keys = [
            hashlib.sha256(json.dumps([facts, purpose, keeps_states, index, prompt]).encode()).hexdigest()[:24]
            for index, prompt in enumerate(prompts)
        ]
        self._generate(config.validation.batch, purpose)

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.prompts)

    def latents(self, indices: Sequence[int]) -> Tensor:
        """Return clean latents, shape (len(indices), channels, Fl, Hl, Wl), on the model's device."""
        rows = [len(self._world.maker.sigmas) - 1] if self._keeps_states else [0]
        return self.states(indices, rows * len(indices))

    def states(self, indices: Sequence[int], rows: Sequence[int]) -> Tensor:
        """Return one state of each clip; row i of a kept roll-out is at noise level sigmas[i]."""
        keys = [self._keys[index] for index in indices]
        return self._cache.read_rows(keys, rows).to(self._world.backbone.device)

    @torch.no_grad()
    def _generate(self, size: int, purpose: str) -> None:
        distribution, backbone = self._world.distribution, self._world.backbone
        batches = [list(range(len(self)))[start : start + size] for start in range(0, len(self), size)]
        todo = [batch for batch in batches if any(self._keys[index] not in self._cache for index in batch)]
        todo = distribution.broadcast_object(todo)
        with adapter_off(backbone), backbone.dense_attention():
            for done, batch in enumerate(todo[distribution.rank :: distribution.num_processes]):
                noise = self._world.maker.noise(batch, purpose)
                velocity = self._world.maker.velocity([self.prompts[index] for index in batch])
                trajectory = rollout(velocity, noise, self._world.maker.sigmas)
                states = torch.stack(trajectory if self._keeps_states else trajectory[-1:], dim=1)
                for index, value in zip(batch, states, strict=True):
                    self._cache.write(self._keys[index], value)
                logger.info("The dense base has generated batch %d of %d for %s", done + 1, len(todo), purpose)
        distribution.barrier()
