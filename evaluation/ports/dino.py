"""DINO's and DINOv2's vision transformers (arXiv:2104.14294, arXiv:2304.07193), from the authors' own weight files.

Same names as the file's. Two of the authors' rules make a score: columns and rows that fill no patch are dropped, and
position embeddings are interpolated with the scale factors (patches + 0.1) / side, not to the size itself.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.initialization import no_init_weights

from rewards.errors import RewardError
from rewards.weight_files import load_strictly, read_state

HEAD_WIDTH = 64
"""Width of an attention head in every published model."""
NORM_EPS = 1e-6
NUDGE = 0.1
"""What the authors add to a number of patches, against rounding in the interpolation's output size."""
_MASK_TOKEN = "mask_token"  # of DINOv2's training, unused where nothing is masked


class _Architecture(TypedDict):
    width: int
    depth: int
    hidden: int
    patch_size: int
    num_positions: int
    is_scaled: bool


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, num_tokens, width = tokens.shape
        split = self.qkv(tokens).unflatten(-1, (3, width // HEAD_WIDTH, HEAD_WIDTH))
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return cast(Tensor, self.proj(mixed.transpose(1, 2).reshape(batch, num_tokens, width)))


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return cast(Tensor, self.fc2(functional.gelu(self.fc1(tokens))))


class _Scale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * self.gamma


class _Block(nn.Module):
    def __init__(self, width: int, hidden: int, *, is_scaled: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = _Attention(width)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = _Mlp(width, hidden)
        self.ls1 = _Scale(width) if is_scaled else nn.Identity()
        self.ls2 = _Scale(width) if is_scaled else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens)))
        return cast(Tensor, tokens + self.ls2(self.mlp(self.norm2(tokens))))


class _PatchEmbedding(nn.Module):
    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)


class Dino(nn.Module):
    """The backbone without its projection head."""

    def __init__(
        self, *, width: int, depth: int, hidden: int, patch_size: int, num_positions: int, is_scaled: bool = False
    ) -> None:
        """Build it.

        Args:
            width: Of a token, a multiple of 64.
            depth: Number of blocks.
            hidden: Width inside an MLP.
            patch_size: Side of a patch in pixels.
            num_positions: Rows of the position embedding: a square number of patches, and one.
            is_scaled: Whether what a block adds is scaled for each channel, as in DINOv2.
        """
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, num_positions, width))
        self.patch_embed = _PatchEmbedding(width, patch_size)
        self.blocks = nn.ModuleList([_Block(width, hidden, is_scaled=is_scaled) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map normalised images (n, 3, height, width) to features (n, dim), those of the class token."""
        patches = self.patch_embed.proj(pixels)
        rows, columns = patches.shape[-2:]
        is_square = pixels.shape[-2] == pixels.shape[-1]
        tokens = torch.cat([self.cls_token.expand(len(pixels), -1, -1), patches.flatten(2).mT], dim=1)
        tokens = tokens + self._positions(rows, columns, is_square=is_square)
        for block in self.blocks:
            tokens = block(tokens)
        return cast(Tensor, self.norm(tokens)[:, 0])

    def _positions(self, rows: int, columns: int, *, is_square: bool) -> Tensor:
        """Return position embeddings (1, 1 + rows * columns, dim)."""
        num_known = self.pos_embed.shape[1] - 1
        if is_square and rows * columns == num_known:
            return self.pos_embed
        side = math.isqrt(num_known)
        grid = self.pos_embed[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
        factors = ((rows + NUDGE) / side, (columns + NUDGE) / side)
        stretched = functional.interpolate(grid, scale_factor=factors, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], stretched.flatten(2).mT], dim=1)


def load_dino(path: Path) -> Dino:
    """Load a vision transformer of DINO, or of DINOv2 without registers, up to size L, frozen, in float32.

    Args:
        path: A state dict such as dino_vitbase16_pretrain.pth or dinov2_vitb14_pretrain.pth.

    Raises:
        RewardError: Missing, corrupt or truncated weights, or those of another model.
    """
    state = {name: value for name, value in read_state(path).items() if name != _MASK_TOKEN}
    with no_init_weights():
        model = Dino(**_architecture(state, path))
    load_strictly(model, state, source=path)
    return model


def _architecture(state: Mapping[str, Tensor], path: Path) -> _Architecture:
    """Read the sizes off the shapes."""
    for name in ("pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"):
        if name not in state:
            raise RewardError(f"{path} lacks {name!r}: it is no DINO ViT such as dino_vitbase16_pretrain.pth.")
    width, _, patch_size, _ = state["patch_embed.proj.weight"].shape
    num_positions = state["pos_embed"].shape[1]
    if width % HEAD_WIDTH or math.isqrt(num_positions - 1) ** 2 != num_positions - 1:
        raise RewardError(
            f"{path} has tokens of width {width} and {num_positions} positions: a DINO ViT has a multiple of "
            f"{HEAD_WIDTH}, and one more than a square number."
        )
    return {
        "width": width,
        "depth": 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks.")),
        "hidden": state["blocks.0.mlp.fc1.weight"].shape[0],
        "patch_size": patch_size,
        "num_positions": num_positions,
        "is_scaled": "blocks.0.ls1.gamma" in state,
    }
