"""Decode a whole clip with a gradient at the memory of one latent frame.

`AutoencoderKLWan` decodes one latent frame after another; a causal cache of features is all that one frame hands to
the next. So the clip is a chain, and its vector-Jacobian product can be made by hand: decode without a graph and keep
the cache at chunk borders; on the way back rebuild the graph of one chunk, pull the pixel gradient and the gradient of
the outgoing cache through it, pass the gradient of the incoming cache on to the chunk before. Equal to the joint
gradient (tests/unit/backbones/test_chunked_decode.py), which public trainers avoid by scoring the first frame only
(EasyAnimate, VideoX-Fun) or run out of memory on (facebookresearch/WMReward issue 13).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from torch import Tensor

from rlhf_video.errors import BackboneError, ConfigError

Clamp = Literal["hard", "straight_through"]
CacheEntry = Tensor | str | None
"""One slot of the decoder's feature cache: not yet seen, the marker of a repeated first frame, or features."""


def clamp_to_unit(pixels: Tensor, clamp: Clamp) -> Tensor:
    """Map decoder output in [-1, 1] to [0, 1].

    Args:
        pixels: Raw decoder output, any shape.
        clamp: "hard" gives a pixel outside the range no gradient, as every public trainer does; "straight_through"
            clamps the value and lets the gradient pass, so that a burnt-out pixel can still be pulled back.
    """
    unit = pixels / 2 + 0.5
    hard = unit.clamp(0, 1)
    return hard if clamp == "hard" else hard.detach() + (unit - unit.detach())  # exactly the clamped value


@dataclass(frozen=True)
class _Plan:
    """What the hand-made backward needs besides tensors."""

    vae: AutoencoderKLWan
    keep: tuple[bool, ...]
    clamp: Clamp
    border_every: int
    cache_device: torch.device | None


def _decode_one(
    plan: _Plan, latent: Tensor, cache: list[CacheEntry], *, is_first: bool
) -> tuple[Tensor, list[CacheEntry]]:
    """Decode one latent frame (batch, C, 1, lh, lw) to pixels (batch, channels, frames, H, W); return the new cache."""
    outgoing = list(cache)
    vae = plan.vae
    with torch.autocast(latent.device.type, enabled=False):  # the recompute must round as the forward pass did
        hidden = vae.decoder(vae.post_quant_conv(latent), feat_cache=outgoing, feat_idx=[0], first_chunk=is_first)
    if vae.config.patch_size is not None:
        hidden = unpatchify(hidden, patch_size=vae.config.patch_size)
    return clamp_to_unit(hidden.float(), plan.clamp), outgoing


def _empty_cache(vae: AutoencoderKLWan) -> list[CacheEntry]:
    vae.clear_cache()
    return [None] * int(vae._conv_num)


def _moved(cache: Sequence[CacheEntry], device: torch.device | None) -> list[CacheEntry]:
    return [entry.to(device) if isinstance(entry, Tensor) and device is not None else entry for entry in cache]


def _backward_one(
    plan: _Plan,
    latent: Tensor,
    cache: Sequence[CacheEntry],
    grad_pixels: Tensor | None,
    grad_cache: Sequence[Tensor | None],
    *,
    is_first: bool,
) -> tuple[Tensor, list[Tensor | None]]:
    """Return the gradients of one latent frame and its incoming cache, given those of its pixels and outgoing cache."""
    with torch.enable_grad():
        leaf = latent.detach().requires_grad_()
        incoming = [entry.detach().requires_grad_() if isinstance(entry, Tensor) else entry for entry in cache]
        pixels, outgoing = _decode_one(plan, leaf, incoming, is_first=is_first)
        outputs, grads = ([pixels], [grad_pixels]) if grad_pixels is not None else ([], [])
        for entry, grad in zip(outgoing, grad_cache, strict=True):
            if grad is not None and isinstance(entry, Tensor):
                outputs.append(entry)
                grads.append(grad)
        slots = [index for index, entry in enumerate(incoming) if isinstance(entry, Tensor)]
        inputs = [leaf, *(cast(Tensor, incoming[index]) for index in slots)]
        grad_latent, *grad_slots = torch.autograd.grad(outputs, inputs, grads, allow_unused=True)
    grad_incoming: list[Tensor | None] = [None] * len(cache)
    for index, grad in zip(slots, grad_slots, strict=True):
        grad_incoming[index] = grad
    return torch.zeros_like(latent) if grad_latent is None else grad_latent, grad_incoming


class _ChunkedDecode(torch.autograd.Function):
    """The chain of chunks as one differentiable operation; keeps caches at borders, no activations."""

    @staticmethod
    def forward(ctx: Any, latents: Tensor, plan: _Plan) -> Tensor:
        cache = _empty_cache(plan.vae)
        borders: list[list[CacheEntry]] = []
        pieces: list[Tensor] = []
        for index, keep in enumerate(plan.keep):
            if index % plan.border_every == 0:
                borders.append(_moved(cache, plan.cache_device))
            pixels, cache = _decode_one(plan, latents[:, :, index : index + 1], cache, is_first=index == 0)
            if keep:
                pieces.append(pixels)
        ctx.plan, ctx.borders = plan, borders
        ctx.frames = [piece.shape[2] for piece in pieces]
        ctx.save_for_backward(latents)
        return torch.cat(pieces, dim=2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_video: Tensor) -> tuple[Tensor, None]:
        (latents,) = ctx.saved_tensors
        plan: _Plan = ctx.plan
        kept = [index for index, keep in enumerate(plan.keep) if keep]
        grad_pixels = dict(zip(kept, grad_video.split(ctx.frames, dim=2), strict=True))
        grad_latents = torch.zeros_like(latents)
        grad_cache: list[Tensor | None] = [None] * len(ctx.borders[0])
        for number in reversed(range(len(ctx.borders))):
            start = number * plan.border_every
            stop = min(start + plan.border_every, len(plan.keep))
            caches = [_moved(ctx.borders[number], latents.device)]
            for index in range(start, stop - 1):
                frame = latents[:, :, index : index + 1]
                caches.append(_decode_one(plan, frame, caches[-1], is_first=index == 0)[1])
            for index in reversed(range(start, stop)):
                frame = latents[:, :, index : index + 1]
                grad_latents[:, :, index : index + 1], grad_cache = _backward_one(
                    plan, frame, caches.pop(), grad_pixels.get(index), grad_cache, is_first=index == 0
                )
        return grad_latents, None


def check_frames(frames: Sequence[int] | None, num_latent_frames: int) -> tuple[int, ...]:
    """Return the chosen latent frames, all of them for None.

    Raises:
        ConfigError: There is none, or they are not ascending numbers below `num_latent_frames`.
    """
    wanted = tuple(range(num_latent_frames)) if frames is None else tuple(frames)
    if not wanted or list(wanted) != sorted(set(wanted)) or not 0 <= wanted[0] <= wanted[-1] < num_latent_frames:
        raise ConfigError(
            f"decode.frames={list(wanted)} does not fit a clip of {num_latent_frames} latent frames: give ascending "
            f"numbers from 0 to {num_latent_frames - 1}, or 'whole' or 'first'."
        )
    return wanted


def chunked_decode(
    vae: AutoencoderKLWan,
    latents: Tensor,
    *,
    frames: Sequence[int] | None = None,
    clamp: Clamp = "hard",
    border_every: int = 1,
    cache_device: torch.device | str | None = None,
) -> Tensor:
    """Decode latents to pixels; differentiable in the latents at the memory of one latent frame.

    The frozen decoder's parameters never receive a gradient. Chosen frames have exactly the pixels that they have in
    the whole clip: earlier latent frames run too, for their cache, and receive their share of the gradient.

    Args:
        vae: Frozen Wan autoencoder (2.1 or 2.2 type).
        latents: The autoencoder's own (de-normalised) latents (batch, C, latent_frames, lh, lw), in its dtype.
        frames: Latent frames whose pixels are returned, ascending; None returns all. Frame 0 has one picture, any other
            as many as the temporal stride.
        clamp: See `clamp_to_unit`.
        border_every: Keep the cache at every n-th border and recompute those between; 1 is fastest, the square root of
            the number of latent frames keeps the least.
        cache_device: Where kept caches wait, for example "cpu"; None leaves them where they are.

    Returns:
        Video (batch, frames, channels, height, width) in [0, 1], float32.

    Raises:
        BackboneError: The autoencoder tiles or slices; blended tiles are another function than the differentiated one.
        ConfigError: `frames` is empty, not ascending or out of range.
    """
    if vae.use_tiling or vae.use_slicing:
        raise BackboneError(
            "The autoencoder has tiling or slicing switched on, which chunk-by-chunk decoding with gradient does not "
            "reproduce. Call disable_tiling() and disable_slicing() on it, or decode less (decode.frames: first)."
        )
    wanted = check_frames(frames, latents.shape[2])
    if border_every < 1:
        raise ConfigError(f"border_every={border_every} must be at least 1.")
    keep = tuple(index in wanted for index in range(wanted[-1] + 1))
    plan = _Plan(vae, keep, clamp, border_every, torch.device(cache_device) if cache_device is not None else None)
    pixels: Tensor = _ChunkedDecode.apply(latents[:, :, : len(keep)], plan)
    return pixels.transpose(1, 2)
