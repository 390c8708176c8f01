"""Clips that the sprite model generates, with what the verifier reads in them: the rewards must know these, too."""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import nn

from rlhf_video.backbones import VideoBackbone, VideoShape, load_backbone
from rlhf_video.data.fingerprint import weights_fingerprint
from rlhf_video.diffusion.samplers import sample
from rlhf_video.diffusion.sigmas import flow_sigmas
from rlhf_video.sprites.grammar import Scene, Split, random_scenes
from rlhf_video.sprites.pretrain.clip_pool import ClipPool
from rlhf_video.sprites.renderer import NUM_FRAMES, SIZE
from rlhf_video.sprites.verifier import read_clip

logger = logging.getLogger(__name__)

GUIDANCES = (1.0, 1.0, 1.0, 3.0)
"""In turn per batch; without guidance the clips of one prompt differ most, and rewards learn from those differences."""


def generated_pool(folder: Path, split: Split, count: int, *, seed: int, work: Path, device: str = "cpu") -> ClipPool:
    """Return clips that the model in `folder` generates for random scenes, 4 per scene, read by the verifier.

    Batches are kept in `work`, so that a killed run goes on where it was.
    """
    rng = np.random.default_rng((seed, 10))
    generator = random_scenes(split, rng, two_object_share=0.35)
    scenes = tuple(scene for _ in range(count // 4) for scene in [next(generator)] * 4)
    backbone = load_backbone(folder, device=device, text_length=32)
    # Clips of another model must not be taken for this one's.
    work = work / weights_fingerprint(nn.ModuleList([backbone.vae, *backbone.transformers.values()]))
    work.mkdir(parents=True, exist_ok=True)
    videos = []
    for start in range(0, count, 32):
        file = work / f"{split}-{seed}-{start}.pt"
        if not file.exists():
            guidance = GUIDANCES[(start // 32) % len(GUIDANCES)]
            videos.append(
                generate_clips(backbone, scenes[start : start + 32], seed=seed * 1_000_000 + start, guidance=guidance)
            )
            torch.save(videos[-1], file)
            logger.info("generated %d/%d %s clips", start, count, split)
        else:
            videos.append(torch.load(file, weights_only=True))
    pixels = torch.cat(videos)
    return ClipPool(pixels, scenes, tuple(read_clip(clip.float() / 255) for clip in pixels))


@torch.no_grad()
def generate_clips(
    backbone: VideoBackbone, scenes: tuple[Scene, ...], *, seed: int, guidance: float, num_steps: int = 10
) -> torch.Tensor:
    """Return one generated clip per scene, shape (batch, frames, 3, 64, 64) uint8."""
    cond = backbone.encode_prompts([scene.prompt for scene in scenes])
    shape = VideoShape(batch=len(scenes), frames=NUM_FRAMES, height=SIZE, width=SIZE)
    noise = backbone.noise(shape, torch.Generator().manual_seed(seed))
    sigmas = flow_sigmas(num_steps, backbone.spec.default_shift).to(backbone.device)
    latents = sample(lambda x, sigma: backbone.velocity(x, sigma, cond, guidance=guidance), noise, sigmas)
    return (torch.cat([backbone.decode(part) for part in latents.split(8)]) * 255).round().byte().cpu()
