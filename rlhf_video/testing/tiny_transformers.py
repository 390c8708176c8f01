"""Tiny transformers of every class that attention plans know, with random weights and inputs for any grid."""

from typing import Any, NamedTuple

import torch
from diffusers import (
    CogVideoXTransformer3DModel,
    EasyAnimateTransformer3DModel,
    HunyuanVideoTransformer3DModel,
    LTXVideoTransformer3DModel,
    WanTransformer3DModel,
)
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from torch import Tensor, nn

_HEADS, _HEAD_DIM, _CHANNELS, _TEXT_WIDTH, _TEXT_LENGTH = 2, 16, 4, 8, 5


class TinyTransformer(NamedTuple):
    """A transformer and what it takes to run it."""

    model: Any
    """The diffusers model, in eval mode."""
    name: str

    def inputs(self, grid: tuple[int, int, int], *, batch: int = 1, seed: int = 0) -> dict[str, Any]:
        """Return random inputs for a grid of tokens; timesteps 500; texts of 5, HunyuanVideo's of 5, 4, ... tokens."""
        return _inputs(self.name, grid, batch, torch.Generator().manual_seed(seed))

    def run(self, inputs: dict[str, Any]) -> Tensor:
        """Return the model's output."""
        output: Tensor = self.model(**inputs, return_dict=False)[0]
        return output


def tiny_transformer(name: str, *, seed: int = 0) -> TinyTransformer:
    """Return a tiny model: 4 layers of 2 heads of 16 channels, spatial patches of 2 (LTX: none).

    Args:
        name: One of `TINY_TRANSFORMERS`.
        seed: Seed of the weights; all of them are random, those that models start at zero too.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TINY_TRANSFORMERS[name]()
        for parameter in model.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
    return TinyTransformer(model.eval(), name)


def _wan() -> nn.Module:
    return WanTransformer3DModel(
        num_attention_heads=_HEADS,
        attention_head_dim=_HEAD_DIM,
        in_channels=_CHANNELS,
        out_channels=_CHANNELS,
        text_dim=_TEXT_WIDTH,
        freq_dim=16,
        ffn_dim=32,
        num_layers=4,
        rope_max_seq_len=32,
    )


def _cogvideox() -> nn.Module:
    return CogVideoXTransformer3DModel(
        num_attention_heads=_HEADS,
        attention_head_dim=_HEAD_DIM,
        in_channels=_CHANNELS,
        out_channels=_CHANNELS,
        time_embed_dim=16,
        text_embed_dim=_TEXT_WIDTH,
        num_layers=4,
        max_text_seq_length=_TEXT_LENGTH,
        use_rotary_positional_embeddings=True,
    )


def _hunyuan() -> nn.Module:
    return HunyuanVideoTransformer3DModel(
        in_channels=_CHANNELS,
        out_channels=_CHANNELS,
        num_attention_heads=_HEADS,
        attention_head_dim=_HEAD_DIM,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        text_embed_dim=_TEXT_WIDTH,
        pooled_projection_dim=_TEXT_WIDTH,
        rope_axes_dim=(4, 6, 6),
    )


def _ltx() -> nn.Module:
    return LTXVideoTransformer3DModel(
        in_channels=_CHANNELS,
        out_channels=_CHANNELS,
        num_attention_heads=_HEADS,
        attention_head_dim=_HEAD_DIM,
        cross_attention_dim=_HEADS * _HEAD_DIM,
        num_layers=4,
        caption_channels=_TEXT_WIDTH,
    )


def _easyanimate() -> nn.Module:
    return EasyAnimateTransformer3DModel(
        num_attention_heads=_HEADS,
        attention_head_dim=_HEAD_DIM,
        in_channels=_CHANNELS,
        out_channels=_CHANNELS,
        patch_size=2,
        num_layers=4,
        mmdit_layers=2,
        time_embed_dim=16,
        text_embed_dim=_TEXT_WIDTH,
    )


TINY_TRANSFORMERS = {
    "WanTransformer3DModel": _wan,
    "CogVideoXTransformer3DModel": _cogvideox,
    "HunyuanVideoTransformer3DModel": _hunyuan,
    "LTXVideoTransformer3DModel": _ltx,
    "EasyAnimateTransformer3DModel": _easyanimate,
}
"""Class name -> builder."""


def _inputs(name: str, grid: tuple[int, int, int], batch: int, generator: torch.Generator) -> dict[str, Any]:
    frames, height, width = grid
    latents = torch.randn(batch, _CHANNELS, frames, 2 * height, 2 * width, generator=generator)
    text = torch.randn(batch, _TEXT_LENGTH, _TEXT_WIDTH, generator=generator)
    inputs: dict[str, Any] = {"hidden_states": latents, "encoder_hidden_states": text}
    inputs["timestep"] = torch.full((batch,), 500.0)
    if name == "CogVideoXTransformer3DModel":
        inputs["hidden_states"] = latents.transpose(1, 2)
        rotary = get_3d_rotary_pos_embed(_HEAD_DIM, ((0, 0), (height, width)), (height, width), frames, use_real=True)
        inputs["image_rotary_emb"] = rotary
    elif name == "HunyuanVideoTransformer3DModel":
        counts = torch.tensor([max(_TEXT_LENGTH - item, 1) for item in range(batch)])
        inputs["encoder_attention_mask"] = torch.arange(_TEXT_LENGTH)[None] < counts[:, None]
        inputs["pooled_projections"] = torch.randn(batch, _TEXT_WIDTH, generator=generator)
        inputs["guidance"] = torch.full((batch,), 6000.0)
    elif name == "LTXVideoTransformer3DModel":
        inputs["hidden_states"] = torch.randn(batch, frames * height * width, _CHANNELS, generator=generator)
        inputs["encoder_attention_mask"] = torch.ones(batch, _TEXT_LENGTH)
        inputs |= {"num_frames": frames, "height": height, "width": width}
    return inputs
