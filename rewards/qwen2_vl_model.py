"""The Qwen2-VL towers as the reward models run them (Wang et al. 2024, arXiv:2409.12191).

Written out instead of taken from `transformers` for four reasons. The public reward models were trained with plain
sequential positions on all three axes of M-RoPE, which is ordinary RoPE; and with position tables rounded to bfloat16,
because their scripts call `model.to(bfloat16)`, which converts RoPE's buffers too (at position 1,000 that turns some
angles by a radian, so exact tables are another model). Clips of a batch share one grid, so attention runs over all
frames at once. And every step follows the precision of its input, so float64 gradient checks see no float32.

Names of parameters are those of `transformers.Qwen2VLModel` ("visual.", "language_model.").
Letters: N rows (clips or images), S groups of two frames, P patches of a group, L tokens, D width.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2VLConfig
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig, Qwen2VLVisionConfig

from rewards.errors import RewardError


class Qwen2VL(nn.Module):
    """Vision tower and language model, without generation."""

    def __init__(self, config: Qwen2VLConfig, *, position_dtype: torch.dtype = torch.bfloat16) -> None:
        """Build the towers; parameters hold whatever memory held, until weights are loaded.

        Args:
            config: Sizes.
            position_dtype: Precision of the position tables, see the file's head.

        Raises:
            RewardError: Sizes that this file does not know: another activation, or patches that are no pairs of frames.
        """
        super().__init__()
        vision, text = cast(Qwen2VLVisionConfig, config.vision_config), cast(Qwen2VLTextConfig, config.text_config)
        facts = (vision.temporal_patch_size, vision.in_channels, vision.hidden_act, text.hidden_act)
        if facts != (2, 3, "quick_gelu", "silu") or text.use_sliding_window:
            raise RewardError(
                f"This is no Qwen2-VL: temporal patch, channels and activations are {facts}, expected "
                "(2, 3, 'quick_gelu', 'silu') without a sliding window."
            )
        if vision.hidden_size != text.hidden_size:
            raise RewardError(
                f"The vision tower hands over {vision.hidden_size} channels, the language model takes "
                f"{text.hidden_size}: they do not belong together."
            )
        self.visual = VisionTower(vision, position_dtype)
        self.language_model = LanguageModel(text, position_dtype)


class VisionTower(nn.Module):
    """From patches to tokens of the language model, 2x2 patches merged into one."""

    def __init__(self, config: Qwen2VLVisionConfig, position_dtype: torch.dtype) -> None:
        """Build the tower."""
        super().__init__()
        width = config.embed_dim
        self.patch_size = cast(int, config.patch_size)
        self.merge_size = config.spatial_merge_size
        self._head_size, self._position_dtype = width // config.num_heads, position_dtype
        kernel = (2, self.patch_size, self.patch_size)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(3, width, kernel_size=kernel, bias=False)})
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(config.depth))
        self.merger = Merger(width, config.hidden_size, self.merge_size)

    def forward(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """Encode.

        Args:
            patches: (N, S, P, 3 * 2 * patch_size**2), in the order of `patchify`.
            grid: Patches per column and per row; their product is P.

        Returns:
            Merged tokens (N, S * P / merge_size**2, D).
        """
        weight = cast(nn.Conv3d, self.patch_embed["proj"]).weight
        hidden = functional.linear(patches.flatten(0, 1), weight.flatten(1))
        angles = self._angles(grid, patches.device)
        # The original takes cosines in the table's own precision.
        cos, sin = (torch.cat((table, table), dim=-1).to(hidden.dtype) for table in (angles.cos(), angles.sin()))
        for block in self.blocks:
            hidden = block(hidden, cos, sin)
        return self.merger(hidden).unflatten(0, patches.shape[:2]).flatten(1, 2)

    def _angles(self, grid: tuple[int, int], device: torch.device) -> Tensor:
        """Return angles (P, head_size / 2): half of them turn with the patch's row, half with its column."""
        dtype = self._position_dtype
        frequencies = _inverse_frequencies(self._head_size // 2, 10000.0, device).to(dtype)
        rows, columns = (torch.arange(size, device=device) for size in grid)
        merge = self.merge_size

        def per_patch(coordinates: Tensor) -> Tensor:
            blocks = coordinates.expand(grid).reshape(grid[0] // merge, merge, grid[1] // merge, merge)
            return torch.outer(blocks.permute(0, 2, 1, 3).flatten().to(dtype), frequencies)

        return torch.cat([per_patch(rows[:, None]), per_patch(columns)], dim=-1)


class VisionBlock(nn.Module):
    """Attention among the patches of one group of frames, then an MLP."""

    def __init__(self, config: Qwen2VLVisionConfig) -> None:
        """Build the block."""
        super().__init__()
        width, inner = config.embed_dim, config.embed_dim * config.mlp_ratio
        self._num_heads = config.num_heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, inner), "fc2": nn.Linear(inner, width)})

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map (N * S, P, D) to the same shape; `cos` and `sin` are (P, head_size)."""
        qkv = self.attn["qkv"](self.norm1(hidden)).unflatten(-1, (3, self._num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(_rotate(query, cos, sin), _rotate(key, cos, sin), value)
        hidden = hidden + self.attn["proj"](mixed.transpose(1, 2).flatten(2))
        inner = self.mlp["fc1"](self.norm2(hidden))
        return hidden + self.mlp["fc2"](inner * torch.sigmoid(1.702 * inner))


class Merger(nn.Module):
    """Four neighbouring patches to one token."""

    def __init__(self, width: int, out_width: int, merge_size: int) -> None:
        """Build the MLP."""
        super().__init__()
        inner = width * merge_size**2
        self._inner = inner
        self.ln_q = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(inner, inner), nn.GELU(), nn.Linear(inner, out_width))

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N * S, P, width) to (N * S, P / merge_size**2, out_width)."""
        return self.mlp(self.ln_q(hidden).reshape(len(hidden), -1, self._inner))


class LanguageModel(nn.Module):
    """Qwen2 decoder over embeddings at positions 0, 1, 2, ..."""

    def __init__(self, config: Qwen2VLTextConfig, position_dtype: torch.dtype) -> None:
        """Build the decoder."""
        super().__init__()
        self._head_size = config.hidden_size // config.num_attention_heads
        self._theta = float((config.rope_parameters or {})["rope_theta"])
        self._position_dtype = position_dtype
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map embeddings (N, L, D) to hidden states (N, L, D); a token sees those before it, so padding goes last."""
        frequencies = _inverse_frequencies(self._head_size, self._theta, embeddings.device)
        frequencies = frequencies.to(self._position_dtype).float()
        angles = torch.outer(torch.arange(embeddings.shape[1], device=embeddings.device).float(), frequencies)
        cos, sin = (torch.cat((table, table), dim=-1).to(embeddings.dtype) for table in (angles.cos(), angles.sin()))
        hidden = embeddings
        for layer in self.layers:
            hidden = layer(hidden, cos, sin)
        return self.norm(hidden)


class DecoderLayer(nn.Module):
    """Causal attention with grouped keys, then a gated MLP."""

    def __init__(self, config: Qwen2VLTextConfig) -> None:
        """Build the layer."""
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self._head_size = width // config.num_attention_heads
        key_width = self._head_size * cast(int, config.num_key_value_heads)
        self.input_layernorm = RmsNorm(width, config.rms_norm_eps)
        self.post_attention_layernorm = RmsNorm(width, config.rms_norm_eps)
        projections = {"q_proj": nn.Linear(width, width), "o_proj": nn.Linear(width, width, bias=False)}
        projections |= {name: nn.Linear(width, key_width) for name in ("k_proj", "v_proj")}
        self.self_attn = nn.ModuleDict(projections)
        gates = {name: nn.Linear(width, inner, bias=False) for name in ("gate_proj", "up_proj")}
        self.mlp = nn.ModuleDict({**gates, "down_proj": nn.Linear(inner, width, bias=False)})

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map (N, L, D) to the same shape; `cos` and `sin` are (L, head_size)."""
        normed, attention = self.input_layernorm(hidden), self.self_attn
        query, key, value = (
            attention[name](normed).unflatten(-1, (-1, self._head_size)).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        hidden = hidden + attention["o_proj"](mixed.transpose(1, 2).flatten(2))
        normed = self.post_attention_layernorm(hidden)
        gated = functional.silu(self.mlp["gate_proj"](normed)) * self.mlp["up_proj"](normed)
        return hidden + self.mlp["down_proj"](gated)


class RmsNorm(nn.Module):
    """Division by the root mean square, in float32 or better."""

    def __init__(self, width: int, eps: float) -> None:
        """Build the scale."""
        super().__init__()
        self._eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (..., D) to the same shape."""
        lifted = hidden if hidden.dtype == torch.float64 else hidden.float()
        normed = lifted * torch.rsqrt(lifted.square().mean(-1, keepdim=True) + self._eps)
        return self.weight * normed.to(hidden.dtype)


def _inverse_frequencies(size: int, theta: float, device: torch.device) -> Tensor:
    """Return RoPE's inverse frequencies (size / 2,), float32."""
    return 1.0 / (theta ** (torch.arange(0, size, 2, device=device).float() / size))


def _rotate(vectors: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys (N, heads, L, head_size) by the angles of their positions."""
    first, second = vectors.chunk(2, dim=-1)
    return vectors * cos + torch.cat((-second, first), dim=-1) * sin
