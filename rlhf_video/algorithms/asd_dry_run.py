"""--dry-run of distillation: roles, roll-outs, calls and a memory plan, on the meta device."""

import math
from typing import Any, cast

import torch

from rlhf_video.algorithms.asd_config import AsdConfig
from rlhf_video.algorithms.clip_maker import clip_shape
from rlhf_video.algorithms.dry_run import activations, config_folder
from rlhf_video.backbones import VideoBackbone, meta_backbone
from rlhf_video.lora import LoraConfig, attach
from rlhf_video.lora.roles import FAKE
from rlhf_video.report.markdown import markdown_table


def describe(config: AsdConfig) -> str:
    """Return what a run would build, as text; allocates nothing, needs no weights.

    Raises:
        BackboneError: There are neither weights nor config files of the backbone.
        ConfigError: Sizes do not fit.
    """
    backbone = meta_backbone(config_folder(config.backbone), dtype=getattr(torch, config.precision))
    frozen = sum(p.numel() for module in backbone.transformers.values() for p in module.parameters())
    student = sum(p.numel() for p in attach(backbone, config.lora, seed=config.seed))
    size, grid = config.sampling, backbone.token_grid(clip_shape(config.sampling, 1))
    chunks = config.causal.chunks(grid.frames)
    recaches = (len(chunks) - 1) * config.rollout.recache
    shift = backbone.spec.default_shift if size.shift is None else size.shift
    calls = ", ".join(
        f"{count}: {config.steps.plan(count, shift=shift).num_evaluations(len(chunks), recaches=recaches)}"
        for count in sorted(config.steps.trained)
    )
    lines = [
        f"{config.backbone}: {backbone.spec.model_class}, {frozen / 1e6:.1f} M parameters frozen in {config.precision}",
        f"stage            {'causal warm-up' if config.warmup is not None else 'distillation'}",
        f"video            ({size.num_frames}, 3, {size.height}, {size.width}) at {backbone.spec.fps} fps",
        f"latents          {grid.frames} frames in {len(chunks)} chunks, {grid.num_tokens} tokens",
        f"student          rank {config.lora.rank}: {student} trainable parameters, from {config.init or 'zero'}",
        f"chunk calls      of n steps, cache included: {calls}",
        f"teacher          {size.num_steps} steps, guidance {size.guidance:g}",
    ]
    critics = 0
    if config.warmup is None:
        lora = LoraConfig(rank=config.fake.rank, alpha=float(config.fake.rank), targets=config.lora.targets)
        critics = sum(p.numel() for p in attach(backbone, lora, seed=0, name=FAKE))
        lines.append(
            f"fake score       rank {config.fake.rank}: {critics} trainable parameters, {config.fake.updates} "
            "updates a step"
        )
        lines.append(f"adversary        weight {config.adversarial.weight:g}, real: {config.adversarial.real}")
    clips = max(config.batch.global_clips // config.batch.accumulation, 1)
    table = markdown_table(("part", "GiB"), memory_plan(config, backbone, frozen, student, critics, clips), align="lr")
    note = "Memory plan of one process, reward models, text encoder, heads and kernel workspace not counted:"
    return "\n".join([*lines, "", note, table])


def memory_plan(
    config: AsdConfig, backbone: VideoBackbone, frozen: int, student: int, critics: int, clips: int
) -> list[tuple[str, str]]:
    """Return (part, GiB) rows of a training step.

    Args:
        config: The run.
        backbone: On the meta device.
        frozen: Parameters of the transformer, held once.
        student: Parameters of the student's adapter.
        critics: Parameters of the fake score's adapter.
        clips: Clips in one forward pass.
    """
    shape = clip_shape(config.sampling, clips)
    latent, grid = backbone.spec.latent_shape(shape), backbone.token_grid(shape)
    bytes_each = torch.finfo(backbone.dtype).bits // 8
    model = cast(Any, next(iter(backbone.transformers.values()))).config
    width = model.num_attention_heads * model.attention_head_dim
    tokens = grid.num_tokens * (1 if config.warmup is None else 2)  # a warm-up reads clean and noised frames at once
    kept, block = activations(backbone, clips * tokens, recompute=config.gradient_checkpointing)
    window = min(config.causal.window_frames or grid.frames, grid.frames)
    parts = {
        f"frozen transformer, once ({config.precision})": frozen * bytes_each,
        "autoencoder (float32)": 4 * sum(p.numel() for p in backbone.vae.parameters()),
        "student, gradient, Adam, average (float32)": 20 * student,
        "fake score, gradient, Adam (float32)": 16 * critics,
        "latents, noise, gradients": 8 * 4 * math.prod(latent),
        "transformer pass: kept activations (estimate)": kept + (block if config.gradient_checkpointing else 0),
    }
    if config.warmup is not None:
        parts["mask of clean and noised frames"] = tokens**2
    if config.warmup is None or config.continuation is not None:
        cached = 2 * clips * window * grid.frame_tokens
        parts["key-value cache"] = cached * width * model.num_layers * bytes_each
    rows = [(name, f"{size / 2**30:.3f}") for name, size in parts.items()]
    return [*rows, ("peak, about", f"{sum(parts.values()) / 2**30:.3f}")]
