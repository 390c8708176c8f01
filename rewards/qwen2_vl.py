"""What the rewards made of Qwen2-VL share: frames to patches, prompts to tokens, published weights to towers.

Every step from pixels to score is part of the graph and needs no torchvision.
Letters: N rows (clips or images), F frames, S groups of two frames, P patches of a group, L tokens.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from transformers import Qwen2VLConfig

from rewards.errors import RewardError
from rewards.inputs import Precision, check_precision
from rewards.qwen2_vl_model import Qwen2VL
from rewards.video_ops import CLIP_MEAN, CLIP_STD, normalise, resize
from rewards.weight_files import load_strictly, read_state, resolve

GRID = 28
"""Sides are multiples of this: 14 pixels a patch, two patches a merged token."""
_MOST_ELONGATED = 200
"""Long side over short side beyond which the original refuses a picture."""


def smart_size(height: int, width: int, *, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Return the size at which Qwen2-VL looks at a picture: multiples of 28, near the aspect ratio, within an area.

    `smart_resize` of Qwen's qwen_vl_utils, digit for digit; Python's rounding of halves to even included.

    Args:
        height: Of the picture, in pixels.
        width: The same.
        min_pixels: Smallest area.
        max_pixels: Largest area.

    Raises:
        RewardError: A side is more than 200 times the other.
    """
    if max(height, width) / min(height, width) > _MOST_ELONGATED:
        raise RewardError(f"Frames of {height}x{width} are too elongated for Qwen2-VL: at most 200 to 1.")
    new_height, new_width = (max(GRID, round(side / GRID) * GRID) for side in (height, width))
    if new_height * new_width > max_pixels:
        scale = math.sqrt((height * width) / max_pixels)
        new_height, new_width = (math.floor(side / scale / GRID) * GRID for side in (height, width))
    elif new_height * new_width < min_pixels:
        scale = math.sqrt(min_pixels / (height * width))
        new_height, new_width = (math.ceil(side * scale / GRID) * GRID for side in (height, width))
    return max(GRID, new_height), max(GRID, new_width)


def smart_resize(frames: Tensor, *, min_pixels: int, max_pixels: int) -> Tensor:
    """Resize frames (..., 3, H, W) to `smart_size`, bicubic with antialiasing; unlike the original nothing is rounded.

    Raises:
        RewardError: Frames too elongated.
    """
    size = smart_size(*frames.shape[-2:], min_pixels=min_pixels, max_pixels=max_pixels)
    return resize(frames, size)


def check_area(min_pixels: int, max_pixels: int) -> None:
    """Refuse limits that no size can meet.

    Raises:
        RewardError: Limits below one merged token, or in the wrong order.
    """
    if not GRID * GRID <= min_pixels <= max_pixels:
        raise RewardError(
            f"Frames are scaled to an area between min_pixels and max_pixels, at least {GRID * GRID}: got "
            f"{min_pixels} and {max_pixels}."
        )


def patchify(frames: Tensor, patch_size: int, merge_size: int) -> Tensor:
    """Normalise frames and cut them into the patches that Qwen2-VL's processors make, in their order.

    Args:
        frames: (N, F, 3, H, W) in [0, 1]; F is even, or 1 for pictures, which are shown twice; sides are multiples of
            patch_size * merge_size.
        patch_size: Pixels.
        merge_size: Patches per side that become one token.

    Returns:
        (N, S, P, 3 * 2 * patch_size**2): blocks of merge_size**2 patches follow each other row by row.
    """
    if frames.shape[1] == 1:
        frames = frames.expand(-1, 2, -1, -1, -1)
    num_rows, num_frames, channels, height, width = frames.shape
    rows, columns = height // patch_size // merge_size, width // patch_size // merge_size
    shape = (num_rows, num_frames // 2, 2, channels, rows, merge_size, patch_size, columns, merge_size, patch_size)
    blocks = normalise(frames, CLIP_MEAN, CLIP_STD).reshape(shape)
    patches = blocks.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9)
    return patches.reshape(num_rows, num_frames // 2, -1, channels * 2 * patch_size**2)


class RewardTower(nn.Module):
    """Qwen2-VL with a head that reads the hidden states of the reward tokens."""

    def __init__(self, config: Qwen2VLConfig, head: nn.Module, precision: Precision) -> None:
        """Build the modules on the device of the current `torch.device` context.

        Args:
            config: Sizes of the towers.
            head: From hidden states to scores.
            precision: Of the towers.

        Raises:
            RewardError: Unknown precision, or sizes of another model.
        """
        super().__init__()
        check_precision(precision)
        self._precision = precision
        self.rm_head = head  # first, so that `follow` goes by its precision, which is the clip's
        self.model = Qwen2VL(config)

    def to(self, *, device: torch.device, dtype: torch.dtype) -> Self:  # type: ignore[override]
        """Move to a device; towers declared bfloat16 stay so, everything else takes the precision."""
        self.rm_head.to(device=device, dtype=dtype)
        self.model.to(device=device, dtype=torch.bfloat16 if self._precision == "bfloat16" else dtype)
        return self

    def forward(self, frames: Tensor, text: Tensor, prefix: Tensor, reward_ids: Tensor) -> Tensor:
        """Score.

        Args:
            frames: (N, F, 3, H, W) in [0, 1], sides multiples of 28; F even, or 1.
            text: Token ids after the frames (N, L), each reward token once, padded at the end.
            prefix: Token ids before the frames, one row for all.
            reward_ids: Token ids (R,) whose hidden states count.

        Returns:
            (N, R, scores of the head) in the head's precision.
        """
        vision, language = self.model.visual, self.model.language_model
        dtype = language.norm.weight.dtype
        grid = (frames.shape[-2] // vision.patch_size, frames.shape[-1] // vision.patch_size)
        patches = patchify(frames, vision.patch_size, vision.merge_size).to(dtype)
        before = language.embed_tokens(prefix).expand(len(frames), -1, -1)
        embeddings = torch.cat([before, vision(patches, grid), language.embed_tokens(text)], dim=1)
        hidden = language(embeddings)[:, -text.shape[1] :]
        positions = (text[:, None] == reward_ids[:, None]).int().argmax(dim=-1)
        chosen = hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))
        return self.rm_head(chosen.to(next(self.rm_head.parameters()).dtype))


def load_tower(
    weights: str | Path,
    sizes: Qwen2VLConfig,
    *,
    head: Callable[[int], nn.Module],
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    precision: Precision,
    accept_licence: bool,
) -> RewardTower:
    """Build a tower and load published weights into it, strictly.

    Args:
        weights: File, or a name of the ledger.
        sizes: Of the towers.
        head: From the hidden size to a head.
        rename: From the file's names to ours, without what the reward does not need.
        precision: Of the towers.
        accept_licence: See `weight_files.resolve`.

    Raises:
        RewardError: Missing, corrupt or unfitting weights, or an unknown precision.
    """
    # On the meta device nothing is initialised: at seven billion parameters that takes longer than reading them.
    with torch.device("meta"):
        tower = RewardTower(sizes, head(sizes.text_config.hidden_size), precision)
    tower.model.to(torch.float32 if precision == "float32" else torch.bfloat16)
    path = resolve(weights, accept_licence=accept_licence)
    tower.to_empty(device="cpu")
    load_strictly(tower, rename(read_state(path)), source=path)
    return tower


def renamed(
    state: Mapping[str, Tensor], prefixes: Sequence[tuple[str, str]], unused: Sequence[str]
) -> dict[str, Tensor]:
    """Return a state dict with its prefixes exchanged, the first that fits, and without unused tensors.

    Args:
        state: As published.
        prefixes: (old, new); a name that none fits stays, so that strict loading names it.
        unused: Names to leave out.
    """
    new_state = {}
    for name, value in state.items():
        if name not in unused:
            old, new = next((pair for pair in prefixes if name.startswith(pair[0])), ("", ""))
            new_state[new + name.removeprefix(old)] = value
    return new_state
