"""MUSIQ (Ke et al. 2021, arXiv:2108.05997): quality of an image from its patches at three sizes.

Written from the paper and from google-research/musiq (Apache-2.0), in JAX. Parameters are named as in the files for
PyTorch, musiq_*_ckpt-*.pth, and where the package of those files departs from JAX, VBench and so this port follow it:
a bicubic resize for the smaller copies (JAX: Gaussian), and the exact GELU (JAX: its approximation by tanh).
Every size is read off the tensors, so that small ones load too. Letters: N images, P patches, W width.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.initialization import no_init_weights

from rewards.errors import RewardError
from rewards.weight_files import load_strictly, read_state, resolve

PATCH = 32
"""Pixels per side."""
LONG_SIDES = (224, 384)
"""Of the two smaller copies of an image; the third is the image itself."""
HEAD_WIDTH = 64
"""384 / 6 in every published file; the number of heads is no tensor's size."""
ROOT_CHANNELS = 64
"""Of the convolution before the patches' embedding."""


class StandardisedConv(nn.Conv2d):
    """Convolution without bias whose kernels have mean 0 and deviation 1, and whose border is TensorFlow's "SAME"."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        """Make it."""
        super().__init__(inputs, outputs, kernel, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, ceil(h / stride), ceil(w / stride))."""
        centred = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        kernels = centred / (self.weight.std(dim=(1, 2, 3), keepdim=True) + 1e-5)
        padded = functional.pad(features, same_padding(features, self.kernel_size[0], self.stride[0]))
        return functional.conv2d(padded, kernels, stride=self.stride)


def same_padding(features: Tensor, kernel: int, stride: int) -> tuple[int, int, int, int]:
    """Return TensorFlow's padding "SAME" (left, right, top, bottom): the smaller half comes first."""
    padding: tuple[int, ...] = ()
    for side in (features.shape[-1], features.shape[-2]):
        total = max(0, (-(-side // stride) - 1) * stride + kernel - side)
        padding += (total // 2, total - total // 2)
    left, right, top, bottom = padding
    return left, right, top, bottom


class Bottleneck(nn.Module):
    """ResNet's block of three convolutions beside a projected shortcut."""

    def __init__(self, inputs: int, channels: int) -> None:
        """Make a block of `4 * channels` outputs."""
        super().__init__()
        self.conv1, self.gn1 = StandardisedConv(inputs, channels, 1), nn.GroupNorm(32, channels, eps=1e-4)
        self.conv2, self.gn2 = StandardisedConv(channels, channels, 3), nn.GroupNorm(32, channels, eps=1e-4)
        self.conv3, self.gn3 = StandardisedConv(channels, 4 * channels, 1), nn.GroupNorm(32, 4 * channels, eps=1e-4)
        self.conv_proj, self.gn_proj = StandardisedConv(inputs, 4 * channels, 1), nn.GroupNorm(32, 4 * channels, 1e-4)

    def forward(self, features: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, 4 * channels, h, w)."""
        inner = self.gn1(self.conv1(features)).relu_()
        inner = self.gn2(self.conv2(inner)).relu_()
        return self.gn_proj(self.conv_proj(features)).add_(self.gn3(self.conv3(inner))).relu_()


class Attention(nn.Module):
    """Multi-head attention with four matrices."""

    def __init__(self, width: int) -> None:
        """Make it."""
        super().__init__()
        self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (N, tokens, W) to the same."""
        heads = [
            projection(tokens).unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        ]
        mixed: Tensor = self.out(functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
        return mixed


class EncoderBlock(nn.Module):
    """Attention and a perceptron, each after a layer norm and beside a shortcut."""

    def __init__(self, width: int, inner: int) -> None:
        """Make it."""
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, inner), "fc2": nn.Linear(inner, width)})

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (N, tokens, W) to the same."""
        tokens = tokens + self.attention(self.norm1(tokens))
        grown: Tensor = self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm2(tokens))))
        return tokens + grown


class Marks(nn.Module):
    """Learned embeddings under the key that the files use."""

    def __init__(self, key: str, *shape: int) -> None:
        """Make a parameter `key` of this shape."""
        super().__init__()
        self.register_parameter(key, nn.Parameter(torch.empty(shape)))


class PatchEncoder(nn.Module):
    """Patches, with marks of their place and size, to one vector."""

    def __init__(self, sizes: "MusiqSizes") -> None:
        """Make it, without useful weights."""
        super().__init__()
        width = sizes.width
        self.cls = nn.Parameter(torch.empty(1, 1, width))
        self.posembed_input = Marks("position_emb", 1, sizes.grid**2, width)
        self.scaleembed_input = Marks("scale_emb", len(LONG_SIDES) + 1, width)
        self.encoder_norm = nn.LayerNorm(width, eps=1e-6)
        blocks = {f"encoderblock_{number}": EncoderBlock(width, sizes.inner) for number in range(sizes.layers)}
        self.transformer = nn.ModuleDict(blocks)

    def forward(self, patches: Tensor, places: Tensor, scales: Tensor) -> Tensor:
        """Map (N, P, W) to (N, W).

        Args:
            patches: Embedded.
            places: Cell of the grid of each patch, (P,).
            scales: Number of the copy that each patch is from, (P,).
        """
        place_marks = self.posembed_input.get_parameter("position_emb")[0]
        scale_marks = self.scaleembed_input.get_parameter("scale_emb")
        tokens = patches + place_marks[places] + scale_marks[scales]
        tokens = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], dim=1)
        for block in self.transformer.values():
            tokens = block(tokens)
        first: Tensor = self.encoder_norm(tokens[:, 0])
        return first


@dataclass(frozen=True)
class MusiqSizes:
    """Architecture of one weight file."""

    width: int
    inner: int
    """Of the perceptrons."""
    layers: int
    grid: int
    """Cells per side that the places of patches are hashed to."""

    @classmethod
    def of(cls, state: Mapping[str, Tensor], *, source: str | Path) -> "MusiqSizes":
        """Read the sizes off the tensors.

        Args:
            state: Under the published names.
            source: For the message.

        Raises:
            RewardError: A tensor is missing: the file holds another model.
        """
        pattern = re.compile(r"transformer_encoder\.transformer\.encoderblock_(\d+)\.")
        try:
            return cls(
                width=len(state["embedding.bias"]),
                inner=len(state["transformer_encoder.transformer.encoderblock_0.mlp.fc1.bias"]),
                layers=1 + max(int(found[1]) for name in state if (found := pattern.match(name))),
                grid=round(state["transformer_encoder.posembed_input.position_emb"].shape[1] ** 0.5),
            )
        except KeyError as error:
            raise RewardError(f"{source} holds no MUSIQ: {error} is missing.") from error


class Musiq(nn.Module):
    """The whole model, for one score per image."""

    def __init__(self, sizes: MusiqSizes) -> None:
        """Make it, without useful weights."""
        super().__init__()
        self._grid = sizes.grid
        self.conv_root = StandardisedConv(3, ROOT_CHANNELS, 7, stride=2)
        self.gn_root = nn.GroupNorm(32, ROOT_CHANNELS, eps=1e-6)
        self.block1 = Bottleneck(ROOT_CHANNELS, ROOT_CHANNELS)
        self.embedding = nn.Linear(4 * ROOT_CHANNELS * (PATCH // 4) ** 2, sizes.width)
        self.transformer_encoder = PatchEncoder(sizes)
        self.head = nn.Linear(sizes.width, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores (N,), in the units of the training set (SPAQ: 0 to 100), of images (N, 3, H, W) in [0, 1].

        Images of one call have one size; a score does not depend on the others.
        """
        copies = [_with_long_side(2 * images - 1, side) for side in LONG_SIDES] + [2 * images - 1]
        patches = torch.cat([_cut(copy) for copy in copies], dim=1)  # (N, P, 3, PATCH, PATCH)
        places = torch.cat([_places(copy, self._grid) for copy in copies])
        scales = torch.cat([torch.full_like(_places(copy, 1), number) for number, copy in enumerate(copies)])
        features = self.gn_root(self.conv_root(patches.flatten(0, 1))).relu_()
        padded = functional.pad(features, same_padding(features, 3, 2))
        features = self.block1(functional.max_pool2d(padded, 3, 2))
        embedded = self.embedding(features.movedim(1, -1).flatten(1)).unflatten(0, patches.shape[:2])  # channels last
        scores: Tensor = self.head(self.transformer_encoder(embedded, places, scales))[:, 0]
        return scores


def _with_long_side(images: Tensor, long_side: int) -> Tensor:
    height, width = images.shape[-2:]
    ratio = long_side / max(height, width)
    size = (round(height * ratio), round(width * ratio))
    return functional.interpolate(images, size=size, mode="bicubic", align_corners=False)


def _cut(images: Tensor) -> Tensor:
    """Cut (N, 3, H, W) into patches (N, rows * columns, 3, PATCH, PATCH), in reading order, grey beyond the border."""
    padded = functional.pad(images, same_padding(images, PATCH, PATCH))
    patches = padded.unflatten(-1, (-1, PATCH)).unflatten(-3, (-1, PATCH))  # (N, 3, rows, PATCH, columns, PATCH)
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def _places(images: Tensor, grid: int) -> Tensor:
    """Return the cell of each patch in a grid that spans the image, (rows * columns,), in reading order."""
    cells = torch.arange(grid, dtype=torch.float32, device=images.device)[None, None]
    rows, columns = (
        functional.interpolate(cells, size=-(-side // PATCH), mode="nearest")[0, 0].long() for side in images.shape[-2:]
    )
    return (rows[:, None] * grid + columns).flatten()


def load_musiq(weights: str | Path, *, accept_licence: bool = False) -> Musiq:
    """Load frozen float32 weights, in eval mode.

    Args:
        weights: Name in `rewards.ledger`, or a file: a state dict, by itself or under "params".
        accept_licence: Whether the user accepts the licence of the file.

    Raises:
        RewardError: No such file, one that is no state dict, or one of another network.
    """
    path = resolve(weights, accept_licence=accept_licence)
    state = read_state(path, key="params")
    with no_init_weights():
        model = Musiq(MusiqSizes.of(state, source=path))
    load_strictly(model, state, source=path)
    return model
