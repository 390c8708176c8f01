from pathlib import Path

import pytest
import torch
from PIL import Image

from rlhf_video.data import contact_sheet
from rlhf_video.errors import DataError


def test_small_clips_are_enlarged_without_blur(tmp_path: Path) -> None:
    clip = torch.zeros(5, 3, 16, 16)
    clip[0, 0] = 1.0  # the first frame is red, the others black
    contact_sheet([clip] * 3, tmp_path / "sheet.png", frames_per_clip=2, columns=2, min_side=64)
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size == (2 * (64 + 2 + 64) + 3 * 14, 2 * 64 + 3 * 14)
    assert {sheet.getpixel((14, 14)), sheet.getpixel((77, 77))} == {(255, 0, 0)}
    assert sheet.getpixel((14 + 66, 14)) == (0, 0, 0)


def test_labels_get_room_and_wrap(tmp_path: Path) -> None:
    clips = torch.zeros(2, 1, 3, 16, 16)
    contact_sheet(clips, tmp_path / "plain.png")
    contact_sheet(clips, tmp_path / "short.png", labels=("one", "two"))
    contact_sheet(clips, tmp_path / "long.png", labels=("one", "a small red circle moving left on a navy background"))
    plain, short, long = (Image.open(tmp_path / f"{name}.png").height for name in ("plain", "short", "long"))
    assert plain < short < long


def test_mismatched_input_is_refused(tmp_path: Path) -> None:
    clip = torch.zeros(2, 3, 16, 16)
    with pytest.raises(DataError, match="at least one"):
        contact_sheet([], tmp_path / "sheet.png")
    with pytest.raises(DataError, match="same height"):
        contact_sheet([clip, torch.zeros(2, 3, 16, 32)], tmp_path / "sheet.png")
    with pytest.raises(DataError, match="1 labels do not fit 2 clips"):
        contact_sheet([clip, clip], tmp_path / "sheet.png", labels=("one",))
