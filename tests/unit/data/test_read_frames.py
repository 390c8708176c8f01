"""Clips as bytes: the same pictures as `read_video`, a quarter of the memory, and what is wrong with a file is told."""

from pathlib import Path

import pytest
import torch

from rlhf_video.data import read_frames, read_video, write_lossless, write_video
from rlhf_video.errors import DataError


def test_bytes_are_the_pixels_of_read_video(tmp_path: Path) -> None:
    video = torch.rand(5, 3, 16, 32, generator=torch.Generator().manual_seed(0))
    write_lossless(tmp_path / "clip.mkv", video, 12.0)
    frames, fps = read_frames(tmp_path / "clip.mkv")
    assert (frames.dtype, frames.shape, fps) == (torch.uint8, (5, 3, 16, 32), 12.0)
    torch.testing.assert_close(frames, (video * 255).round().to(torch.uint8), rtol=0, atol=0)
    torch.testing.assert_close(read_video(tmp_path / "clip.mkv")[0], frames.float() / 255, rtol=0, atol=0)


def test_frames_keep_their_order(tmp_path: Path) -> None:
    levels = torch.linspace(0.1, 0.9, 9)
    write_video(tmp_path / "clip.mp4", levels[:, None, None, None].expand(9, 3, 16, 16).contiguous(), 8.0)
    frames, _ = read_frames(tmp_path / "clip.mp4")
    means = frames.float().mean(dim=(1, 2, 3)) / 255
    torch.testing.assert_close(means, levels, rtol=0, atol=0.01)


@pytest.mark.parametrize(("content", "message"), [(None, "does not exist"), (b"not a video", "cannot be decoded")])
def test_file_without_video_is_told(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_frames(path)
