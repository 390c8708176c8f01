"""The interface every video model is used through, and the small values it speaks in."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rlhf_video.attention import AttentionConfig, AttentionPlan, Grid
from rlhf_video.backbones.attention_host import AttentionHost
from rlhf_video.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class VideoShape:
    """The size of a batch of clips in pixels."""

    batch: int
    frames: int
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """The facts about a model that other rooms need."""

    model_class: str
    """Pipeline class named in the folder, for example "WanPipeline"."""
    latent_channels: int
    temporal_stride: int
    """Pixel frames per latent frame; the first latent frame covers one pixel frame."""
    spatial_stride: int
    """Pixels per latent pixel, in height and in width."""
    patch_size: tuple[int, int, int]
    """Latent frames, rows and columns that make one transformer token."""
    fps: int
    """Frames per second the model was trained at."""
    prediction: Literal["velocity"]
    lora_targets: tuple[str, ...]
    """Module name endings that an adapter attaches to by default."""
    default_shift: float
    """Sigma shift of the folder's scheduler."""
    text_length: int
    """Tokens that prompts are padded to."""

    def num_latent_frames(self, num_frames: int) -> int:
        """Return the latent frames of a clip of num_frames pixel frames."""
        return (num_frames - 1) // self.temporal_stride + 1

    def num_frames(self, num_latent_frames: int) -> int:
        """Return the pixel frames that num_latent_frames latent frames decode to."""
        return (num_latent_frames - 1) * self.temporal_stride + 1

    def pixel_frames(self, latent_frames: slice) -> slice:
        """Return the pixel frames that a run of latent frames decodes to.

        Args:
            latent_frames: Run with plain start and stop, 0 <= start < stop, step 1.
        """
        start, stop = latent_frames.start or 0, latent_frames.stop
        return slice(0 if start == 0 else self.num_frames(start), self.num_frames(stop))

    def latent_shape(self, shape: VideoShape) -> tuple[int, int, int, int, int]:
        """Return the shape of the latents of a batch of clips.

        Args:
            shape: Clip size in pixels.

        Returns:
            (batch, channels, latent_frames, latent_height, latent_width).

        Raises:
            ConfigError: The frames do not fit the temporal stride, or the sizes the spatial stride and patch.
        """
        if min(shape.batch, shape.frames, shape.height, shape.width) < 1:
            raise ConfigError(f"{shape}: batch, frames, height and width must be at least 1.")
        stride = self.temporal_stride
        if (shape.frames - 1) % stride:
            fits = max(stride * (shape.frames // stride) + 1, 1)
            raise ConfigError(
                f"num_frames={shape.frames} does not fit {self.model_class}'s temporal stride {stride}: use "
                f"{stride}k + 1, for example {fits}."
            )
        latent_frames = self.num_latent_frames(shape.frames)
        if latent_frames % self.patch_size[0]:
            raise ConfigError(
                f"num_frames={shape.frames} gives {latent_frames} latent frames, not a multiple of the patch "
                f"{self.patch_size[0]}."
            )
        for name, size, patch in (
            ("height", shape.height, self.patch_size[1]),
            ("width", shape.width, self.patch_size[2]),
        ):
            multiple = self.spatial_stride * patch
            if size % multiple:
                fits = max(multiple * round(size / multiple), multiple)
                raise ConfigError(
                    f"{name}={size} does not fit {self.model_class}: use a multiple of {multiple} (spatial stride "
                    f"{self.spatial_stride} x patch {patch}), for example {fits}."
                )
        return (
            shape.batch,
            self.latent_channels,
            latent_frames,
            shape.height // self.spatial_stride,
            shape.width // self.spatial_stride,
        )

    def token_grid(self, shape: VideoShape) -> Grid:
        """Return how many transformer tokens a clip has along frames, height and width.

        Raises:
            ConfigError: As for `latent_shape`.
        """
        latent = self.latent_shape(shape)[2:]
        return Grid(*(size // patch for size, patch in zip(latent, self.patch_size, strict=True)))


@dataclass(frozen=True)
class Conditioning:
    """Encoded prompts of a batch.

    Attributes:
        prompt_embeds: Shape (batch, text_length, text_width), zero behind the last token of each prompt.
        negative_embeds: The same for what guidance moves away from.
    """

    prompt_embeds: Tensor
    negative_embeds: Tensor

    def __len__(self) -> int:
        """Return the batch size."""
        return self.prompt_embeds.shape[0]

    def select(self, index: Sequence[int] | Tensor | slice) -> "Conditioning":
        """Return the conditioning of some items, in the given order; items may repeat."""
        if not isinstance(index, slice):
            index = torch.as_tensor(index, dtype=torch.long, device=self.prompt_embeds.device)
        return Conditioning(self.prompt_embeds[index], self.negative_embeds[index])

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Conditioning":
        """Return a copy on a device, in a dtype when one is given."""
        return Conditioning(
            self.prompt_embeds.to(device=device, dtype=dtype), self.negative_embeds.to(device=device, dtype=dtype)
        )


class VideoBackbone(AttentionHost, ABC):
    """One frozen video diffusion model: text encoder, transformer (or two experts) and VAE.

    Letters: B batch, F frames, C channels, H height, W width; latent axes carry an l.
    """

    spec: BackboneSpec
    transformers: dict[str, nn.Module]
    """One transformer, or two experts, by the pipeline's component name; adapters and attention plans attach here. The
    distributed runtime may replace an entry by its prepared (wrapped) module."""
    boundary_sigma: float | None = None
    """With two experts, the noise level from which up the first one runs; None for one transformer."""
    vae: nn.Module
    device: torch.device
    dtype: torch.dtype

    def token_grid(self, shape: VideoShape) -> Grid:
        """Return the transformer's tokens of a clip; see `BackboneSpec.token_grid`."""
        return self.spec.token_grid(shape)

    def plan_for(self, config: AttentionConfig, shape: VideoShape) -> AttentionPlan:
        """Return the attention plan that settings mean for this model and clip size.

        Raises:
            ConfigError: The windows do not fit the clip, or a plan file is missing or for another model.
        """
        grid = self.token_grid(shape)
        return config.plan(num_layers=self.num_layers, num_heads=self.num_heads, grid=grid)

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str], negative: str | Sequence[str] | None = None) -> Conditioning:
        """Encode prompts, each distinct text once.

        Args:
            prompts: One per batch item.
            negative: What guidance moves away from, for all items or one each; None is the empty text.
        """

    @abstractmethod
    def release_text_encoder(self) -> None:
        """Free the text encoder; a prompt that was not encoded before loads it again."""

    def noise(self, shape: VideoShape, generator: torch.Generator | Sequence[torch.Generator]) -> Tensor:
        """Draw standard normal latents, on the CPU so that a seed means the same on every device.

        Args:
            shape: Clip size in pixels.
            generator: One CPU generator for the batch, or one for each item (noise then does not depend on batching).

        Returns:
            Shape (batch, channels, latent_frames, latent_height, latent_width), float32, on the model's device.

        Raises:
            ConfigError: The shape does not fit the strides, or the number of generators the batch.
        """
        latent_shape = self.spec.latent_shape(shape)
        if isinstance(generator, torch.Generator):
            return torch.randn(latent_shape, generator=generator).to(self.device)
        if len(generator) != shape.batch:
            raise ConfigError(f"{len(generator)} generators for a batch of {shape.batch}: give one for each item.")
        return torch.cat([torch.randn((1, *latent_shape[1:]), generator=item) for item in generator]).to(self.device)

    @abstractmethod
    def velocity(
        self, latents: Tensor, sigma: Tensor, cond: Conditioning, *, guidance: float | tuple[float, float] = 1.0
    ) -> Tensor:
        """Return the predicted velocity (noise minus clean): the only model call, in training and in sampling.

        Args:
            latents: Noised latents, shape (B, C, Fl, Hl, Wl), float32.
            sigma: Noise level in [0, 1]; scalar, (B,) or (B, Fl).
            cond: Encoded prompts of the batch.
            guidance: Classifier-free guidance scale (Ho & Salimans 2022, arXiv:2207.12598) in the convention
                uncond + guidance * (cond - uncond); 1 runs no unconditional pass. A pair for two experts (high
                noise, low noise).

        Returns:
            Shape of `latents`, float32.
        """

    @abstractmethod
    def encode(self, video: Tensor) -> Tensor:
        """Encode clips to normalised latents (mode of the posterior).

        Args:
            video: Shape (B, F, C, H, W) in [0, 1].

        Returns:
            Shape (B, C, Fl, Hl, Wl), float32.
        """

    @abstractmethod
    def decode(
        self, latents: Tensor, *, frames: slice | None = None, clamp: Literal["hard", "straight_through"] = "hard"
    ) -> Tensor:
        """Decode normalised latents to pixels.

        Args:
            latents: Shape (B, C, Fl, Hl, Wl).
            frames: LATENT frames to decode; None decodes all. Equal to decoding all and keeping their pixel frames.
            clamp: "hard" is the pipeline's clamp (a pixel outside the range has no gradient); "straight_through" has
                the same value and passes the gradient on as if there were no clamp.

        Returns:
            Shape (B, F, C, H, W) in [0, 1], float32.
        """

    @abstractmethod
    def decode_chunked(
        self,
        latents: Tensor,
        *,
        frames: Sequence[int] | None = None,
        clamp: Literal["hard", "straight_through"] = "hard",
        cache_every: int = 1,
        cache_on_cpu: bool = False,
    ) -> Tensor:
        """Decode with a gradient at the memory of one latent frame; see `chunked_decode`.

        Args:
            latents: Normalised, shape (B, C, Fl, Hl, Wl).
            frames: LATENT frames whose pixels are wanted, ascending, gaps allowed; None is the whole clip.
            clamp: As in `decode`.
            cache_every: Keep the decoder's cache at every n-th latent frame, recompute those between.
            cache_on_cpu: Let kept caches wait in host memory.

        Returns:
            Shape (B, F, C, H, W) in [0, 1], float32.
        """

    @abstractmethod
    def enable_tiling(self) -> None:
        """Encode and decode in overlapping spatial tiles, for large frames."""

    @abstractmethod
    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute transformer blocks in the backward pass instead of keeping their activations."""
