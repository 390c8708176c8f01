"""Clips of a base model, or of base and adapter, over a prompt suite: resumable, every clip with its seed and hash.

Each clip's noise comes from a seed that depends on the run's seed, the prompt and the clip's number alone, so base and
adapter runs share their noise, and `torch.Generator().manual_seed(seed)` makes the same clip in plain `WanPipeline`.
"""

import json
import logging
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from rlhf_video.algorithms.clip_maker import clip_seed
from rlhf_video.algorithms.generate_causal import causal_latents, clip_guidance, clip_recipe, streamed_clips
from rlhf_video.algorithms.generate_config import GenerateConfig, clip_shape
from rlhf_video.attention import AttentionPlan
from rlhf_video.backbones import Conditioning, VideoBackbone, load_backbone, meta_backbone
from rlhf_video.backbones.causal_recipe import CausalRecipe
from rlhf_video.data import PromptSuite, load_prompts, sha256_file, write_atomic, write_video
from rlhf_video.data.files import MANIFEST
from rlhf_video.diffusion.samplers import sample
from rlhf_video.diffusion.sigmas import flow_sigmas
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.lora import adapter_scale, load_adapter, read_adapter_metadata, recorded_attention
from rlhf_video.lora.files import AttentionRule, adapter_sha256
from rlhf_video.lora.joining import merge_adapter
from rlhf_video.settings import changed_fields

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Clip:
    """One clip to make."""

    file: str
    prompt: str
    seed: int


def generate(config: GenerateConfig, *, show_progress: bool = True) -> Path:
    """Make every clip of the suite that is not there yet.

    A clip appears whole or not at all, and counts as made when the manifest holds the hash of its file. A killed run is
    finished by running it again; batches are cut the same way then, so the files are the same to the byte.

    Args:
        config: What to generate.
        show_progress: Draw a progress bar on stderr where that is a terminal.

    Returns:
        The manifest's path.

    Raises:
        BackboneError: The model folder does not fit.
        AdapterError: The adapter does not fit.
        ConfigError: The sizes do not fit the model, or output_dir holds clips of other settings.
        DataError: The prompt suite is missing or malformed, or the manifest is damaged.
    """
    suite = load_prompts(config.prompts)
    clips = list(_plan(config, suite))
    manifest = config.output_dir / MANIFEST
    plan = attention_plan(config)
    recipe = clip_recipe(config)
    facts = _facts(config, suite, plan, recipe)
    done = _verified(manifest, facts, clips)
    todo = [batch for batch in _batches(clips, config.batch_size) if any(clip.file not in done for clip in batch)]
    logger.info("%d of %d clips are there, %d batches to go", len(done), len(clips), len(todo))
    if todo:
        backbone = load_generator(config, plan)
        for batch in tqdm(todo, unit="batch", disable=None if show_progress else True):
            done |= _make(config, backbone, recipe, batch, done)
            _write_manifest(manifest, facts, clips, done)
    _write_manifest(manifest, facts, clips, done)
    return manifest


def check_made_with(config: GenerateConfig) -> None:
    """Refuse clips that are there and were made with other settings; which prompts they are of is the caller's concern.

    Args:
        config: What the clips in its output_dir should have been made with; it reads config files and the adapter.

    Raises:
        AdapterError: The adapter is missing or damaged.
        BackboneError: The model folder does not fit (read for an attention plan or a causal recipe alone).
        ConfigError: output_dir holds clips of other settings; the message names what differs.
        DataError: The prompt suite is missing or malformed, or the manifest is damaged.
    """
    manifest = config.output_dir / MANIFEST
    if manifest.is_file():
        facts = _facts(config, load_prompts(config.prompts), attention_plan(config), clip_recipe(config))
        recorded, _ = _read_manifest(manifest)
        for which_clips in ("prompts", "clips_per_prompt"):
            del facts[which_clips]
            recorded.pop(which_clips, None)
        _refuse_changed(manifest, recorded, facts)


def describe(config: GenerateConfig) -> str:
    """Return what a run would do, from config files alone.

    Raises:
        BackboneError: The model folder does not fit.
        ConfigError: The sizes do not fit the model.
        DataError: The prompt suite is missing or malformed.
    """
    suite = load_prompts(config.prompts)
    backbone = meta_backbone(config.backbone, text_length=config.text_length)
    shape = clip_shape(config, config.batch_size)
    latents = backbone.spec.latent_shape(shape)
    plan = attention_plan(config)
    attention = "dense" if plan is None else plan.describe(backbone.token_grid(shape))
    recipe = clip_recipe(config)
    sampler = f"{config.num_steps} Euler steps" if recipe is None else recipe.describe(config.num_steps, latents[2])
    shift = config.shift if config.shift is not None else recipe.shift if recipe else backbone.spec.default_shift
    parameters = sum(p.numel() for module in backbone.transformers.values() for p in module.parameters())
    size = {"float32": 4, "bfloat16": 2}[config.precision]
    return "\n".join(
        (
            f"backbone      {config.backbone} ({backbone.spec.model_class}, {parameters / 1e6:.1f} M parameters, "
            f"{parameters * size / 2**30:.2f} GiB in {config.precision})",
            f"adapter       {config.adapter or 'none'} (strength {config.adapter_scale:g}"
            f"{', merged' if config.merge_adapter else ''})",
            f"clips         {len(suite)} prompts x {config.clips_per_prompt}, {config.num_frames} frames of "
            f"{config.height} x {config.width}",
            f"latents       {latents}",
            f"sampler       {sampler}, guidance {clip_guidance(config, recipe):g}, shift {shift:g}",
            f"attention     {textwrap.indent(attention, 14 * ' ').lstrip()}",
            f"output        {config.output_dir}",
        )
    )


def _plan(config: GenerateConfig, suite: PromptSuite) -> Iterator[_Clip]:
    for number, prompt in enumerate(suite.prompts):
        slug = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60].strip("-")
        for clip in range(config.clips_per_prompt):
            yield _Clip(f"{number:04d}-{slug}-{clip}.mp4", prompt, clip_seed(config.seed, prompt, clip))


def _batches(clips: list[_Clip], size: int) -> Iterator[list[_Clip]]:
    for start in range(0, len(clips), size):
        yield clips[start : start + size]


def attention_plan(config: GenerateConfig) -> AttentionPlan | None:
    """Return the plan that clips are made with, from config files and the adapter's header; None is dense.

    Raises:
        ConfigError: It does not fit the model or the clip size.
    """
    recorded = None if config.adapter is None else recorded_attention(read_adapter_metadata(config.adapter))
    if config.attention is None and recorded is None:
        return None
    backbone, shape = meta_backbone(config.backbone, text_length=config.text_length), clip_shape(config, 1)
    if config.attention is not None:
        plan = backbone.plan_for(config.attention, shape)
    else:
        plan = AttentionPlan.from_json(recorded)
        plan.check(num_layers=backbone.num_layers, num_heads=backbone.num_heads, grid=backbone.token_grid(shape))
    return None if plan.is_full else plan


def load_generator(config: GenerateConfig, plan: AttentionPlan | None) -> VideoBackbone:
    """Load the model that makes the clips, with its adapter and attention plan.

    Raises:
        BackboneError: The model folder does not fit.
        AdapterError: The adapter does not fit.
    """
    device = config.device if config.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.precision]
    backbone = load_backbone(config.backbone, device=device, dtype=dtype, text_length=config.text_length)
    backbone.apply_attention(plan, backend="auto" if config.attention is None else config.attention.backend)
    if config.adapter is not None:
        rule: AttentionRule = "check" if config.attention is None else "ignore"
        if config.merge_adapter:
            merge_adapter(backbone, config.adapter, strength=config.adapter_scale, attention=rule)
        else:
            load_adapter(backbone, config.adapter, attention=rule)
    if config.vae_tiling:
        backbone.enable_tiling()
    return backbone


@torch.no_grad()
def _make(
    config: GenerateConfig,
    backbone: VideoBackbone,
    recipe: CausalRecipe | None,
    batch: list[_Clip],
    done: dict[str, str],
) -> dict[str, str]:
    """Sample one batch and write its missing files; return file name -> sha256 of what was written."""
    files = [None if clip.file in done else config.output_dir / clip.file for clip in batch]
    seeds = [clip.seed for clip in batch]
    cond = backbone.encode_prompts([clip.prompt for clip in batch], config.negative_prompt)
    with adapter_scale(backbone, config.adapter_scale):
        if recipe is None:
            latents = _whole_clips(config, backbone, cond, seeds)
        elif config.stream:
            streamed_clips(config, recipe, backbone, cond, list(zip(seeds, files, strict=True)))
            return {file.name: sha256_file(file) for file in files if file is not None}
        else:
            latents = causal_latents(config, recipe, backbone, cond, seeds)
    written = {}
    for file, latent in zip(files, latents, strict=True):
        if file is not None:
            write_video(file, backbone.decode(latent[None])[0].cpu(), config.fps or backbone.spec.fps)
            written[file.name] = sha256_file(file)
    return written


def _whole_clips(config: GenerateConfig, backbone: VideoBackbone, cond: Conditioning, seeds: list[int]) -> Tensor:
    """Return latents (B, C, Fl, Hl, Wl) of a batch, all frames denoised at once."""
    noise = backbone.noise(clip_shape(config, len(seeds)), [torch.Generator().manual_seed(seed) for seed in seeds])
    sigmas = flow_sigmas(config.num_steps, backbone.spec.default_shift if config.shift is None else config.shift)
    guidance = clip_guidance(config, None)
    return sample(lambda x, sigma: backbone.velocity(x, sigma, cond, guidance=guidance), noise, sigmas)


def _facts(
    config: GenerateConfig, suite: PromptSuite, plan: AttentionPlan | None, recipe: CausalRecipe | None
) -> dict[str, Any]:
    """Return what fixes the pixels of every clip."""
    adapter = config.adapter
    return {
        "model": config.backbone,
        "adapter": str(adapter) if adapter is not None else None,
        "adapter_sha256": adapter_sha256(adapter) if adapter is not None else None,
        "adapter_scale": config.adapter_scale if adapter is not None else None,
        "merge_adapter": config.merge_adapter and adapter is not None,
        "attention_plan": plan.to_json() if plan is not None else None,
        "causal": recipe.to_json() if recipe is not None else None,
        "stream": config.stream,
        "prompts": {"name": suite.name, "version": suite.version, "sha256": suite.sha256},
        "seed": config.seed,
        "clips_per_prompt": config.clips_per_prompt,
        "sampler": {
            "name": "flow_euler" if recipe is None else "causal",
            "num_steps": config.num_steps,
            "guidance": clip_guidance(config, recipe),
            "shift": config.shift,
            "negative_prompt": config.negative_prompt,
            "text_length": config.text_length,
        },
        "video": {
            "num_frames": config.num_frames,
            "height": config.height,
            "width": config.width,
            "fps": config.fps,
            "vae_tiling": config.vae_tiling,
        },
        "batch_size": config.batch_size,
        "precision": config.precision,
    }


def _verified(manifest: Path, facts: dict[str, Any], clips: list[_Clip]) -> dict[str, str]:
    """Return file name -> sha256 of the clips that are there and whole."""
    if not manifest.is_file():
        return {}
    recorded, entries = _read_manifest(manifest)
    _refuse_changed(manifest, recorded, facts)
    wanted = {clip.file for clip in clips}
    return {
        name: sha256
        for name, sha256 in entries.items()
        if name in wanted and (manifest.parent / name).is_file() and sha256_file(manifest.parent / name) == sha256
    }


def _read_manifest(manifest: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the recorded facts, and file name -> sha256."""
    older = {"attention_plan": None, "causal": None, "stream": False, "merge_adapter": False}  # not said once
    try:
        recorded = {**older, **json.loads(manifest.read_text())}
        return recorded, {entry["file"]: entry["sha256"] for entry in recorded.pop("clips")}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{manifest} is damaged: delete it to generate its clips again.") from error


def _refuse_changed(manifest: Path, recorded: dict[str, Any], facts: dict[str, Any]) -> None:
    if changed := changed_fields(recorded, facts):
        raise ConfigError(
            f"{manifest.parent} holds clips made with other settings ({', '.join(changed)} changed): give another "
            "output_dir, or delete that folder."
        )


def _write_manifest(manifest: Path, facts: dict[str, Any], clips: list[_Clip], done: dict[str, str]) -> None:
    entries = [
        {"file": clip.file, "prompt": clip.prompt, "seed": clip.seed, "sha256": done[clip.file]}
        for clip in clips
        if clip.file in done
    ]
    write_atomic(manifest, (json.dumps({**facts, "clips": entries}, indent=1, ensure_ascii=False) + "\n").encode())
