"""The Wan VAE's decoder without its final clamp, so that a caller can choose what the clamp does to the gradient."""

from collections.abc import Callable

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from torch import Tensor

from rlhf_video.backbones.chunked_decode import CacheEntry, clamp_to_unit
from rlhf_video.errors import ConfigError


def decode_unclamped(vae: AutoencoderKLWan, raw: Tensor, *, cache: list[CacheEntry] | None = None) -> Tensor:
    """Decode latent frame by latent frame through the causal feature cache, as `AutoencoderKLWan._decode` does.

    Args:
        vae: The autoencoder, not tiled.
        raw: Latents in the VAE's own scale, shape (batch, channels, latent_frames, latent_height, latent_width).
        cache: Of the frames before, from `empty_cache`, changed here; None where these are the first frames.

    Returns:
        Pixels around [-1, 1], shape (batch, 3, frames, height, width).
    """
    hidden = vae.post_quant_conv(raw)
    cache = empty_cache(vae) if cache is None else cache
    is_start = all(entry is None for entry in cache)
    chunks = [
        vae.decoder(hidden[:, :, i : i + 1], feat_cache=cache, feat_idx=[0], first_chunk=is_start and i == 0)
        for i in range(hidden.shape[2])
    ]
    video = torch.cat(chunks, dim=2)
    if vae.config.patch_size is not None:
        video = unpatchify(video, patch_size=vae.config.patch_size)
    return video


def empty_cache(vae: AutoencoderKLWan) -> list[CacheEntry]:
    """Return the decoder's feature cache before the first frame."""
    return [None] * vae._cached_conv_counts["decoder"]


class StreamDecoder:
    """Decodes a clip in pieces as they come; the pixels are those of decoding it whole."""

    def __init__(self, vae: AutoencoderKLWan, denormalise: Callable[[Tensor], Tensor]) -> None:
        """Start a clip.

        Args:
            vae: The autoencoder.
            denormalise: From normalised latents to the VAE's own.

        Raises:
            ConfigError: The autoencoder tiles: tiles are blended over the whole clip.
        """
        if vae.use_tiling:
            raise ConfigError("Decoding chunk by chunk does not go with VAE tiling: set vae_tiling or stream to false.")
        self._vae, self._denormalise, self._cache = vae, denormalise, empty_cache(vae)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Return the pixels of the clip's next latent frames.

        Args:
            latents: Normalised, shape (B, C, Fl, Hl, Wl); the batch is that of the pieces before.

        Returns:
            Shape (B, F, 3, H, W) in [0, 1], float32; F = 4 Fl, less 3 for the clip's first latent frame (Wan 2.1).
        """
        raw = self._denormalise(latents).to(self._vae.dtype)
        video = decode_unclamped(self._vae, raw, cache=self._cache)
        return clamp_to_unit(video.transpose(1, 2).float(), "hard")
