"""Clips as bytes: the same pictures as `read_video`, a quarter of the memory, and what is wrong with a file is told."""

import random
from pathlib import Path

import av
import numpy as np
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


def flip_bits(path: Path, seed: int) -> None:
    """Flip 20 bits of the pictures of an mp4 file."""
    content = bytearray(path.read_bytes())
    start, end = content.index(b"mdat") + 4, content.index(b"moov")
    rng = random.Random(seed)
    for _ in range(20):
        content[rng.randrange(start, end)] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bits_are_told_and_not_painted_over(tmp_path: Path, seed: int) -> None:
    blocks = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    video = blocks.repeat_interleave(8, -1).repeat_interleave(8, -2).repeat_interleave(4, 0)
    path = tmp_path / "clip.mp4"
    write_video(path, video, 8.0)
    assert read_frames(path)[0].shape == (16, 3, 64, 64)
    flip_bits(path, seed)
    with pytest.raises(DataError, match=r"cannot be decoded|is damaged"):
        read_frames(path)


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        ("libvpx", "webm"),
        ("libvpx-vp9", "webm"),
        ("mpeg4", "avi"),
        ("mjpeg", "avi"),
        ("libx264", "mov"),
        ("libx265", "mov"),
        ("gif", "gif"),
    ],
)
def test_good_clips_of_other_makers_are_read_whole(tmp_path: Path, codec: str, suffix: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    pixels = np.random.default_rng(0).integers(0, 255, (12, 64, 64, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8)
        stream.height = stream.width = 64
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    assert len(read_frames(path)[0]) == 12


@pytest.mark.parametrize(("content", "message"), [(None, "does not exist"), (b"not a video", "cannot be decoded")])
def test_file_without_video_is_told(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_frames(path)
