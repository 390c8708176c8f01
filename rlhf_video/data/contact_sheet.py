"""One PNG that shows many clips at a glance: a strip of frames each, its label below."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from rlhf_video.data.files import write_atomic
from rlhf_video.errors import DataError

_BACKGROUND, _INK = (250, 250, 248), (40, 40, 44)
_GAP, _FONT_SIZE = 14, 13


def contact_sheet(
    videos: Sequence[Tensor] | Tensor,
    path: str | Path,
    *,
    labels: Sequence[str] = (),
    frames_per_clip: int = 4,
    columns: int = 2,
    min_side: int = 96,
) -> None:
    """Write a contact sheet: one strip of evenly spaced frames per clip, its label below it.

    Args:
        videos: Clips of equal size in [0, 1], each (frames, 3, height, width).
        path: Target .png; missing parent folders are made.
        labels: One text per clip, or none.
        frames_per_clip: Frames shown per clip, from the first to the last.
        columns: Clips side by side.
        min_side: Frames with a shorter side below this are enlarged by a whole factor, nearest neighbour (pixels).

    Raises:
        DataError: No clip is given, sizes differ, or the number of labels does not fit.
    """
    clips = list(videos)
    if not clips:
        raise DataError("A contact sheet needs at least one clip.")
    if len({tuple(clip.shape[1:]) for clip in clips}) > 1:
        raise DataError("The clips of one contact sheet must have the same height and width.")
    if labels and len(labels) != len(clips):
        raise DataError(f"{len(labels)} labels do not fit {len(clips)} clips: give one per clip or none.")
    strips = [_strip(clip, frames_per_clip=frames_per_clip, min_side=min_side) for clip in clips]
    font = ImageFont.load_default(size=_FONT_SIZE)
    width = max(strip.width for strip in strips)
    texts = [_wrap(label, font, width) for label in labels] if labels else [[] for _ in strips]
    text_height = max(len(lines) for lines in texts) * (_FONT_SIZE + 4) + (4 if labels else 0)
    cell_height = strips[0].height + text_height
    columns = min(columns, len(strips))
    rows = math.ceil(len(strips) / columns)
    size = (columns * (width + _GAP) + _GAP, rows * (cell_height + _GAP) + _GAP)
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for index, (strip, lines) in enumerate(zip(strips, texts, strict=True)):
        left = _GAP + (index % columns) * (width + _GAP)
        top = _GAP + (index // columns) * (cell_height + _GAP)
        sheet.paste(strip, (left, top))
        for line_index, line in enumerate(lines):
            position = (left, top + strip.height + 4 + line_index * (_FONT_SIZE + 4))
            draw.text(position, line, fill=_INK, font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    write_atomic(Path(path), buffer.getvalue())


def _strip(clip: Tensor, *, frames_per_clip: int, min_side: int) -> Image.Image:
    """Return evenly spaced frames of a clip side by side, 2 pixels apart."""
    num_frames, _, height, width = clip.shape
    chosen = np.linspace(0, num_frames - 1, min(frames_per_clip, num_frames)).round().astype(int)
    factor = max(1, math.ceil(min_side / min(height, width)))
    picked = clip.detach().float().cpu()[torch.from_numpy(chosen)].clamp(0.0, 1.0)
    pixels = picked.mul(255.0).round().byte().permute(0, 2, 3, 1).numpy()
    side = (width * factor, height * factor)
    strip = Image.new("RGB", (len(chosen) * (side[0] + 2) - 2, side[1]), _BACKGROUND)
    for index, frame in enumerate(pixels):
        strip.paste(Image.fromarray(frame).resize(side, Image.Resampling.NEAREST), (index * (side[0] + 2), 0))
    return strip


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Break a label into lines no wider than width pixels, at spaces."""
    lines: list[str] = []
    for word in text.split():
        candidate = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(candidate) <= width:
            lines[-1] = candidate
        else:
            lines.append(word)
    return lines
