"""Pre-train the sprite VAE: a residual, patchified `AutoencoderKLWan` (the Wan 2.2 type), 8x8x4 stride, 16 channels."""

import logging
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from rlhf_video.sprites.grammar import random_scenes
from rlhf_video.sprites.pretrain.loop import fit
from rlhf_video.sprites.renderer import render

logger = logging.getLogger(__name__)

CONFIG = {
    "base_dim": 24,
    "decoder_base_dim": 32,
    "z_dim": 16,
    "dim_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [True, True],
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 8,
}
KL_WEIGHT = 1e-4
"""Weight of the KL term per latent element against the pixel error: keeps latents smooth enough to diffuse."""
OBJECT_WEIGHT = 5.0
"""Extra weight of pixels that are not background; without it small objects fade into the background for long."""


def rendered_clips(split: str, count: int, *, seed: tuple[int, ...], num_frames: int) -> Tensor:
    """Return rendered clips of random scenes of a split, shape (count, frames, 3, 64, 64) in [0, 1]."""
    rng = np.random.default_rng(seed)
    scenes = random_scenes(split, rng, two_object_share=0.45)  # type: ignore[arg-type]
    return render([next(scenes) for _ in range(count)], rng.integers(2**31, size=count).tolist(), num_frames=num_frames)


def train_vae(work: Path, *, num_steps: int, batch: int = 3, device: str = "cpu") -> tuple[AutoencoderKLWan, dict[str, object]]:
    """Train the VAE on short clips of train combinations and measure it on 21-frame validation clips.

    Args:
        work: Folder for the progress file.
        num_steps: Optimiser steps.
        batch: Long clips (13 frames) per step, or two and a half times as many short ones (5 frames).
        device: Where to train.

    Returns:
        The VAE with latent statistics in its config, and its training record (history holds PSNR in dB).
    """
    torch.manual_seed(0)
    vae = AutoencoderKLWan(**CONFIG, latents_mean=[0.0] * 16, latents_std=[1.0] * 16).to(device)
    held_out = rendered_clips("validation", 16, seed=(1, 0), num_frames=21)

    def loss_at(step: int) -> Tensor:
        torch.manual_seed(step)  # the posterior's noise
        # Many short clips for variety; every fourth step long ones, for the path through the causal cache.
        count, num_frames = (batch, 13) if step % 4 == 3 else (2 * batch + batch // 2, 5)
        video = rendered_clips("train", count, seed=(0, step), num_frames=num_frames).to(device)
        pixels = video.transpose(1, 2) * 2 - 1
        posterior = vae.encode(pixels).latent_dist
        decoded = vae.decode(posterior.sample()).sample.float()
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        error = decoded - pixels
        background = pixels.flatten(2).median(-1).values.view(*pixels.shape[:2], 1, 1, 1)
        weight = 1 + OBJECT_WEIGHT * ((pixels - background).abs().amax(1, keepdim=True) > 0.05).float()
        return (weight * (error.abs() + 2 * error.square())).mean() / weight.mean() + KL_WEIGHT * kl

    @torch.no_grad()
    def validate() -> dict[str, float]:
        return {"psnr_db": round(float(reconstruction_psnr(vae, held_out)), 2)}

    record = fit(
        vae, loss_at, num_steps=num_steps, learning_rate=1.5e-3, state_file=work / "vae.pt", validate=validate, ema_decay=0.995
    )
    with torch.no_grad():
        clips = rendered_clips("train", 64, seed=(2, 0), num_frames=21).to(device)
        latents = torch.cat([vae.encode(c.transpose(1, 2) * 2 - 1).latent_dist.mean for c in clips.split(8)])
    vae.register_to_config(
        latents_mean=[round(v, 4) for v in latents.mean((0, 2, 3, 4)).tolist()],
        latents_std=[round(v, 4) for v in latents.std((0, 2, 3, 4)).tolist()],
    )
    return vae.eval(), record


def reconstruction_psnr(vae: AutoencoderKLWan, video: Tensor) -> Tensor:
    """Return the mean PSNR in dB over clips of the VAE's round trip, for video (batch, frames, 3, height, width) in [0, 1]."""
    device = next(vae.parameters()).device
    errors = []
    for clips in video.to(device).split(8):
        pixels = clips.transpose(1, 2) * 2 - 1
        decoded = vae.decode(vae.encode(pixels).latent_dist.mean).sample
        errors.append(((decoded - pixels) / 2).square().mean((1, 2, 3, 4)))
    return (-10 * torch.cat(errors).log10()).mean()
