"""--dry-run of preference optimisation: shapes, trainable parameters, passes and a memory plan, on the meta device."""

import math
import textwrap

import torch

from rlhf_video.algorithms.clip_maker import clip_shape
from rlhf_video.algorithms.dpo_config import DpoConfig
from rlhf_video.algorithms.dry_run import activations, config_folder
from rlhf_video.backbones import VideoBackbone, meta_backbone
from rlhf_video.lora import attach
from rlhf_video.lora.files import DENSE
from rlhf_video.report.markdown import markdown_table


def describe(config: DpoConfig) -> str:
    """Return what a run would build, as text; allocates nothing, needs no weights and no pairs.

    Raises:
        BackboneError: There are neither weights nor config files of the backbone.
        ConfigError: Sizes do not fit.
    """
    backbone = meta_backbone(config_folder(config.backbone), dtype=getattr(torch, config.precision))
    frozen = sum(p.numel() for module in backbone.transformers.values() for p in module.parameters())
    trainable = sum(p.numel() for p in attach(backbone, config.lora, seed=config.seed))
    size, shape = config.sampling, clip_shape(config.sampling, 1)
    latent, grid = backbone.spec.latent_shape(shape), backbone.token_grid(shape)
    plan = backbone.plan_for(config.attention, shape)
    attention = DENSE if plan.is_full else plan.describe(grid)
    rows = max(config.batch.global_pairs // config.batch.accumulation, 1) * config.draws_per_pair
    scores = [entry.key for entry in (*([config.judge] if config.judge else []), *config.rewards)]
    per_step = (
        f"{config.batch.global_pairs} pairs"
        if config.batch.token_budget is None
        else f"pairs of one size, {config.batch.token_budget} tokens"
    )
    lines = [
        f"{config.backbone}: {backbone.spec.model_class}, {frozen / 1e6:.1f} M parameters frozen in {config.precision}",
        f"learns from      preference pairs of {config.pairs.train}",
        f"loss             {config.loss.kind}, beta {config.loss.beta or 'auto'}, {config.loss.reduction} of the "
        f"{config.loss.error} error{', factor 1/2' if config.loss.half else ''}",
        f"reference        {_reference(config)}",
        f"video            ({size.num_frames}, 3, {size.height}, {size.width}) at {backbone.spec.fps} fps",
        f"latents          {latent[1:]}, {grid.num_tokens} tokens",
        f"attention        {textwrap.indent(attention, 17 * ' ').lstrip()}",
        f"adapter          rank {config.lora.rank}, alpha {config.lora.alpha:g}: {trainable} trainable parameters",
        f"batch            {per_step} a step over all processes at {config.draws_per_pair} draws of noise, {rows} rows "
        f"at a time on one process (accumulation {config.batch.accumulation})",
        f"passes           {_passes(config)} of one clip at one draw",
        f"reported         {', '.join(scores) or 'guards only'}",
        "",
        "Memory plan of one process, reward models, text encoder and kernel workspace not counted:",
        markdown_table(("part", "GiB"), memory_plan(config, backbone, frozen, trainable, rows), align="lr"),
    ]
    return "\n".join(lines)


def memory_plan(
    config: DpoConfig, backbone: VideoBackbone, frozen: int, trainable: int, rows: int
) -> list[tuple[str, str]]:
    """Return (part, GiB) rows of a training step.

    Args:
        config: The run.
        backbone: On the meta device.
        frozen: Parameters of the transformers.
        trainable: Parameters of the adapter.
        rows: Pairs at draws of noise of one micro-batch.
    """
    shape = clip_shape(config.sampling, rows)
    latent, grid = backbone.spec.latent_shape(shape), backbone.token_grid(shape)
    kept, block = activations(backbone, rows * grid.num_tokens, recompute=config.gradient_checkpointing)
    members = 2 if config.passes == "joint" else 1
    parts = {
        f"frozen transformer ({config.precision})": frozen * torch.finfo(backbone.dtype).bits // 8,
        "autoencoder (float32)": 4 * sum(p.numel() for p in backbone.vae.parameters()),
        "adapter, gradient, Adam, average (float32)": 20 * trainable,
        "latents of both clips, noise, velocities, squares": 4 * (3 + 3 * members) * math.prod(latent),
        f"kept activations of {members} clip(s) a row (estimate)": members * kept
        + (block if config.gradient_checkpointing else 0),
    }
    if config.reference.kind == "adapter":
        parts["the reference's adapter, and the trained one meanwhile (float32)"] = 8 * trainable
    table = [(name, f"{size / 2**30:.3f}") for name, size in parts.items()]
    return [*table, ("peak, about", f"{sum(parts.values()) / 2**30:.3f}")]


def _reference(config: DpoConfig) -> str:
    settings = config.reference
    folder = settings.adapter or settings.start_adapter
    text = {
        "adapter_off": "the base",
        "adapter": f"the base with {folder}, frozen",
        "merged": f"the base with {settings.start_adapter} merged",
    }[settings.kind]
    if settings.cache is not None:
        return f"{text}; errors at {settings.fixed_draws} draws a pair kept in {settings.cache}"
    return f"{text}; errors computed in every step"


def _passes(config: DpoConfig) -> str:
    forward = (2 if config.passes == "joint" else 3) + (0 if config.reference.cache is not None else 2)
    forward += 2 if config.loss.kind == "kto" else 0  # `look_ahead`
    return f"{config.passes}: {forward} forward and 2 backward passes"
