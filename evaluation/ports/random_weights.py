"""Random weights in the files that VBench reads, and clips to score: the same on every machine, for parity tests.

Needs torch, NumPy and `rewards.random_weights` only, so that the original's environment can import it, too.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rewards.random_weights import random_array

LOGIT_SCALE = math.log(100.0)
"""Of OpenAI's released CLIPs."""
_HALVES = ("in_proj_weight", "in_proj_bias", "conv1.weight", "text_projection", "visual.proj")
_HALF_LAYERS = (".out_proj.", ".c_fc.", ".c_proj.")


@dataclass(frozen=True, kw_only=True)
class ClipSizes:
    """Sizes of an OpenAI CLIP; heads are 64 wide."""

    width: int = 768
    layers: int = 12
    patch_size: int = 32
    image_size: int = 224
    text_width: int = 512
    text_layers: int = 12
    embed_dim: int = 512
    num_words: int = 49408
    num_positions: int = 77


VIT_B_32 = ClipSizes()
VIT_L_14 = ClipSizes(width=1024, layers=24, patch_size=14, text_width=768, embed_dim=768)


def clip_state(sizes: ClipSizes, *, seed: int = 0) -> dict[str, Tensor]:
    """Return a state dict as OpenAI's files hold it, half precision where theirs is."""
    state = _random_state(_clip_shapes(sizes), seed)
    state["logit_scale"] = torch.tensor(LOGIT_SCALE)
    is_half = {name: name.endswith(_HALVES) or any(part in name for part in _HALF_LAYERS) for name in state}
    return {name: value.half() if is_half[name] else value for name, value in state.items()}


def dino_state(*, width: int = 768, depth: int = 12, patch_size: int = 16, seed: int = 0) -> dict[str, Tensor]:
    """Return a state dict of DINO's vision transformer, ViT-B/16 unless another size is asked for.

    Position embeddings have the size of the patches' own: otherwise a wrong interpolation would hardly show.
    """
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, (224 // patch_size) ** 2 + 1, width),
        "patch_embed.proj.weight": (width, 3, patch_size, patch_size),
        "patch_embed.proj.bias": (width,),
        **_pair("norm", (width,)),
    }
    for number in range(depth):
        block = f"blocks.{number}"
        shapes |= _pair(f"{block}.norm1", (width,)) | _pair(f"{block}.norm2", (width,))
        shapes |= _pair(f"{block}.attn.qkv", (3 * width, width)) | _pair(f"{block}.attn.proj", (width, width))
        shapes |= _pair(f"{block}.mlp.fc1", (4 * width, width)) | _pair(f"{block}.mlp.fc2", (width, 4 * width))
    state = _random_state(shapes, seed)
    for name in ("cls_token", "pos_embed"):
        state[name] *= math.sqrt(math.prod(shapes[name][1:]))
    return state


def aesthetic_state(*, seed: int = 0) -> dict[str, Tensor]:
    """Return a state dict of LAION's linear head, its ratings about 5."""
    state = _random_state(_pair("head", (1, 768)), seed)
    return {"weight": state["head.weight"] * 10, "bias": state["head.bias"] + 5}


def write_torchscript(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a TorchScript archive with these weights, as OpenAI's ViT-B-32.pt is one."""
    root = _Folder()
    for name, value in state.items():
        *folders, leaf = name.split(".")
        place: nn.Module = root
        for folder in folders:
            if folder not in dict(place.named_children()):
                place.add_module(folder, _Folder())
            place = place.get_submodule(folder)
        place.register_parameter(leaf, nn.Parameter(value, requires_grad=False))
    root.register_buffer("input_resolution", torch.tensor(224))
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # OpenAI's format is what it is
        torch.jit.save(torch.jit.script(root), str(path))


def random_clip(name: str, num_frames: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return a clip of coloured blocks, of which each frame changes a part.

    Args:
        name: Another clip for another name.
        num_frames: At least 1.
        height: In pixels.
        width: In pixels.

    Returns:
        uint8, RGB, shape (num_frames, height, width, 3).
    """
    rows, columns = -(-height // 8), -(-width // 8)
    noise = random_array(f"clip {name}", (1 + num_frames, rows * columns * 3)).reshape(1 + num_frames, rows, columns, 3)
    unit = noise / np.abs(noise).max()
    blocks = 0.5 + 0.3 * unit[:1] + 0.2 * unit[1:]
    levels = np.round(blocks * 255).astype(np.uint8)
    return levels.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]


class _Folder(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images


def _clip_shapes(sizes: ClipSizes) -> dict[str, tuple[int, ...]]:
    num_patches = (sizes.image_size // sizes.patch_size) ** 2
    width, text_width = sizes.width, sizes.text_width
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (sizes.num_positions, text_width),
        "text_projection": (text_width, sizes.embed_dim),
        "logit_scale": (),
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (num_patches + 1, width),
        "visual.proj": (width, sizes.embed_dim),
        "visual.conv1.weight": (width, 3, sizes.patch_size, sizes.patch_size),
        **_pair("visual.ln_pre", (width,)),
        **_layers("visual.transformer", width, sizes.layers),
        **_pair("visual.ln_post", (width,)),
        **_layers("transformer", text_width, sizes.text_layers),
        "token_embedding.weight": (sizes.num_words, text_width),
        **_pair("ln_final", (text_width,)),
    }
    return shapes


def _layers(prefix: str, width: int, count: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for number in range(count):
        block = f"{prefix}.resblocks.{number}"
        shapes[f"{block}.attn.in_proj_weight"] = (3 * width, width)
        shapes[f"{block}.attn.in_proj_bias"] = (3 * width,)
        shapes |= _pair(f"{block}.attn.out_proj", (width, width)) | _pair(f"{block}.ln_1", (width,))
        shapes |= _pair(f"{block}.mlp.c_fc", (4 * width, width)) | _pair(f"{block}.mlp.c_proj", (width, 4 * width))
        shapes |= _pair(f"{block}.ln_2", (width,))
    return shapes


def _pair(stem: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a layer's weight and bias."""
    return {f"{stem}.weight": shape, f"{stem}.bias": shape[:1]}


def _random_state(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    return {name: torch.from_numpy(random_array(name, shape, seed)) for name, shape in shapes.items()}
