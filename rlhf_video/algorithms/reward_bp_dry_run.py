"""--dry-run: shapes, trainable parameters and a memory plan, from config files alone on the meta device."""

import math
import textwrap
from typing import Any, cast

import torch
from torch import Tensor

from rlhf_video.algorithms.dry_run import activations, config_folder
from rlhf_video.algorithms.gradient_estimators import choose_steps
from rlhf_video.algorithms.reward_bp_config import RewardBpConfig
from rlhf_video.backbones import VideoBackbone, VideoShape, meta_backbone
from rlhf_video.lora import attach
from rlhf_video.lora.files import DENSE
from rlhf_video.report.markdown import markdown_table
from rlhf_video.runtime import generator_for


def describe(config: RewardBpConfig) -> str:
    """Return what a run would build, as text; allocates nothing, needs no weights.

    Raises:
        BackboneError: There are neither weights nor config files of the backbone.
        ConfigError: Sizes or steps do not fit.
    """
    backbone = meta_backbone(config_folder(config.backbone), dtype=getattr(torch, config.precision))
    frozen = sum(p.numel() for module in backbone.transformers.values() for p in module.parameters())
    trainable = sum(p.numel() for p in attach(backbone, config.lora, seed=config.seed))
    sampling = config.sampling
    shape = VideoShape(batch=1, frames=sampling.num_frames, height=sampling.height, width=sampling.width)
    latent, grid = backbone.spec.latent_shape(shape), backbone.token_grid(shape)
    tokens = grid.num_tokens
    plan = backbone.plan_for(config.attention, shape)
    attention = DENSE if plan.is_full else plan.describe(grid)
    steps = choose_steps(config.estimator, sampling.num_steps, generator_for(config.seed, "active steps", 0))
    micro = max(config.batch.global_prompts // config.batch.accumulation, 1)
    lines = [
        f"{config.backbone}: {backbone.spec.model_class}, {frozen / 1e6:.1f} M parameters frozen in {config.precision}",
        f"video            ({sampling.num_frames}, 3, {sampling.height}, {sampling.width}) at {backbone.spec.fps} fps",
        f"latents          {latent[1:]}, {tokens} tokens",
        f"attention        {textwrap.indent(attention, 17 * ' ').lstrip()}",
        f"adapter          rank {config.lora.rank}, alpha {config.lora.alpha:g}: {trainable} trainable parameters",
        f"batch            {config.batch.global_prompts} clips a step over all processes, "
        f"{micro} at a time on one process (accumulation {config.batch.accumulation})",
        f"estimator        {config.estimator.name}: steps {list(steps.indices)} of {sampling.num_steps} at step 0",
        f"rewards          {', '.join(term.key for term in config.rewards)}; "
        f"held out: {', '.join(term.key for term in config.held_out) or 'none'}",
        "",
        "Memory plan of one process, reward models, text encoder and kernel workspace not counted:",
        markdown_table(("part", "GiB"), memory_plan(config, backbone, frozen, trainable, tokens, micro), align="lr"),
    ]
    return "\n".join(lines)


def memory_plan(
    config: RewardBpConfig, backbone: VideoBackbone, frozen: int, trainable: int, tokens: int, micro: int
) -> list[tuple[str, str]]:
    """Return (part, GiB) rows; the transformer pass and the decoder pass never overlap, so the larger one counts.

    Args:
        config: The run.
        backbone: On the meta device.
        frozen: Parameters of the transformers.
        trainable: Parameters of the adapter.
        tokens: Transformer tokens of a clip.
        micro: Clips in one forward pass.
    """
    width = torch.finfo(backbone.dtype).bits // 8
    passes = 1 if config.sampling.guidance == 1.0 else 2
    kept, block = activations(backbone, micro * passes * tokens, recompute=config.gradient_checkpointing)
    sampling = config.sampling
    shape = VideoShape(batch=micro, frames=sampling.num_frames, height=sampling.height, width=sampling.width)
    latent = backbone.spec.latent_shape(shape)
    cache, chunk = decoder_sizes(backbone, latent)
    num_borders = 1 if config.decode.frames == "first" else -(-latent[2] // config.decode.cache_every)
    pixels = 2 * 4 * math.prod((micro, sampling.num_frames, 3, sampling.height, sampling.width))
    recomputed = (min(config.decode.cache_every, latent[2]) - 1) * cache
    waiting = num_borders * cache
    on_device = cache + recomputed if config.decode.cache_on_cpu else waiting + recomputed
    decoder_pass = chunk + on_device + pixels
    parts = {
        f"frozen transformer ({config.precision})": frozen * width,
        "autoencoder (float32)": 4 * sum(p.numel() for p in backbone.vae.parameters()),
        "adapter, gradient, Adam, average (float32)": 20 * trainable,
        "stored states of the roll-out": 4 * (sampling.num_steps + 1) * math.prod(latent),
        "transformer pass: kept activations (estimate)": kept + (block if config.gradient_checkpointing else 0),
        "decoder pass: graph of one latent frame": chunk,
        f"decoder pass: cache at {num_borders} borders" + (" (host)" if config.decode.cache_on_cpu else ""): waiting,
        "decoder pass: caches recomputed between borders": recomputed,
        "decoder pass: pixels and their gradient": pixels,
    }
    steady = list(parts.values())[:4]
    total = sum(steady) + max(kept + block, decoder_pass)
    return [(name, f"{size / 2**30:.3f}") for name, size in parts.items()] + [("peak, about", f"{total / 2**30:.3f}")]


def decoder_sizes(backbone: VideoBackbone, latent: tuple[int, int, int, int, int]) -> tuple[int, int]:
    """Return the bytes of one cache and of one latent frame's graph, counted on the meta device.

    Args:
        backbone: On the meta device.
        latent: Shape of the latents (batch, channels, Fl, Hl, Wl).
    """
    batch, channels, _, height, width = latent
    parameters = {p.untyped_storage()._cdata for p in backbone.vae.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            saved[storage._cdata] = storage.nbytes()
            kept.append(tensor)  # keeps the identity unique
        return tensor

    kept: list[Tensor] = []
    vae = cast(Any, backbone.vae)
    latents = torch.empty(batch, channels, 1, height, width, device="meta", dtype=torch.float32, requires_grad=True)
    cache: list[Tensor | str | None] = [None] * int(vae._cached_conv_counts["decoder"])
    for index in range(3):  # the third latent frame is the first with a full cache
        saved.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            vae.decoder(vae.post_quant_conv(latents), feat_cache=cache, feat_idx=[0], first_chunk=index == 0)
        if index < 2:
            cache = [entry.detach() if isinstance(entry, Tensor) else entry for entry in cache]
    cache_bytes = sum(entry.numel() * entry.element_size() for entry in cache if isinstance(entry, Tensor))
    return cache_bytes, sum(saved.values())
