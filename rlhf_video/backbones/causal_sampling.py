"""Clips from a causal model: the roll-out with noise from a clip's seed, for generate.py and the pipeline alike."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rlhf_video.backbones.base import Conditioning, VideoBackbone, VideoShape
from rlhf_video.backbones.causal_recipe import CausalRecipe
from rlhf_video.backbones.causal_rollout import CallCount, FreshNoise, roll_out
from rlhf_video.backbones.wan import WanBackbone
from rlhf_video.errors import ConfigError

Generators = torch.Generator | Sequence[torch.Generator]
"""One CPU generator for the batch, or one for each clip (a clip then does not depend on batching)."""


def causal_backbone(backbone: VideoBackbone, recipe: CausalRecipe) -> WanBackbone:
    """Return a backbone that is ready for the recipe's roll-outs.

    Raises:
        ConfigError: It is no Wan model, or the layout does not go with it or its attention plan.
    """
    if not isinstance(backbone, WanBackbone):
        raise ConfigError(f"Causal roll-outs are built for Wan, not for {backbone.spec.model_class}.")
    backbone.enable_causal(recipe.layout)
    return backbone


@torch.no_grad()
def sample_chunks(
    backbone: WanBackbone,
    cond: Conditioning,
    recipe: CausalRecipe,
    *,
    num_steps: int,
    shape: VideoShape,
    generators: Generators,
    guidance: float = 1.0,
    count: CallCount | None = None,
) -> Iterator[Tensor]:
    """Generate clips chunk by chunk.

    Args:
        backbone: From `causal_backbone`, with the adapter that generates.
        cond: Encoded prompts.
        recipe: How.
        num_steps: Calls for a chunk.
        shape: Clip size in pixels.
        generators: First the noise of the whole clip is drawn, then the noise between steps, as it is needed.
        guidance: Scale; 1 runs the conditional model alone.
        count: Where calls are counted.

    Yields:
        Clean latents of each chunk, shape (B, C, chunk, Hl, Wl).

    Raises:
        ConfigError: The step count was not trained, or the clip size does not fit.
    """
    plan = recipe.plan(num_steps)
    recipe.check_length(backbone.spec.latent_shape(shape)[2])
    noise = backbone.noise(shape, generators)
    yield from roll_out(
        backbone,
        noise,
        cond,
        plan,
        _fresh_noise(noise, generators),
        config=recipe.rollout,
        guidance=guidance,
        cache_text=True,
        count=count,
    )


def _fresh_noise(noise: Tensor, generators: Generators) -> FreshNoise:
    """Return noise that goes on where the starting noise left the generators."""
    batch, channels, _, height, width = noise.shape

    def draw(chunk: int, step: int, frames: slice) -> Tensor:
        one = (channels, frames.stop - frames.start, height, width)
        if isinstance(generators, torch.Generator):
            return torch.randn((batch, *one), generator=generators).to(noise.device)
        return torch.stack([torch.randn(one, generator=each) for each in generators]).to(noise.device)

    return draw
