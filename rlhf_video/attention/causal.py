"""Causal self-attention on stock Wan transformers: a mask for training, a key-value cache for roll-outs.

    make_causal(transformer)                                # processors that do nothing yet
    with causal_attention(transformer, context):            # one frozen CausalContext for one forward pass
        transformer(...)

Outside of a context the stock processor runs: the model is the stock model, bit for bit. Under one, keys are kept
before the rotary embedding. A block that gradient checkpointing recomputes sees the context of its forward pass
(`recompute.py`).
Letters: B batch, N tokens, S heads, D channels of a head; tensors are (B, N, S, D).
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch import Tensor, nn

from rlhf_video.attention.apply import find_plan
from rlhf_video.attention.causal_cache import KeyValue
from rlhf_video.attention.context import SlottedProcessor
from rlhf_video.attention.families import find_transformer
from rlhf_video.attention.grid import Grid
from rlhf_video.attention.processors import stock_processor
from rlhf_video.attention.recompute import RememberingCheckpoint
from rlhf_video.errors import ConfigError


class Recorder:
    """Collects every layer's keys and values of one forward pass without gradient."""

    def __init__(self) -> None:
        self._by_layer: dict[int, KeyValue] = {}

    def record(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Take a layer's keys and values; what a recomputation brings again is equal."""
        self._by_layer[layer] = (key.detach(), value.detach())

    def all_layers(self) -> tuple[KeyValue, ...]:
        """Return what was collected, first layer first."""
        return tuple(self._by_layer[layer] for layer in sorted(self._by_layer))


@dataclass(frozen=True)
class CausalContext:
    """What one forward pass tells the attention layers."""

    rotary: tuple[Tensor, Tensor]
    """Cosines and sines (1, N, 1, D) of all keys in order, the past's first; queries are the last of them."""
    mask: Tensor | None = None
    """Which query (row) sees which key (column), bool; None lets all see all."""
    layer_masks: Mapping[int, Tensor] = field(default_factory=dict)
    """Layer -> its own mask, where a window narrows it."""
    past: tuple[tuple[KeyValue, ...], ...] = ()
    """For each run of past frames, oldest first, every layer's keys and values; joined where they are read, so that
    the graphs of many chunks share them."""
    text: tuple[KeyValue, ...] = ()
    """Projected text for each layer; empty projects it anew."""
    recorder: Recorder | None = None
    """Where keys and values of the video tokens go."""
    text_recorder: Recorder | None = None
    """Where keys and values of the text go."""


class CausalSlot:
    """Holds the context of one layer while a forward pass runs; None runs the stock attention."""

    def __init__(self) -> None:
        self.state: CausalContext | None = None


class CausalProcessor(SlottedProcessor, WanAttnProcessor):
    """Wan's self-attention or cross-attention under a `CausalContext`."""

    def __init__(self, stock: WanAttnProcessor, layer: int) -> None:
        """Stand for a stock processor.

        Args:
            stock: Its settings are taken over.
            layer: Number of the block.
        """
        super().__init__()
        self.__dict__.update(stock.__dict__)
        self.stock, self.layer, self.slot = stock, layer, CausalSlot()

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attend; the signature is the stock one."""
        context = self.slot.state
        if context is None:
            output: Tensor = super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)
            return output
        if encoder_hidden_states is None:
            return self._video(attn, hidden_states, context)
        return self._text(attn, hidden_states, encoder_hidden_states, context)

    def _video(self, attn: Any, hidden_states: Tensor, context: CausalContext) -> Tensor:
        query = _heads(attn, attn.norm_q(attn.to_q(hidden_states)))
        key = _heads(attn, attn.norm_k(attn.to_k(hidden_states)))
        value = _heads(attn, attn.to_v(hidden_states))
        if context.recorder is not None:
            context.recorder.record(self.layer, key, value)
        if context.past:
            past_keys, past_values = zip(*(run[self.layer] for run in context.past), strict=True)
            key, value = torch.cat([*past_keys, key], 1), torch.cat([*past_values, value], 1)
        cosines, sines = context.rotary
        num_queries = query.shape[1]
        query = rotate(query, cosines[:, -num_queries:], sines[:, -num_queries:])
        key = rotate(key, cosines, sines)
        return self._attend(attn, query, key, value, context.layer_masks.get(self.layer, context.mask))

    def _text(self, attn: Any, hidden_states: Tensor, text: Tensor, context: CausalContext) -> Tensor:
        query = _heads(attn, attn.norm_q(attn.to_q(hidden_states)))
        if context.text:
            key, value = context.text[self.layer]
        else:
            key, value = _heads(attn, attn.norm_k(attn.to_k(text))), _heads(attn, attn.to_v(text))
        if context.text_recorder is not None:
            context.text_recorder.record(self.layer, key, value)
        return self._attend(attn, query, key, value, None)

    def _attend(self, attn: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        output = dispatch_attention_fn(query, key, value, attn_mask=mask, backend=self._attention_backend).flatten(2, 3)
        projected: Tensor = attn.to_out[1](attn.to_out[0](output.type_as(query)))
        return projected


def rotate(tokens: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Return tokens (B, N, S, D) under the rotary embedding, in Wan's interleaved layout.

    Args:
        tokens: Queries or keys.
        cosines: Shape (1, N, 1, D), each value twice.
        sines: Likewise.
    """
    even, odd = tokens.unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = cosines[..., 0::2], sines[..., 1::2]
    turned = torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1)
    return turned.flatten(-2).type_as(tokens)


def rotary_table(transformer: nn.Module, grid: Grid) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of all tokens of a grid, (1, N, 1, D) each, frames numbered from 0.

    Raises:
        ConfigError: The grid has more frames than the transformer's table of positions.
    """
    model = _wan(transformer)
    if grid.frames > model.rope.max_seq_len:
        raise ConfigError(
            f"{grid.frames} frames are more than the model's {model.rope.max_seq_len} positions: set "
            "causal.window_frames, then positions stay within it."
        )
    sizes = [size * patch for size, patch in zip(grid, model.config.patch_size, strict=True)]
    table: tuple[Tensor, Tensor] = model.rope(torch.empty((1, 1, *sizes), device="meta"))  # only its shape is read
    return table


def make_causal(transformer: nn.Module) -> None:
    """Give a Wan transformer's attention layers processors that a `CausalContext` drives; a second call does nothing.

    Raises:
        ConfigError: It is no Wan transformer, has an attention plan, fused projections, image inputs, or other
            processors; nothing is changed then.
    """
    model = _wan(transformer)
    if find_plan(model) is not None:
        raise ConfigError(
            "An attention plan is on this transformer: hand the plan to the causal layers instead, as "
            "backbone.enable_causal does, or restore() it first."
        )
    if is_causal(model):
        return
    blocks = enumerate(model.blocks)
    modules = [(layer, attention) for layer, block in blocks for attention in (block.attn1, block.attn2)]
    for layer, attention in modules:
        if attention.add_k_proj is not None:
            raise ConfigError("Causal attention is for text-to-video: this transformer also reads an image.")
        if type(attention.processor) is not WanAttnProcessor or attention.fused_projections:
            raise ConfigError(
                f"Causal attention stands in for Wan's own processor, and block {layer} has a "
                f"{type(attention.processor).__name__}, or fused projections: put the stock one back first "
                "(set_processor, unfuse_qkv_projections)."
            )
    for layer, attention in modules:
        attention.set_processor(CausalProcessor(attention.processor, layer))


def restore_bidirectional(transformer: nn.Module) -> None:
    """Put back the stock processors, with settings made in the meantime, and the plain checkpoint function."""
    model = _wan(transformer)
    for processor, attention in _processors(model):
        attention.set_processor(stock_processor(processor))
    checkpoint = model._gradient_checkpointing_func
    if isinstance(checkpoint, RememberingCheckpoint):
        model._gradient_checkpointing_func = checkpoint.function


def is_causal(transformer: nn.Module) -> bool:
    """Return whether all attention layers of a transformer have the processors of `make_causal`."""
    model = _wan(transformer)
    return len(list(_processors(model))) == 2 * len(model.blocks)


@contextlib.contextmanager
def causal_attention(transformer: nn.Module, context: CausalContext) -> Iterator[None]:
    """Run forward passes inside under a context; backward passes may come later.

    Raises:
        ConfigError: `make_causal` was not called, or a processor was replaced since.
    """
    model = _wan(transformer)
    if not is_causal(model):
        raise ConfigError(
            "This transformer is not causal, or not any more in all of its layers: call backbone.enable_causal(layout) "
            "first, and replace no processors after it."
        )
    slots = [processor.slot for processor, _ in _processors(model)]
    checkpoint = model._gradient_checkpointing_func
    if checkpoint is not None and not isinstance(checkpoint, RememberingCheckpoint):
        model._gradient_checkpointing_func = RememberingCheckpoint(checkpoint)
    before = [slot.state for slot in slots]
    try:
        for slot in slots:
            slot.state = context
        yield
    finally:
        for slot, state in zip(slots, before, strict=True):
            slot.state = state


def _wan(transformer: nn.Module) -> Any:
    model, _ = find_transformer(transformer)
    if not isinstance(model, WanTransformer3DModel):
        raise ConfigError(f"Causal attention is built for WanTransformer3DModel, not for {type(model).__name__}.")
    if model.config.patch_size[0] != 1:
        raise ConfigError(f"Causal attention needs patches of one latent frame, not of {model.config.patch_size[0]}.")
    return model


def _processors(model: Any) -> Iterator[tuple[CausalProcessor, Any]]:
    for block in model.blocks:
        for attention in (block.attn1, block.attn2):
            if isinstance(attention.processor, CausalProcessor):
                yield attention.processor, attention


def _heads(attn: Any, tokens: Tensor) -> Tensor:
    return tokens.unflatten(2, (attn.heads, -1))
