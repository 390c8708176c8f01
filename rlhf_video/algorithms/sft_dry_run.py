"""--dry-run of fine-tuning and recovery: shapes, trainable parameters and a memory plan, on the meta device."""

import math
import textwrap
from typing import Any, cast

import torch

from rlhf_video.algorithms.clip_maker import clip_shape
from rlhf_video.algorithms.dry_run import activations, config_folder
from rlhf_video.algorithms.sft_config import SftConfig
from rlhf_video.backbones import VideoBackbone, meta_backbone
from rlhf_video.lora import attach
from rlhf_video.lora.files import DENSE
from rlhf_video.report.markdown import markdown_table


def describe(config: SftConfig) -> str:
    """Return what a run would build, as text; allocates nothing, needs no weights.

    Raises:
        BackboneError: There are neither weights nor config files of the backbone.
        ConfigError: Sizes do not fit.
    """
    config = config.resolved()
    backbone = meta_backbone(config_folder(config.backbone), dtype=getattr(torch, config.precision))
    frozen = sum(p.numel() for module in backbone.transformers.values() for p in module.parameters())
    trainable = sum(p.numel() for p in attach(backbone, config.lora, seed=config.seed))
    size, shape = config.sampling, clip_shape(config.sampling, 1)
    latent, grid = backbone.spec.latent_shape(shape), backbone.token_grid(shape)
    plan = backbone.plan_for(config.attention, shape)
    attention = DENSE if plan.is_full else plan.describe(grid)
    budget = config.batch.token_budget
    clips = config.batch.global_clips if budget is None else budget // grid.num_tokens
    micro = max(-(-clips // config.batch.accumulation), 1)
    step = (
        f"{clips} clips" if budget is None else f"{budget} tokens of clips of one size, {clips} of the sampling size,"
    )
    method = f"clips of {config.data.train}" if config.recovery is None else "the dense model's attention and velocity"
    scores = [entry.key for entry in (*([config.judge] if config.judge else []), *config.rewards)]
    lines = [
        f"{config.backbone}: {backbone.spec.model_class}, {frozen / 1e6:.1f} M parameters frozen in {config.precision}",
        f"learns from      {method}",
        f"video            ({size.num_frames}, 3, {size.height}, {size.width}) at {backbone.spec.fps} fps",
        f"latents          {latent[1:]}, {grid.num_tokens} tokens",
        f"attention        {textwrap.indent(attention, 17 * ' ').lstrip()}",
        f"adapter          rank {config.lora.rank}, alpha {config.lora.alpha:g}: {trainable} trainable parameters",
        f"batch            {step} a step over all processes, "
        f"{micro} at a time on one process (accumulation {config.batch.accumulation})",
        f"reported         {', '.join(scores) or 'guards only'}",
        "",
        "Memory plan of one process, reward models, text encoder and kernel workspace not counted:",
        markdown_table(("part", "GiB"), memory_plan(config, backbone, frozen, trainable, micro), align="lr"),
    ]
    return "\n".join(lines)


def memory_plan(
    config: SftConfig, backbone: VideoBackbone, frozen: int, trainable: int, micro: int
) -> list[tuple[str, str]]:
    """Return (part, GiB) rows of a training step.

    Args:
        config: The run.
        backbone: On the meta device.
        frozen: Parameters of the transformers.
        trainable: Parameters of the adapter.
        micro: Clips in one forward pass.
    """
    shape = clip_shape(config.sampling, micro)
    latent, grid = backbone.spec.latent_shape(shape), backbone.token_grid(shape)
    kept, block = activations(backbone, micro * grid.num_tokens, recompute=config.gradient_checkpointing)
    parts = {
        f"frozen transformer ({config.precision})": frozen * torch.finfo(backbone.dtype).bits // 8,
        "autoencoder (float32)": 4 * sum(p.numel() for p in backbone.vae.parameters()),
        "adapter, gradient, Adam, average (float32)": 20 * trainable,
        "latents, noise, velocity": 4 * 4 * math.prod(latent),
        "transformer pass: kept activations (estimate)": kept + (block if config.gradient_checkpointing else 0),
    }
    if config.recovery is not None and config.recovery.attention_weight > 0:
        model = cast(Any, next(iter(backbone.transformers.values()))).config
        outputs = micro * grid.num_tokens * model.num_layers * model.num_attention_heads * model.attention_head_dim
        width = 2 * torch.finfo(backbone.dtype).bits // 8 + 4
        parts["attention outputs of teacher and student, difference (float32)"] = outputs * width
    rows = [(name, f"{size / 2**30:.3f}") for name, size in parts.items()]
    return [*rows, ("peak, about", f"{sum(parts.values()) / 2**30:.3f}")]
