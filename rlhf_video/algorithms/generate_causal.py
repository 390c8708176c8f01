"""generate.py with a causal model: which recipe a run follows, and clips that are written while they are made."""

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from rlhf_video.algorithms.generate_config import GenerateConfig, clip_shape
from rlhf_video.backbones import Conditioning, VideoBackbone, meta_backbone
from rlhf_video.backbones.causal_recipe import CausalConfig, CausalRecipe
from rlhf_video.backbones.causal_sampling import causal_backbone, sample_chunks
from rlhf_video.data import LiveVideo
from rlhf_video.errors import ConfigError
from rlhf_video.lora import read_adapter_metadata

logger = logging.getLogger(__name__)

WAN_GUIDANCE = 5.0
"""WanPipeline's default."""


def clip_recipe(config: GenerateConfig) -> CausalRecipe | None:
    """Return how a run generates causally, from config files and the adapter's header; None makes whole clips.

    Raises:
        AdapterError: The adapter's header is damaged.
        ConfigError: No recipe is known where one is asked for, the step count was not trained, or the clip's length
            does not fit.
    """
    recorded = None if config.adapter is None else CausalRecipe.from_metadata(read_adapter_metadata(config.adapter))
    if config.causal is None and recorded is None:
        if config.stream:
            raise ConfigError(
                "stream needs causal generation: a model that makes the whole clip at once has nothing to show before "
                "its end. Name an adapter that was trained causally, or set stream: false."
            )
        return None
    spec = meta_backbone(config.backbone, text_length=config.text_length).spec
    recipe = (config.causal or CausalConfig()).over(recorded, shift=spec.default_shift)
    if config.shift is not None:
        recipe = replace(recipe, shift=config.shift)
    recipe.plan(config.num_steps)
    recipe.check_length(spec.latent_shape(clip_shape(config, 1))[2])
    return recipe


def clip_guidance(config: GenerateConfig, recipe: CausalRecipe | None) -> float:
    """Return the guidance scale of a run; a scale on top of a distilled adapter's own is used with a warning."""
    if config.guidance is None:
        return WAN_GUIDANCE if recipe is None else 1.0
    if recipe is not None and recipe.steps and config.guidance != 1.0:
        logger.warning(
            "guidance=%g with an adapter distilled to %s steps: its guidance is in the adapter already. Set guidance=1 "
            "for clips as it was trained, at half the time.",
            config.guidance,
            ", ".join(map(str, recipe.steps)),
        )
    return config.guidance


@torch.no_grad()
def causal_latents(
    config: GenerateConfig, recipe: CausalRecipe, backbone: VideoBackbone, cond: Conditioning, seeds: Sequence[int]
) -> Tensor:
    """Return the latents of a batch of clips, shape (B, C, Fl, Hl, Wl)."""
    return torch.cat(list(_chunks(config, recipe, backbone, cond, seeds)), 2)


@torch.no_grad()
def streamed_clips(
    config: GenerateConfig,
    recipe: CausalRecipe,
    backbone: VideoBackbone,
    cond: Conditioning,
    clips: Sequence[tuple[int, Path | None]],
) -> None:
    """Make a batch of clips and write each one's frames as its chunks come; log latency and pace.

    Args:
        config: What to generate.
        recipe: How.
        backbone: From `load_generator`.
        cond: Encoded prompts.
        clips: Each one's seed, and its file; None writes nothing.
    """
    start = time.perf_counter()
    causal = causal_backbone(backbone, recipe)
    decoders = [causal.stream_decoder() for _ in clips]  # one each, so that the pixels do not depend on the batch
    first, num_frames = 0.0, 0
    with contextlib.ExitStack() as files:
        fps = config.fps or backbone.spec.fps
        writers = [files.enter_context(LiveVideo(file, fps)) if file is not None else None for _, file in clips]
        for chunk in _chunks(config, recipe, backbone, cond, [seed for seed, _ in clips]):
            for latents, decoder, writer in zip(chunk, decoders, writers, strict=True):
                if writer is not None:
                    pixels = decoder.decode(latents[None])[0].cpu()
                    writer.add(pixels)
                    num_frames += len(pixels)
            first = first or time.perf_counter() - start
    seconds = time.perf_counter() - start
    logger.info(
        "First frames after %.3f s, %d frames in %.3f s: %.1f frames/s",
        first,
        num_frames,
        seconds,
        num_frames / seconds,
    )


def _chunks(
    config: GenerateConfig, recipe: CausalRecipe, backbone: VideoBackbone, cond: Conditioning, seeds: Sequence[int]
) -> Iterator[Tensor]:
    return sample_chunks(
        causal_backbone(backbone, recipe),
        cond,
        recipe,
        num_steps=config.num_steps,
        shape=clip_shape(config, len(seeds)),
        generators=[torch.Generator().manual_seed(seed) for seed in seeds],
        guidance=1.0 if config.guidance is None else config.guidance,
    )
