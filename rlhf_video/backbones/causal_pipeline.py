"""A causal, few-step adapter for users of diffusers: a loaded `WanPipeline` in, clips or a stream of frames out.

    pipe = WanPipeline.from_pretrained(base)
    causal = CausalWanPipeline.from_pipeline(pipe, adapter="adapters/sprite-wan-asd")
    frames = causal(prompt, num_frames=21, height=64, width=64, num_inference_steps=2).frames[0]
    for chunk in causal.stream(prompt, ...): ...                      # as soon as each chunk is there

The same seed gives the pixels of generate.py. The `WanPipeline` itself stays what it was.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import WanPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.wan.pipeline_output import WanPipelineOutput
from torch import Tensor

from rlhf_video.backbones.base import Conditioning, VideoShape
from rlhf_video.backbones.causal_recipe import CausalRecipe
from rlhf_video.backbones.causal_sampling import Generators, causal_backbone, sample_chunks
from rlhf_video.backbones.wan import WanBackbone
from rlhf_video.errors import AdapterError, ConfigError
from rlhf_video.lora.adapter import adapter_layers
from rlhf_video.lora.files import AttentionRule, load_adapter, read_adapter_folder, recorded_attention

OutputType = Literal["np", "pt", "pil", "latent"]


class CausalWanPipeline:
    """Text to video, chunk after chunk."""

    def __init__(self, backbone: WanBackbone, recipe: CausalRecipe) -> None:
        """Use a model that carries its adapter; `from_pipeline` is for pipelines.

        Args:
            backbone: The model.
            recipe: How its adapter was trained.

        Raises:
            ConfigError: The recipe's layout does not go with the model.
        """
        self.backbone, self.recipe = causal_backbone(backbone, recipe), recipe

    @classmethod
    def from_pipeline(
        cls,
        pipe: WanPipeline,
        adapter: str | Path | None = None,
        *,
        recipe: CausalRecipe | None = None,
        text_length: int | None = None,
        attention: AttentionRule = "apply",
    ) -> "CausalWanPipeline":
        """Wrap a loaded pipeline; its modules are shared, not copied.

        Args:
            pipe: Wan text-to-video, on one device.
            adapter: Adapter folder. Its recipe is read, and its weights are attached unless `load_lora_weights` has
                done that already.
            recipe: In place of the file's, or where the adapter is fused into the weights (then without a folder).
            text_length: Tokens that prompts are padded to; None takes the model folder's own, 512 where it says none.
            attention: Where the adapter was trained under an attention plan: "apply" puts it on the model, "check"
                refuses another, "ignore" logs a warning.

        Raises:
            AdapterError: The folder holds no causal adapter, does not fit, or another one is loaded.
            ConfigError: Neither a folder nor a recipe was given, or the recipe does not go with the model.
        """
        if adapter is None and recipe is None:
            raise ConfigError("CausalWanPipeline needs the adapter's folder, or a CausalRecipe for a fused adapter.")
        backbone = WanBackbone.from_pipeline(pipe, text_length=text_length)
        if adapter is not None:
            metadata = _attached(backbone, adapter, attention)
            recipe = recipe or CausalRecipe.from_metadata(metadata)
        if recipe is None:
            raise AdapterError(
                f"The adapter '{adapter}' was not trained causally, or its file does not say how: use it in "
                "WanPipeline, or give a recipe."
            )
        return cls(backbone, recipe)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        num_frames: int = 81,
        height: int = 480,
        width: int = 832,
        num_inference_steps: int | None = None,
        guidance_scale: float = 1.0,
        negative_prompt: str = "",
        generator: Generators | None = None,
        output_type: OutputType = "np",
    ) -> WanPipelineOutput:
        """Generate clips.

        Args:
            prompt: One, or one for each clip.
            num_frames: Pixel frames, 4k + 1.
            height: Pixels.
            width: Pixels.
            num_inference_steps: One of the recipe's step counts; None takes its largest.
            guidance_scale: 1 for a distilled adapter, which has its guidance inside.
            negative_prompt: What guidance moves away from.
            generator: On the CPU: one, or one for each clip; None draws from torch's own.
            output_type: "np" (B, F, H, W, 3) and "pt" (B, F, 3, H, W) in [0, 1], "pil", or "latent" (B, C, Fl, Hl, Wl),
                normalised.

        Returns:
            Frames as `WanPipeline` returns them.

        Raises:
            ConfigError: A step count that was not trained, a size that does not fit, an unknown output type.
        """
        if output_type not in ("np", "pt", "pil", "latent"):
            raise ConfigError(f"output_type={output_type!r}: use np, pt, pil or latent.")
        chunks = self._chunks(
            prompt, num_frames, height, width, num_inference_steps, guidance_scale, negative_prompt, generator
        )
        latents = torch.cat(list(chunks), 2)
        if output_type == "latent":
            return WanPipelineOutput(frames=latents)
        video = torch.cat([self.backbone.decode(one[None]) for one in latents])
        return WanPipelineOutput(frames=_as_type(video, output_type))

    @torch.no_grad()
    def stream(
        self,
        prompt: str | Sequence[str],
        *,
        num_frames: int = 81,
        height: int = 480,
        width: int = 832,
        num_inference_steps: int | None = None,
        guidance_scale: float = 1.0,
        negative_prompt: str = "",
        generator: Generators | None = None,
        output_type: OutputType = "np",
    ) -> Iterator[Any]:
        """Generate clips and yield the frames of each chunk as soon as they are decoded; see `__call__`.

        Yields:
            Frames (B, chunk's frames, ...) of the output type; together those of `__call__`.
        """
        chunks = self._chunks(
            prompt, num_frames, height, width, num_inference_steps, guidance_scale, negative_prompt, generator
        )
        if output_type == "latent":
            yield from chunks
            return
        decoders = None
        for chunk in chunks:
            decoders = decoders or [self.backbone.stream_decoder() for _ in chunk]
            video = torch.cat([decoder.decode(one[None]) for decoder, one in zip(decoders, chunk, strict=True)])
            yield _as_type(video, output_type)

    def _chunks(
        self,
        prompt: str | Sequence[str],
        num_frames: int,
        height: int,
        width: int,
        num_steps: int | None,
        guidance: float,
        negative_prompt: str,
        generator: Generators | None,
    ) -> Iterator[Tensor]:
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        cond: Conditioning = self.backbone.encode_prompts(prompts, negative_prompt)
        return sample_chunks(
            self.backbone,
            cond,
            self.recipe,
            num_steps=num_steps or max(self.recipe.steps, default=4),
            shape=VideoShape(batch=len(prompts), frames=num_frames, height=height, width=width),
            generators=torch.default_generator if generator is None else generator,
            guidance=guidance,
        )


def _attached(backbone: WanBackbone, adapter: str | Path, attention: AttentionRule) -> dict[str, Any]:
    """Return an adapter's metadata; attach its weights unless they are there, under its attention plan.

    Raises:
        AdapterError: Another adapter is there, or another plan where `attention` is "check".
    """
    layers = {name: layer for name, layer in adapter_layers(backbone) if layer.lora_A}
    if not layers:
        return load_adapter(backbone, adapter, attention=attention)
    state, metadata = read_adapter_folder(adapter)
    active = {name for layer in layers.values() for name in layer.active_adapters}
    loaded = {
        f"{place}.{label}.weight": matrix[name].weight
        for place, layer in layers.items()
        for name in active
        for label, matrix in (("lora_A", layer.lora_A), ("lora_B", layer.lora_B))
        if name in matrix
    }
    is_same = len(active) == 1 and loaded.keys() == state.keys()
    if not is_same or any(not torch.equal(state[name].to(weight), weight) for name, weight in loaded.items()):
        raise AdapterError(
            f"The pipeline runs other adapter weights than those of '{adapter}': call unload_lora_weights() first, or "
            "load that folder alone."
        )
    backbone.match_attention(recorded_attention(metadata), attention)
    return metadata


def _as_type(video: Tensor, output_type: OutputType) -> Any:
    """Return pixels (B, F, 3, H, W) as a user asked for them."""
    if output_type == "pt":
        return video
    pixels = video.permute(0, 1, 3, 4, 2).float().cpu().numpy()
    return pixels if output_type == "np" else [VaeImageProcessor.numpy_to_pil(clip) for clip in pixels]
