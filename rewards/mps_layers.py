"""The part of MPS that is not CLIP: image tokens look at text tokens (github.com/Kwai-Kolors/MPS, cross_modeling.py).

Four layers of cross-attention and a parallel transformer block as in PaLM: many queries share one key and one value
head, rotary positions over the image tokens, SwiGLU. Letters: b batch, q image tokens, k text tokens, h heads.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

HEAD_DIM = 64
FEED_FORWARD = 4
"""Widening of the feed-forward layers."""

_NAMES = {
    "0.fn.norm": "cross.norm",
    "0.fn.to_q": "cross.query",
    "0.fn.to_kv": "cross.key_value",
    "0.fn.to_out": "cross.out",
    "0.fn.ff.0": "cross.widen",
    "0.fn.ff.2": "cross.narrow",
    "1.fn.norm": "block.norm",
    "1.fn.fused_attn_ff_proj": "block.fused",
    "1.fn.attn_out": "block.out",
    "1.fn.ff_out.1": "block.narrow",
}


def image_text_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the authors' weights; the rotary frequencies are constants and stay behind.

    Args:
        state: Names "layers.0.0.fn.norm.weight" and so on. Unknown ones are kept, for strict loading to refuse.
    """
    renamed = {}
    for name, value in state.items():
        if name.endswith(".rotary_emb.inv_freq"):
            continue
        layers, _, rest = name.partition(".")
        number, _, part = rest.partition(".")
        stem, _, kind = part.rpartition(".")
        renamed[f"{layers}.{number}.{_NAMES[stem]}.{kind}" if stem in _NAMES else name] = value
    return renamed


class ImageTextLayers(nn.Module):
    """Image tokens conditioned on text tokens."""

    def __init__(self, width: int, *, heads: int, num_layers: int) -> None:
        """Build the layers.

        Args:
            width: Of both kinds of tokens.
            heads: Query heads, of 64 each.
            num_layers: Depth.
        """
        super().__init__()
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(num_layers))

    def forward(self, image: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Return image tokens (b, q, width) that have read text tokens (b, k, width) through a mask (b, k).

        The mask is added to the attention logits: 0 where a text token is read, -inf where it is not.
        """
        for layer in self.layers:
            image = layer(image, text, mask)
        return image


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.cross = _CrossAttention(width, heads)
        self.block = _ParallelBlock(width, heads)

    def forward(self, image: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        image = image + self.cross(image, text, mask)
        return image + self.block(image)


class _CrossAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, heads * HEAD_DIM, bias=False)
        self.key_value = nn.Linear(width, 2 * HEAD_DIM, bias=False)
        self.out = nn.Linear(heads * HEAD_DIM, width, bias=False)
        self.widen = nn.Linear(width, 2 * FEED_FORWARD * width, bias=False)
        self.narrow = nn.Linear(FEED_FORWARD * width, width, bias=False)

    def forward(self, image: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        normed = self.norm(image)
        key, value = self.key_value(text).chunk(2, dim=-1)
        attended = _attend(self.query(normed), key, value, mask[:, None, None])
        return self.out(attended) + self.narrow(_swiglu(self.widen(normed)))


class _ParallelBlock(nn.Module):
    """Self-attention and feed-forward side by side, from one fused projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.parts = (heads * HEAD_DIM, HEAD_DIM, HEAD_DIM, 2 * FEED_FORWARD * width)
        self.norm = nn.LayerNorm(width)
        self.fused = nn.Linear(width, sum(self.parts), bias=False)
        self.out = nn.Linear(heads * HEAD_DIM, width, bias=False)
        self.narrow = nn.Linear(FEED_FORWARD * width, width, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        query, key, value, wide = self.fused(self.norm(image)).split(self.parts, dim=-1)
        angles = _angles(image)
        query = _rotate(query.unflatten(-1, (-1, HEAD_DIM)), angles[:, None]).flatten(-2)
        return self.out(_attend(query, _rotate(key, angles), value, None)) + self.narrow(_swiglu(wide))


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attend with queries (b, q, h * 64) to one shared head of keys and values (b, k, 64)."""
    heads = query.unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2)
    shared = (len(query), heads.shape[1], -1, -1)
    attended = functional.scaled_dot_product_attention(
        heads, key[:, None].expand(shared), value[:, None].expand(shared), attn_mask=mask
    )
    return attended.transpose(1, 2).flatten(-2)


def _swiglu(wide: Tensor) -> Tensor:
    value, gate = wide.chunk(2, dim=-1)
    return functional.silu(gate) * value


def _angles(tokens: Tensor) -> Tensor:
    """Return rotary angles (q, 64) for tokens (b, q, width)."""
    exponents = torch.arange(0, HEAD_DIM, 2, device=tokens.device).float() / HEAD_DIM
    frequencies = (1.0 / 10000**exponents).to(tokens.dtype)
    positions = torch.arange(tokens.shape[1], device=tokens.device, dtype=tokens.dtype)
    return torch.outer(positions, frequencies).repeat(1, 2)


def _rotate(vectors: Tensor, angles: Tensor) -> Tensor:
    first, second = vectors.chunk(2, dim=-1)
    return vectors * angles.cos() + torch.cat((-second, first), dim=-1) * angles.sin()
