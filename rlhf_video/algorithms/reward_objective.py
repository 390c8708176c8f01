"""From latents to the gradient of the rewards: decode, score, and back through the decoder."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rewards.base import RewardOutput
from rewards.composite import WeightedReward
from rlhf_video.algorithms.reward_bp_config import DecodeConfig
from rlhf_video.backbones import VideoBackbone


@dataclass(frozen=True)
class LatentGradient:
    """Scores of a batch and the gradient of their sum with respect to the clean latents."""

    output: RewardOutput
    gradient: Tensor
    """(batch, channels, Fl, Hl, Wl), float32; zero for clips that a reward masked."""
    shares: dict[str, float]
    """Per reward, its share of the pixel gradient, in [0, 1]."""


class RewardObjective:
    """The weighted, normalised reward as a function of latents."""

    def __init__(self, backbone: VideoBackbone, reward: WeightedReward, decode: DecodeConfig) -> None:
        """Bind a reward to the decoder.

        Args:
            backbone: Decodes; its text encoder and transformers are not used.
            reward: Weighted sum, with its normalisation set before the first call.
            decode: Which latent frames, and how the clamp treats the gradient.
        """
        self._backbone = backbone
        self.reward = reward
        self._decode = decode

    def latent_frames(self, num_latent_frames: int) -> tuple[int, ...]:
        """Return the latent frames that are decoded for the reward.

        A whole-clip setting with rewards that all look at the first pictures only decodes just those: the decoder is
        causal, so they are the same pictures.
        """
        frames = self._decode.frames
        if frames == "first":
            return (0,)
        if frames != "whole":
            return tuple(frames)
        policy = self.reward.spec.frames
        count = num_latent_frames
        if policy.kind == "first":
            pictures = policy.count or 1
            count = next(n for n in range(1, count + 1) if n == count or self._backbone.spec.num_frames(n) >= pictures)
        return tuple(range(count))

    def pixel_frames(self, num_latent_frames: int) -> list[int]:
        """Return the numbers of the pictures that the reward sees, out of a whole clip's."""
        runs = (
            self._backbone.spec.pixel_frames(slice(frame, frame + 1)) for frame in self.latent_frames(num_latent_frames)
        )
        return [picture for run in runs for picture in range(run.start, run.stop)]

    def gradient(self, latents: Tensor, prompts: Sequence[str]) -> LatentGradient:
        """Score clean latents and differentiate the sum over clips of the weighted reward.

        The pixel gradient is taken first, one reward's graph at a time; then the decoder's vector-Jacobian product
        carries it to the latents, one latent frame's graph at a time. The two are never in memory together.

        Args:
            latents: Clean latents (batch, channels, Fl, Hl, Wl); their graph, if any, is not touched.
            prompts: One per clip.
        """
        leaf = latents.detach().requires_grad_()
        with torch.enable_grad():
            video = self._backbone.decode_chunked(
                leaf,
                frames=self.latent_frames(latents.shape[2]),
                clamp=self._decode.clamp,
                cache_every=self._decode.cache_every,
                cache_on_cpu=self._decode.cache_on_cpu,
            )
        scored = self.reward.pixel_gradient(video.detach(), prompts, fps=self._backbone.spec.fps)
        (gradient,) = torch.autograd.grad(video, leaf, scored.gradient)
        return LatentGradient(scored.output, gradient.float(), scored.shares)
