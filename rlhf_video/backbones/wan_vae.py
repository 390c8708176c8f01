"""The Wan VAE's decoder without its final clamp, so that a caller can choose what the clamp does to the gradient."""

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from torch import Tensor


def decode_unclamped(vae: AutoencoderKLWan, raw: Tensor) -> Tensor:
    """Decode latent frame by latent frame through the causal feature cache, as `AutoencoderKLWan._decode` does.

    Args:
        vae: The autoencoder, not tiled.
        raw: Latents in the VAE's own scale, shape (batch, channels, latent_frames, latent_height, latent_width).

    Returns:
        Pixels around [-1, 1], shape (batch, 3, frames, height, width).
    """
    hidden = vae.post_quant_conv(raw)
    cache: list[Tensor | str | None] = [None] * vae._cached_conv_counts["decoder"]
    chunks = [
        vae.decoder(hidden[:, :, index : index + 1], feat_cache=cache, feat_idx=[0], first_chunk=index == 0)
        for index in range(hidden.shape[2])
    ]
    video = torch.cat(chunks, dim=2)
    if vae.config.patch_size is not None:
        video = unpatchify(video, patch_size=vae.config.patch_size)
    return video
