"""How a run makes clips: fixed noise for every prompt, base or adapter, shared by all processes."""

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from rlhf_video.algorithms.config_sections import SamplingConfig
from rlhf_video.attention import AttentionConfig
from rlhf_video.backbones import VideoBackbone, VideoShape
from rlhf_video.data import ClipSize, sha256_file
from rlhf_video.diffusion.samplers import VelocityFunction, sample
from rlhf_video.diffusion.sigmas import flow_sigmas
from rlhf_video.errors import ConfigError
from rlhf_video.lora import adapter_off, adapter_scale
from rlhf_video.runtime import Distribution, generator_for
from rlhf_video.validation import Clips


def attention_file_sha256(attention: AttentionConfig) -> str | None:
    """Return the sha256 of an attention plan's file, which a config alone does not fix; None without a file.

    Raises:
        ConfigError: The file cannot be read.
    """
    if attention.file is None:
        return None
    try:
        return sha256_file(attention.file)
    except OSError as error:
        raise ConfigError(
            f"attention.file={attention.file} cannot be read ({error.strerror}): put it back, or correct the path."
        ) from error


def clip_shape(sampling: SamplingConfig, batch: int) -> VideoShape:
    """Return the clip size of a run."""
    return VideoShape(batch=batch, frames=sampling.num_frames, height=sampling.height, width=sampling.width)


def clip_seed(seed: int, prompt: str, number: int) -> int:
    """Return the noise seed of one clip of a prompt: `torch.Generator().manual_seed(it)` draws it anywhere.

    Args:
        seed: The run's seed; runs that share it share their noise clip by clip.
        prompt: What the clip shows.
        number: Which clip of the prompt, from 0.
    """
    return int(torch.randint(2**31 - 1, (), generator=generator_for(seed, "generate", prompt, number)))


def video_shape(size: ClipSize, batch: int = 1) -> VideoShape:
    """Return a batch of clips of one size."""
    return VideoShape(batch=batch, frames=size.num_frames, height=size.height, width=size.width)


def sampler_shift(sampling: SamplingConfig, backbone: VideoBackbone) -> float:
    """Return the sigma shift of a run: the config's, or the backbone's own."""
    return backbone.spec.default_shift if sampling.shift is None else sampling.shift


def sampler_sigmas(sampling: SamplingConfig, backbone: VideoBackbone) -> Tensor:
    """Return the noise levels (num_steps + 1,) of training and validation alike, on the backbone's device."""
    return flow_sigmas(sampling.num_steps, sampler_shift(sampling, backbone)).to(backbone.device)


StudentSampler = Callable[[Sequence[str], Tensor, Sequence[int], str], Tensor]
"""(prompts, noise, index of each clip's noise, name of the noise) -> clean latents."""


class ClipMaker:
    """Samples clips of the run's size; noise depends on the seed and the names of a draw alone."""

    def __init__(
        self, backbone: VideoBackbone, distribution: Distribution, sampling: SamplingConfig, *, seed: int, batch: int
    ) -> None:
        """Check the clip size.

        Args:
            backbone: The model.
            distribution: The processes that share the work.
            sampling: Size and sampler.
            seed: The run's seed.
            batch: Clips per forward pass.

        Raises:
            ConfigError: The clip size does not fit the backbone.
        """
        self.backbone, self.distribution, self.sampling = backbone, distribution, sampling
        self.sigmas = sampler_sigmas(sampling, backbone)
        self._seed, self._batch = seed, batch
        self.student: StudentSampler | None = None
        """How the adapter samples where that is not the base's way, as in distillation."""
        self.shape(1)

    def shape(self, batch: int) -> VideoShape:
        """Return the clip size of the run; a size that does not fit raises ConfigError."""
        shape = clip_shape(self.sampling, batch)
        self.backbone.spec.latent_shape(shape)  # raises where it does not fit
        return shape

    def velocity(self, prompts: Sequence[str]) -> VelocityFunction:
        """Return the guided velocity for a batch of prompts."""
        cond = self.backbone.encode_prompts(prompts, self.sampling.negative_prompt)
        guidance = self.sampling.guidance
        return lambda latents, sigma: self.backbone.velocity(latents, sigma, cond, guidance=guidance)

    def noise(self, indices: Sequence[int], *names: int | str, shape: VideoShape | None = None) -> Tensor:
        """Return starting noise; item i depends on the run's seed, the names and indices[i] only.

        Args:
            indices: Of the clips.
            names: What the noise is for.
            shape: Clip size where it is not the run's; one clip for each index.
        """
        generators = [generator_for(self._seed, *names, index) for index in indices]
        return self.backbone.noise(shape or self.shape(len(indices)), generators)

    def generator(
        self,
        prompts: Sequence[str],
        clips_per_prompt: int,
        purpose: str,
        *,
        at_base: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> Callable[[float], Clips]:
        """Return strength -> clips, what `Validator` asks for.

        Args:
            prompts: Each is sampled `clips_per_prompt` times.
            clips_per_prompt: With different noise.
            purpose: Name of the noise, so that validation and test do not share it.
            at_base: Entered around strength 0, beside switching the adapter off.
        """
        repeated = tuple(prompt for prompt in prompts for _ in range(clips_per_prompt))
        seeds = tuple(range(len(repeated)))

        def generate(scale: float) -> Clips:
            with at_base() if scale == 0.0 else contextlib.nullcontext():
                return Clips(self.clips(repeated, seeds, purpose, scale), repeated, seeds)

        return generate

    @torch.no_grad()
    def clips(self, prompts: Sequence[str], seeds: Sequence[int], purpose: str, scale: float) -> Tensor:
        """Generate clips, shared by all processes; every process makes as many forward passes (FSDP needs it).

        Args:
            prompts: One for each clip.
            seeds: Index of each clip's noise.
            purpose: Name of the noise.
            scale: Strength of the adapter; 0 is the base.

        Returns:
            Pixels in [0, 1] on the CPU, shape (n, frames, 3, height, width).
        """
        padded = len(prompts) + -len(prompts) % self.distribution.num_processes
        share = [index % len(prompts) for index in self.distribution.shard_indices(padded)]
        off = scale == 0.0
        with adapter_off(self.backbone) if off else contextlib.nullcontext(), adapter_scale(self.backbone, scale):
            parts = []
            for start in range(0, len(share), self._batch):
                batch = share[start : start + self._batch]
                chosen, numbers = [prompts[index] for index in batch], [seeds[index] for index in batch]
                noise = self.noise(numbers, purpose)
                if self.student is None or off:
                    latents = sample(self.velocity(chosen), noise, self.sigmas)
                else:
                    latents = self.student(chosen, noise, numbers, purpose)
                parts.append(self.backbone.decode(latents))
        return self.distribution.gather(torch.cat(parts))[: len(prompts)].cpu()
