"""--dry-run of pair building: what would be made, from config files alone."""

import math

import torch

from rlhf_video.algorithms.clip_maker import clip_shape, sampler_shift
from rlhf_video.algorithms.dry_run import config_folder
from rlhf_video.algorithms.pair_building_config import PairBuildingConfig
from rlhf_video.algorithms.suites import first_prompts
from rlhf_video.backbones import VideoBackbone, meta_backbone
from rlhf_video.data import load_prompts, read_clip_list


def describe(config: PairBuildingConfig) -> str:
    """Return what a run would make, as text; needs no weights and opens no clip.

    Raises:
        BackboneError: There are neither weights nor config files of the backbone.
        ConfigError: Sizes do not fit.
        DataError: The prompts or the list of clips cannot be read.
    """
    if config.backbone is None:
        return f"source           votes of {config.pairs}\noutput           {config.output_dir}"
    backbone = meta_backbone(config_folder(config.backbone), text_length=config.sampling.text_length)
    size, latents = config.sampling, backbone.spec.latent_shape(clip_shape(config.sampling, config.batch_size))
    inputs, num_clips, passes = _work(config)
    guidances = config.guidances or (size.guidance,)
    passes *= 1 if all(scale == 1.0 for scale in guidances) else 2
    scales = " and ".join(f"{scale:g}" for scale in guidances)
    voters = "none" if config.rater is None else f"{config.rater.voters} voters who see {config.rater.score}"
    return "\n".join(
        (
            f"source           {config.source}: {inputs}",
            f"backbone         {config.backbone} ({backbone.spec.model_class}, {_parameters(backbone) / 1e6:.1f} M "
            f"parameters in {config.precision})",
            f"adapter          {config.adapter or 'none'} (strength {config.adapter_scale:g})",
            f"clips            {num_clips} of {size.num_frames} frames of {size.height} x {size.width} at "
            f"{backbone.spec.fps} fps, {_disk(config, num_clips, latents[1:])}",
            f"latents          {latents} at once",
            f"sampler          {size.num_steps} Euler steps, guidance {scales}, shift "
            f"{sampler_shift(size, backbone):g}: at most {passes} forward passes of a clip in all",
            f"rewards          {', '.join(entry.key for entry in config.rewards) or 'none'}",
            f"rule             {'that of the source' if config.rule is None else config.rule.chosen}",
            f"rater            {voters}",
            f"output           {config.output_dir}",
        )
    )


def _work(config: PairBuildingConfig) -> tuple[str, int, int]:
    """Return what clips are made from, how many are kept, and the sampler steps of all clips."""
    steps, each = config.sampling.num_steps, config.clips_per_prompt
    if config.clips is None:
        assert config.prompts is not None
        count = len(first_prompts(load_prompts(config.prompts), config.num_prompts, "num_prompts"))
        made, name = count * each, f"{count} prompts x {each}"
    else:
        listed = read_clip_list(config.clips, field="clips")
        count = len({clip.prompt for clip in listed}) if config.source == "real_vs_generated" else len(listed)
        made, name = count * each, f"{len(listed)} clips of {config.clips}, {count} x {each} generated"
        if config.source == "real_vs_generated":
            return name, made + len(listed), made * steps
    if config.source == "partial_renoising":
        return name, 2 * made, made * steps * (2 if config.clips is not None else 3)
    return name, made, made * steps


def _disk(config: PairBuildingConfig, num_clips: int, latent: tuple[int, ...]) -> str:
    if config.save.format == "latents":
        width = torch.finfo(getattr(torch, config.save.latents_type)).bits // 8
        return f"kept as {config.save.latents_type} latents, {num_clips * math.prod(latent) * width / 2**20:.1f} MiB"
    size = config.sampling
    return f"kept lossless, at most {num_clips * 3 * size.num_frames * size.height * size.width / 2**20:.1f} MiB"


def _parameters(backbone: VideoBackbone) -> int:
    return sum(p.numel() for module in backbone.transformers.values() for p in module.parameters())
