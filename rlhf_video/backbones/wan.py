"""Wan 2.1 and 2.2 text-to-video (arXiv:2503.20314): any folder that `diffusers.WanPipeline` loads.

Kept: one transformer or two experts, per-frame noise levels, batched guidance. Left out: image and video inputs.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel
from torch import Tensor, nn

from rlhf_video.attention import Grid
from rlhf_video.attention.causal import CausalContext, causal_attention
from rlhf_video.backbones.base import BackboneSpec, Conditioning, VideoBackbone
from rlhf_video.backbones.causal_host import CausalHost
from rlhf_video.backbones.chunked_decode import chunked_decode, clamp_to_unit
from rlhf_video.backbones.folders import read_json
from rlhf_video.backbones.text import PipelinePrompts, PromptEncoder
from rlhf_video.backbones.wan_vae import StreamDecoder, decode_unclamped
from rlhf_video.diffusion.sigmas import NUM_TRAIN_TIMESTEPS
from rlhf_video.errors import BackboneError, ConfigError
from rlhf_video.lora.switches import checkpoint_with_adapters

logger = logging.getLogger(__name__)

WAN_LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2")
"""Every Linear of self-attention, cross-attention and feed-forward: what ComfyUI and kohya files of Wan carry."""

_COMPONENTS = ("transformer", "transformer_2")


class WanBackbone(CausalHost, VideoBackbone):
    """A frozen Wan model in the project's interface."""

    vae: AutoencoderKLWan

    def __init__(
        self,
        *,
        spec: BackboneSpec,
        transformers: dict[str, nn.Module],
        vae: AutoencoderKLWan,
        prompts: PromptEncoder | PipelinePrompts | None,
        text_width: int,
        boundary_sigma: float | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Wrap loaded components; use `load_backbone`.

        Args:
            spec: The model's facts.
            transformers: By component name; two for the two-expert layout.
            vae: The video autoencoder.
            prompts: Text encoder; None on the meta device.
            text_width: Width of the prompt embeddings.
            boundary_sigma: From this noise level up "transformer" runs, below it "transformer_2"; None for one.
            dtype: Precision of the transformers' inputs.
            device: Where everything lies.
        """
        self.spec = spec
        self.transformers = transformers
        self.vae = vae
        self.device = device
        self.dtype = dtype
        self.boundary_sigma = boundary_sigma
        model = cast("WanTransformer3DModel", transformers[_COMPONENTS[0]]).config
        self.num_layers, self.num_heads = int(model.num_layers), int(model.num_attention_heads)
        self._prompts = prompts
        self._text_width = text_width
        for module in (*transformers.values(), vae):
            module.requires_grad_(False).eval()
        if device.type == "cpu":
            for weight in vae.parameters():  # a quarter faster; on GPUs cuDNN chooses itself
                if weight.dim() == 5:
                    weight.data = weight.data.contiguous(memory_format=torch.channels_last_3d)
        statistics = [
            torch.tensor(values).view(1, -1, 1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std)
        ]
        self._latents_mean, self._latents_std = (values.to(device) for values in statistics)

    @classmethod
    def from_folder(
        cls, folder: Path, *, device: torch.device, dtype: torch.dtype, vae_dtype: torch.dtype, text_length: int | None
    ) -> "WanBackbone":
        """Load the weights of a folder; see `load_backbone`."""
        index, spec, text_width = _read_facts(folder, text_length)
        names = _component_names(folder, index)
        try:
            transformers: dict[str, nn.Module] = {
                name: WanTransformer3DModel.from_pretrained(folder / name, torch_dtype=dtype).to(device)
                for name in names
            }
            vae = AutoencoderKLWan.from_pretrained(folder / "vae", torch_dtype=vae_dtype).to(device)
        except (OSError, ValueError) as error:
            raise BackboneError(f"{folder} could not be loaded: {error}") from error
        prompts = PromptEncoder(folder, device=device, dtype=dtype, text_length=spec.text_length)
        logger.info("Loaded %s from %s on %s", spec.model_class, folder, device)
        return cls(
            spec=spec,
            transformers=transformers,
            vae=vae,
            prompts=prompts,
            text_width=text_width,
            boundary_sigma=index.get("boundary_ratio"),
            dtype=dtype,
            device=device,
        )

    @classmethod
    def from_pipeline(cls, pipe: WanPipeline, *, text_length: int | None = None) -> "WanBackbone":
        """Wrap the modules of a loaded pipeline, which shares them.

        Args:
            pipe: Wan text-to-video, on one device.
            text_length: Tokens that prompts are padded to; None takes the folder's own, 512 where it says none.

        Raises:
            BackboneError: It is no text-to-video model.
        """
        modules = {name: getattr(pipe, name, None) for name in _COMPONENTS}
        transformers: dict[str, nn.Module] = {name: module for name, module in modules.items() if module is not None}
        if not isinstance(transformers.get("transformer"), WanTransformer3DModel):
            raise BackboneError("The pipeline has no Wan transformer.")
        folder = Path(str(pipe.config.get("_name_or_path", "")))
        model = cast("WanTransformer3DModel", pipe.transformer)
        spec = _spec(folder, model.config, pipe.vae.config, pipe.scheduler.config, text_length)
        return cls(
            spec=spec,
            transformers=transformers,
            vae=pipe.vae,
            prompts=PipelinePrompts(pipe, spec.text_length),
            text_width=int(model.config.text_dim),
            boundary_sigma=pipe.config.get("boundary_ratio"),
            dtype=model.dtype,
            device=pipe.device,
        )

    @classmethod
    def from_config(cls, folder: Path, *, dtype: torch.dtype, text_length: int | None) -> "WanBackbone":
        """Build on the meta device from config files; see `meta_backbone`."""
        index, spec, text_width = _read_facts(folder, text_length)
        with torch.device("meta"):
            transformers: dict[str, nn.Module] = {
                name: in_precision(
                    WanTransformer3DModel.from_config(WanTransformer3DModel.load_config(folder / name)), dtype
                )
                for name in _component_names(folder, index)
            }
            vae = AutoencoderKLWan.from_config(AutoencoderKLWan.load_config(folder / "vae"))
        return cls(
            spec=spec,
            transformers=transformers,
            vae=vae,
            prompts=None,
            text_width=text_width,
            boundary_sigma=index.get("boundary_ratio"),
            dtype=dtype,
            device=torch.device("meta"),
        )

    def encode_prompts(self, prompts: Sequence[str], negative: str | Sequence[str] | None = None) -> Conditioning:
        """Encode prompts as `WanPipeline` does; see `VideoBackbone.encode_prompts`."""
        if negative is None or isinstance(negative, str):
            negative = [negative or ""] * len(prompts)
        if len(negative) != len(prompts):
            raise ConfigError(f"{len(negative)} negative prompts for {len(prompts)} prompts: give one, or one each.")
        if self._prompts is None:
            empty = torch.empty(len(prompts), self.spec.text_length, self._text_width, dtype=self.dtype, device="meta")
            return Conditioning(empty, empty)
        return Conditioning(self._prompts.encode(prompts), self._prompts.encode(negative))

    def release_text_encoder(self) -> None:
        """Free the text encoder; see `VideoBackbone.release_text_encoder`."""
        if self._prompts is not None:
            self._prompts.release()

    def latent_grid(self, latents: Tensor) -> Grid:
        """Return the tokens of latents (B, C, Fl, Hl, Wl)."""
        return Grid(*(size // patch for size, patch in zip(latents.shape[2:], self.spec.patch_size, strict=True)))

    def velocity(
        self,
        latents: Tensor,
        sigma: Tensor,
        cond: Conditioning,
        *,
        guidance: float | tuple[float, float] = 1.0,
        context: CausalContext | None = None,
    ) -> Tensor:
        """Return the predicted velocity; see `VideoBackbone.velocity`.

        Args:
            latents: See there.
            sigma: See there.
            cond: See there.
            guidance: See there; 1 with a context.
            context: Of a causal forward pass; None is the stock, bidirectional model.

        Raises:
            ConfigError: The batch of conditioning does not fit, or a batch of noise levels lies on both sides of the
                two experts' boundary.
        """
        batch = latents.shape[0]
        if len(cond) != batch:
            raise ConfigError(f"{len(cond)} encoded prompts for a batch of {batch} latents.")
        name = self._expert(sigma)
        scale = guidance if isinstance(guidance, float | int) else guidance[_COMPONENTS.index(name)]
        timestep = self._timestep(sigma, latents)
        model_input = latents.to(self.dtype)
        embeds = cond.prompt_embeds.to(device=self.device, dtype=self.dtype)
        if context is not None:
            if scale != 1.0:
                raise ConfigError("A causal context belongs to one prompt: guidance runs two roll-out states.")
            with causal_attention(self.transformers[name], context):
                return self._forward(name, model_input, timestep, embeds).to(latents.dtype)
        if scale == 1.0:
            return self._forward(name, model_input, timestep, embeds).to(latents.dtype)
        negative = cond.negative_embeds.to(device=self.device, dtype=self.dtype)
        both = self._forward(
            name, torch.cat([model_input, model_input]), torch.cat([timestep, timestep]), torch.cat([embeds, negative])
        )
        conditional, unconditional = both.to(latents.dtype).chunk(2)
        return unconditional + scale * (conditional - unconditional)

    def _forward(self, name: str, latents: Tensor, timestep: Tensor, embeds: Tensor) -> Tensor:
        output: Tensor = self.transformers[name](
            hidden_states=latents, timestep=timestep, encoder_hidden_states=embeds, return_dict=False
        )[0]
        return output

    def _expert(self, sigma: Tensor) -> str:
        """Return the component that is responsible for a noise level."""
        if self.boundary_sigma is None:
            return "transformer"
        high = sigma * NUM_TRAIN_TIMESTEPS >= self.boundary_sigma * NUM_TRAIN_TIMESTEPS
        if high.all():
            return "transformer"
        if high.any():
            raise ConfigError(
                f"A batch has noise levels on both sides of the experts' boundary {self.boundary_sigma}: draw them "
                "on one side for each batch."
            )
        return "transformer_2"

    def _timestep(self, sigma: Tensor, latents: Tensor) -> Tensor:
        """Return timesteps, shape (batch,), or (batch, tokens) for per-frame noise levels."""
        timestep = sigma.to(device=latents.device, dtype=torch.float32) * NUM_TRAIN_TIMESTEPS
        if timestep.ndim < 2:
            return timestep.expand(latents.shape[0])
        p_t, p_h, p_w = self.spec.patch_size
        tokens_per_frame = (latents.shape[3] // p_h) * (latents.shape[4] // p_w)
        return timestep[:, ::p_t].repeat_interleave(tokens_per_frame, dim=1)

    def normalise(self, raw: Tensor) -> Tensor:
        """Return the VAE's raw latents as the transformer sees them, shape unchanged."""
        return (raw - self._latents_mean) / self._latents_std

    def denormalise(self, latents: Tensor) -> Tensor:
        """Return normalised latents as the VAE's decoder takes them, shape unchanged."""
        return latents * self._latents_std + self._latents_mean

    def encode(self, video: Tensor) -> Tensor:
        """Encode clips to normalised latents; see `VideoBackbone.encode`."""
        pixels = (video.to(self.device).transpose(1, 2) * 2 - 1).to(self.vae.dtype)
        return self.normalise(self.vae.encode(pixels).latent_dist.mode().float())

    def decode(
        self, latents: Tensor, *, frames: slice | None = None, clamp: Literal["hard", "straight_through"] = "hard"
    ) -> Tensor:
        """Decode normalised latents; see `VideoBackbone.decode`.

        The decoder is causal: the latent frames before the chosen ones are decoded too, those after them are not.

        Raises:
            ConfigError: The run of frames is empty, outside the clip, or stepped; or straight-through with tiling.
        """
        start, stop = _frame_run(frames, latents.shape[2])
        raw = self.denormalise(latents[:, :, :stop]).to(self.vae.dtype)
        if self.vae.use_tiling:
            if clamp != "hard":
                raise ConfigError("clamp='straight_through' does not go with VAE tiling: switch one of them off.")
            video: Tensor = self.vae.decode(raw, return_dict=False)[0]
        else:
            video = decode_unclamped(self.vae, raw)
        pixels = clamp_to_unit(video.transpose(1, 2).float(), clamp)
        return pixels[:, self.spec.pixel_frames(slice(start, stop))]

    def stream_decoder(self) -> StreamDecoder:
        """Return a decoder of one clip, or batch of clips, that takes latents in pieces as they come.

        Raises:
            ConfigError: Tiling is on.
        """
        return StreamDecoder(self.vae, self.denormalise)

    def decode_chunked(
        self,
        latents: Tensor,
        *,
        frames: Sequence[int] | None = None,
        clamp: Literal["hard", "straight_through"] = "hard",
        cache_every: int = 1,
        cache_on_cpu: bool = False,
    ) -> Tensor:
        """Decode with a gradient at the memory of one latent frame; see `VideoBackbone.decode_chunked`."""
        raw = self.denormalise(latents).to(self.vae.dtype)
        waiting_place = "cpu" if cache_on_cpu else None
        return chunked_decode(
            self.vae, raw, frames=frames, clamp=clamp, border_every=cache_every, cache_device=waiting_place
        )

    def enable_tiling(self, *, tile_size: int = 256, tile_stride: int = 192) -> None:
        """Encode and decode in overlapping square tiles.

        Args:
            tile_size: Side of a tile in pixels.
            tile_stride: Distance of two tiles in pixels, smaller than tile_size.
        """
        self.vae.enable_tiling(tile_size, tile_size, tile_stride, tile_stride)

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute blocks in the backward pass, with the adapter state that the forward pass saw."""
        for wrapped in self.transformers.values():
            for transformer in wrapped.modules():
                if not isinstance(transformer, WanTransformer3DModel):
                    continue
                if enabled:
                    transformer.enable_gradient_checkpointing(checkpoint_with_adapters)
                else:
                    transformer.disable_gradient_checkpointing()


def in_precision(transformer: WanTransformer3DModel, dtype: torch.dtype) -> WanTransformer3DModel:
    """Cast as `from_pretrained` does: the model's own list of sensitive modules stays float32."""
    for name, parameter in transformer.named_parameters():
        if not any(module in name.split(".") for module in transformer._keep_in_fp32_modules):
            parameter.data = parameter.data.to(dtype)
    return transformer


def _frame_run(frames: slice | None, num_latent_frames: int) -> tuple[int, int]:
    if frames is None:
        return 0, num_latent_frames
    start, stop, step = frames.indices(num_latent_frames)
    if step != 1 or start >= stop:
        raise ConfigError(f"Latent frames {frames} of a clip with {num_latent_frames}: give a run such as slice(0, 1).")
    return start, stop


def _component_names(folder: Path, index: dict[str, Any]) -> tuple[str, ...]:
    names = tuple(name for name in _COMPONENTS if (index.get(name) or [None, None])[1] is not None)
    if not names or names[0] != "transformer":
        raise BackboneError(f"{folder}/model_index.json names no transformer.")
    if len(names) == 2 and index.get("boundary_ratio") is None:
        raise BackboneError(f"{folder} has two transformers but no boundary_ratio in model_index.json.")
    return names


def _read_facts(folder: Path, text_length: int | None) -> tuple[dict[str, Any], BackboneSpec, int]:
    """Return the pipeline index, the spec and the width of the text embeddings."""
    index = read_json(folder / "model_index.json")
    transformer = read_json(folder / "transformer" / "config.json")
    vae = read_json(folder / "vae" / "config.json")
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    spec = _spec(folder, transformer, vae, scheduler, text_length)
    return index, spec, int(transformer["text_dim"])


def _spec(
    folder: Path,
    transformer: Mapping[str, Any],
    vae: Mapping[str, Any],
    scheduler: Mapping[str, Any],
    text_length: int | None,
) -> BackboneSpec:
    """Return the facts that the components' configs and the folder's own file tell."""
    own_file = folder / "rlhf_video.json"
    own = read_json(own_file) if own_file.is_file() else {}
    if transformer.get("_class_name", "WanTransformer3DModel") != "WanTransformer3DModel" or transformer.get(
        "image_dim"
    ):
        raise BackboneError(f"{folder}/transformer is not a Wan text-to-video transformer.")
    _check_flow_matching(folder, scheduler)
    return BackboneSpec(
        model_class="WanPipeline",
        latent_channels=int(transformer["in_channels"]),
        temporal_stride=int(vae.get("scale_factor_temporal", 4)),
        spatial_stride=int(vae.get("scale_factor_spatial", 8)),
        patch_size=tuple(transformer["patch_size"]),
        fps=int(own.get("fps", 16)),
        prediction="velocity",
        lora_targets=WAN_LORA_TARGETS,
        default_shift=float(own.get("default_shift", scheduler.get("shift", scheduler.get("flow_shift", 1.0)))),
        text_length=int(text_length or own.get("text_length", 512)),
    )


def _check_flow_matching(folder: Path, scheduler: Mapping[str, Any]) -> None:
    """Refuse a scheduler of another kind of diffusion: velocities would be read as what they are not."""
    name, kind = str(scheduler.get("_class_name", "FlowMatch")), scheduler.get("prediction_type")
    is_flow = name.startswith("FlowMatch") or scheduler.get("use_flow_sigmas") or kind == "flow_prediction"
    if not is_flow or kind not in (None, "flow_prediction"):
        raise BackboneError(
            f"{folder}/scheduler is {name} with prediction_type={kind}: a flow-matching model is needed (Wan's own has "
            "FlowMatchEulerDiscreteScheduler, or UniPC with use_flow_sigmas and flow_prediction)."
        )
