"""What the dry runs of all methods need: where config files lie, and how much a transformer pass keeps."""

from pathlib import Path
from typing import Any, cast

import torch

from rlhf_video.backbones import VideoBackbone

SHIPPED_CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "backbones"
"""Config files, without weights, of models with a recipe here; folders are named like the Hub's, in small letters."""


def config_folder(name: str) -> str:
    """Return the folder of config files: the model's own where it is on this machine, else the shipped one."""
    shipped = SHIPPED_CONFIGS / name.rsplit("/", 1)[-1].lower().removesuffix("-diffusers")
    return str(shipped) if not Path(name).is_dir() and shipped.is_dir() else name


def activations(backbone: VideoBackbone, rows: int, *, recompute: bool) -> tuple[int, int]:
    """Estimate the bytes that a transformer pass keeps for its backward pass, and those of one block.

    Args:
        backbone: On the meta device.
        rows: Tokens of the batch.
        recompute: Whether blocks are recomputed in the backward pass.
    """
    width = torch.finfo(backbone.dtype).bits // 8
    model = cast(Any, next(iter(backbone.transformers.values()))).config
    hidden = model.num_attention_heads * model.attention_head_dim
    block = rows * (16 * hidden + 2 * model.ffn_dim) * width
    return model.num_layers * (rows * hidden * width if recompute else block), block
