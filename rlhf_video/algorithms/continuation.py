"""Learning to go on: clips longer than the run's, chunk by chunk on the cache that a roll-out has.

Teacher forcing under a mask gives every frame one position, so it ends where the window does: behind it a roll-out's
sink and window move together. Here a given clip is walked through as a roll-out walks, with the same cache, window,
sink and positions, at any length:

    for each chunk x_k of a long clip
        beyond the run's own length:
            noise e, level s; z <- (1 - s) x_k + s e; v <- velocity(z, s, c; cache)
            loss  <- |v - (e - x_k)|^2
        past  <- x_k, or for a share of the clips what the student made of it, z - s v
        cache <- cache + keys and values of past

The own past is what later chunks see in inference; the clip says where they should be none the less (scheduled
sampling, arXiv:1506.03099; Self-Forcing's gap between training and inference, arXiv:2506.08009).
"""

import torch
from torch import Tensor

from rlhf_video.algorithms.asd_config import AsdConfig
from rlhf_video.algorithms.asd_student import Student
from rlhf_video.algorithms.learner import StepMetrics
from rlhf_video.algorithms.sft_data import EncodedClips
from rlhf_video.algorithms.world import World
from rlhf_video.backbones.causal_rollout import ForcedRollout
from rlhf_video.diffusion.flow import expand_sigma, interpolate, velocity_error, velocity_target
from rlhf_video.diffusion.sigmas import shift_sigma
from rlhf_video.lora.roles import role
from rlhf_video.runtime import Distribution, deck_batch, generator_for


class Continuation:
    """The loss of going on beyond the run's own clip length, on given clips."""

    def __init__(self, config: AsdConfig, world: World, student: Student, clips: EncodedClips) -> None:
        """Encode the clips that are not encoded yet; call it on every process."""
        assert config.continuation is not None
        self._config, self._settings = config, config.continuation
        self._world, self._student, self._clips = world, student, clips
        clips.encode()
        num_own = world.backbone.spec.num_latent_frames(config.sampling.num_frames)
        num_frames = world.backbone.spec.num_latent_frames(self._settings.num_frames)
        self._chunks = config.causal.chunks(num_frames)
        self._first = num_own // config.causal.chunk_frames  # the first chunk that reaches beyond the run's own length

    def backward(self, distribution: Distribution, metrics: StepMetrics, *, step: int) -> None:
        """Add the gradient of the weighted loss, a mean over the global batch; more backward passes must follow.

        Args:
            distribution: Its processes share the batch.
            metrics: Where the loss goes.
            step: Optimiser step; with the seed it decides clips, noise, levels and pasts.
        """
        count = self._config.batch.global_clips
        order = deck_batch(len(self._clips), count, step=step, seed=self._config.seed, name="continued clips")
        share = list(distribution.shard_indices(count))
        for places in self._config.batch.micro_batches(share):
            with role(self._student.backbone, "student"):  # a recomputed block must find the student
                errors = self.errors([order[place] for place in places], places, step=step)
                metrics.add("loss/continuation", errors)
                distribution.backward(self._settings.weight * errors.sum() / len(share), last=False)

    def errors(self, indices: list[int], places: list[int], *, step: int) -> Tensor:
        """Return the squared velocity error of each clip, a mean over its later chunks, shape (batch,).

        Args:
            indices: Clips.
            places: Their places in the global batch, which name the noise.
            step: Optimiser step.
        """
        config, backbone = self._config, self._student.backbone
        clean = self._clips.latents(indices)
        noise = self._world.maker.noise(places, "continuation", step, shape=self._clips.shape(indices))
        again = self._world.maker.noise(places, "continuation, past", step, shape=self._clips.shape(indices))
        levels, takes_own = self._draws(places, step)
        rollout = ForcedRollout(backbone, clean, backbone.encode_prompts([self._clips.prompts[i] for i in indices]))
        errors = []
        for number, frames in enumerate(self._chunks):
            past = chunk = clean[:, :, frames]
            if number >= self._first:
                sigma = levels[:, number].to(clean.device)
                noised = interpolate(chunk, noise[:, :, frames], sigma)
                predicted = rollout.velocity(noised, sigma)
                errors.append(velocity_error(predicted, velocity_target(chunk, noise[:, :, frames])))
                own = (noised - expand_sigma(sigma, noised) * predicted).detach()
                past = torch.where(takes_own[:, number].view(-1, 1, 1, 1, 1).to(clean.device), own, chunk)
            if number + 1 < len(self._chunks):
                following, level = self._chunks[number + 1], config.rollout.context_noise
                read = interpolate(past, again[:, :, frames], torch.tensor(level)) if level else past
                rollout.remember(read, level, next_chunk=following.stop - following.start)
        return torch.stack(errors).mean(dim=0)

    def _draws(self, places: list[int], step: int) -> tuple[Tensor, Tensor]:
        """Return each chunk's noise level, and whether its own estimate becomes the past; both (batch, chunks)."""
        settings, count = self._settings, len(self._chunks)
        generators = [generator_for(self._config.seed, "continuation", step, place) for place in places]
        free = torch.stack([torch.rand(3, count, generator=generator) for generator in generators])
        levels = torch.where(free[:, 0] < settings.first_state_share, 1.0, shift_sigma(free[:, 1], self._world.shift))
        return levels, free[:, 2] < settings.own_past_share
