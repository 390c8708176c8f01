"""What runs the model for pairs: sampling with fixed noise, and two aligned copies by partial re-noising.

Clips are cut into the same batches on any number of processes and after any kill, so files are the same to the byte.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from rlhf_video.algorithms.clip_maker import clip_shape, sampler_shift, sampler_sigmas
from rlhf_video.algorithms.pair_building_clips import Batch, Item, PromptClip, Records, Shelf
from rlhf_video.algorithms.pair_building_config import PairBuildingConfig
from rlhf_video.backbones import VideoBackbone, load_backbone
from rlhf_video.data import read_video
from rlhf_video.diffusion.flow import interpolate
from rlhf_video.diffusion.samplers import sample
from rlhf_video.diffusion.sigmas import sigmas_from
from rlhf_video.lora import adapter_scale, load_adapter
from rlhf_video.runtime import Distribution, generator_for

logger = logging.getLogger(__name__)


def load_model(config: PairBuildingConfig, device: torch.device) -> VideoBackbone:
    """Load backbone and adapter, under the attention plan of the config, else the adapter's, else dense.

    Raises:
        BackboneError, AdapterError, ConfigError: The model, the adapter, the plan or the clip size does not fit.
    """
    assert config.backbone is not None
    backbone = load_backbone(
        config.backbone,
        device=device,
        dtype=getattr(torch, config.precision),
        text_length=config.sampling.text_length,
    )
    shape = clip_shape(config.sampling, 1)
    backbone.spec.latent_shape(shape)  # raises where it does not fit
    if config.attention is not None:
        backbone.apply_attention(backbone.plan_for(config.attention, shape), backend=config.attention.backend)
    if config.adapter is not None:
        load_adapter(backbone, config.adapter, attention="apply" if config.attention is None else "ignore")
    if config.vae_tiling:
        backbone.enable_tiling()
    return backbone


def make_batches(
    config: PairBuildingConfig,
    batches: Sequence[Sequence[Item]],
    *,
    shelf: Shelf,
    records: Records,
    distribution: Distribution,
) -> None:
    """Make what is not there yet, every process its own batches; call it on every process.

    Args:
        config: The run.
        batches: All clips, cut as they are sampled.
        shelf: Where clips go.
        records: Where it is kept that a batch is finished: a kill loses the batches that were being made.
        distribution: The processes.
    """
    own = range(distribution.rank, len(batches), distribution.num_processes)
    todo = [number for number in own if records.read(number) is None]
    logger.info("%d batches of clips, %d of this process's %d to go", len(batches), len(todo), len(own))
    if todo:
        backbone = load_model(config, distribution.accelerator.device)
        for prompt in dict.fromkeys(item.prompt for number in todo for item in batches[number]):
            backbone.encode_prompts([prompt], config.sampling.negative_prompt)
        backbone.release_text_encoder()
        for number in tqdm(todo, unit="batch", disable=None if distribution.is_main else True):
            items = batches[number]
            if config.source == "partial_renoising":
                make = _renoised
            else:
                make = _generated if items[0].given is None else _filed
            with torch.no_grad(), adapter_scale(backbone, config.adapter_scale):
                records.write(number, make(config, items, number, shelf, backbone))
    distribution.barrier()


def _generated(
    config: PairBuildingConfig, items: Sequence[Item], number: int, shelf: Shelf, backbone: VideoBackbone
) -> Batch:
    """Sample one clip for each item."""
    latents = _sampled(config, items, backbone)
    facts = _facts(config, items, backbone)
    return tuple(
        PromptClip(item.prompt, shelf.write(item.name, latent, backbone, seed=item.seed, **facts))
        for item, latent in zip(items, latents, strict=True)
    )


def _filed(
    config: PairBuildingConfig, items: Sequence[Item], number: int, shelf: Shelf, backbone: VideoBackbone
) -> Batch:
    """File given clips as generated ones are: their own file, or latents."""
    size, filed = config.sampling, []
    for item in items:
        assert item.given is not None
        video, fps = read_video(item.given)
        facts = {"num_frames": size.num_frames, "height": size.height, "width": size.width, "fps": fps}
        if config.save.format == "video":
            record = shelf.copy(item.name, item.given, **facts)
        else:
            record = shelf.write(item.name, backbone.encode(video[None].to(backbone.device))[0], backbone, **facts)
        filed.append(PromptClip(item.prompt, record))
    return tuple(filed)


def _renoised(
    config: PairBuildingConfig, items: Sequence[Item], number: int, shelf: Shelf, backbone: VideoBackbone
) -> Batch:
    """Return two copies of each item's clip, one after the other (DenseDPO, arXiv:2506.03517, algorithm 2).

    Both start from (1 - level) clip + level noise, with a noise each, and are denoised by the rest of the schedule.
    """
    span = config.renoising
    share = float(torch.rand((), generator=generator_for(config.seed, "renoising level", number)))
    level = span.lowest + (span.highest - span.lowest) * share
    clean = _given(items, backbone) if items[0].given is not None else _sampled(config, items, backbone)
    sigmas = sigmas_from(level, sampler_sigmas(config.sampling, backbone))
    facts = _facts(config, items, backbone)
    facts["sampler"] |= {"renoised_to": level}
    copies: list[list[PromptClip]] = []
    for side in ("a", "b"):
        seeds = [int(torch.randint(2**31 - 1, (), generator=generator_for(item.seed, "copy", side))) for item in items]
        noise = _noise(config, seeds, backbone)
        latents = sample(_velocity(config, items, backbone), interpolate(clean, noise, sigmas[0]), sigmas)
        copies.append(
            [
                PromptClip(item.prompt, shelf.write(f"{item.name}-{side}", latent, backbone, seed=seed, **facts))
                for item, seed, latent in zip(items, seeds, latents, strict=True)
            ]
        )
    return tuple(clip for pair in zip(*copies, strict=True) for clip in pair)


def _sampled(config: PairBuildingConfig, items: Sequence[Item], backbone: VideoBackbone) -> Tensor:
    noise = _noise(config, [item.seed for item in items], backbone)
    return sample(_velocity(config, items, backbone), noise, sampler_sigmas(config.sampling, backbone))


def _given(items: Sequence[Item], backbone: VideoBackbone) -> Tensor:
    videos = [read_video(item.given)[0] for item in items if item.given is not None]
    return torch.cat([backbone.encode(video[None].to(backbone.device)) for video in videos])


def _noise(config: PairBuildingConfig, seeds: Sequence[int], backbone: VideoBackbone) -> Tensor:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return backbone.noise(clip_shape(config.sampling, len(seeds)), generators)


def _velocity(config: PairBuildingConfig, items: Sequence[Item], backbone: VideoBackbone) -> Any:
    cond = backbone.encode_prompts([item.prompt for item in items], config.sampling.negative_prompt)
    guidance = _guidance(config, items)
    return lambda latents, sigma: backbone.velocity(latents, sigma, cond, guidance=guidance)


def _guidance(config: PairBuildingConfig, items: Sequence[Item]) -> float:
    """Return the guidance of a batch; all its items have the same."""
    own = items[0].guidance
    return config.sampling.guidance if own is None else own


def _facts(config: PairBuildingConfig, items: Sequence[Item], backbone: VideoBackbone) -> dict[str, Any]:
    """Return what the records of all generated clips of a batch share."""
    size = config.sampling
    sampler: dict[str, object] = {
        "name": "flow_euler",
        "num_steps": size.num_steps,
        "guidance": _guidance(config, items),
        "shift": sampler_shift(size, backbone),
        "precision": config.precision,
    }
    if size.negative_prompt:
        sampler["negative_prompt"] = size.negative_prompt
    if config.adapter is not None:
        sampler["adapter_scale"] = config.adapter_scale
    return {
        "model": config.backbone,
        "adapter": None if config.adapter is None else str(config.adapter),
        "sampler": sampler,
        "num_frames": size.num_frames,
        "height": size.height,
        "width": size.width,
        "fps": float(backbone.spec.fps),
    }
