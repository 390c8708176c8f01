"""Frames of a clip as a chat message carries them."""

import base64
import hashlib
import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rewards.errors import RewardError

SendAs = Literal["images", "video"]


@dataclass(frozen=True)
class FrameFormat:
    """How frames travel."""

    encoding: Literal["jpeg", "png"] = "jpeg"
    """`jpeg`, or `png`, which is lossless and several times larger."""
    jpeg_quality: int = 95
    """1 to 100; 95 is what UnifiedReward's own client sends."""
    send_as: SendAs = "images"
    """`images`: one image_url per frame, which every server takes. `video`: one video_url of JPEG frames
    (data:video/jpeg), which vLLM takes; the model then sees video tokens with their order in time."""

    def __post_init__(self) -> None:
        """Check that the values fit.

        Raises:
            RewardError: Unknown names, a quality out of range, or a video of PNG frames.
        """
        if self.encoding not in ("jpeg", "png") or self.send_as not in ("images", "video"):
            raise RewardError(
                f"encoding must be jpeg or png and send_as images or video, got {self.encoding!r}, {self.send_as!r}."
            )
        if not 1 <= self.jpeg_quality <= 100:
            raise RewardError(f"jpeg_quality must be from 1 to 100, got {self.jpeg_quality}.")
        if self.send_as == "video" and self.encoding == "png":
            raise RewardError("send_as 'video' carries JPEG frames only: choose encoding 'jpeg', or send_as 'images'.")


def to_bytes(frames: Tensor) -> np.ndarray:
    """Return frames (frames, 3, height, width) in [0, 1] as uint8 (frames, height, width, 3), rounded to nearest."""
    eight_bit = frames.detach().clamp(0, 1).mul(255).round().to(torch.uint8)
    return eight_bit.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def pixel_hash(frames: np.ndarray) -> str:
    """Return the sha256 of uint8 frames, their shape included."""
    return hashlib.sha256(repr(frames.shape).encode() + frames.tobytes()).hexdigest()


def message_parts(frames: np.ndarray, form: FrameFormat) -> list[dict[str, Any]]:
    """Return the parts of a chat message that show the frames, in order.

    Args:
        frames: (frames, height, width, 3), uint8.
        form: How they travel.
    """
    encoded = [_encode(frame, form) for frame in frames]
    if form.send_as == "video":
        url = f"data:video/jpeg;base64,{','.join(encoded)}"
        return [{"type": "video_url", "video_url": {"url": url}}]
    head = f"data:image/{form.encoding};base64,"
    return [{"type": "image_url", "image_url": {"url": head + frame}} for frame in encoded]


def _encode(frame: np.ndarray, form: FrameFormat) -> str:
    buffer = io.BytesIO()
    if form.encoding == "png":
        Image.fromarray(frame).save(buffer, format="PNG", compress_level=1)
    else:
        Image.fromarray(frame).save(buffer, format="JPEG", quality=form.jpeg_quality)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
