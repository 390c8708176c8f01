import math
from pathlib import Path

import av
import pytest
import torch
from torch import Tensor

from rlhf_video.data import (
    ClipSize,
    encode_mp4,
    read_video,
    sha256_file,
    video_size,
    write_atomic,
    write_lossless,
    write_video,
)
from rlhf_video.errors import DataError


def sprite_clip(size: int = 64, num_frames: int = 21) -> Tensor:
    """Return a red disc moving right on navy, (frames, 3, size, size)."""
    rows, columns = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    frames = []
    for index in range(num_frames):
        distance = ((columns - 10 - 2 * index) ** 2 + (rows - size / 2) ** 2).sqrt()
        mask = (9 - distance).clamp(0, 1)
        disc, ground = torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.05, 0.08, 0.35])
        frames.append(disc[:, None, None] * mask + ground[:, None, None] * (1 - mask))
    return torch.stack(frames)


def psnr(first: Tensor, second: Tensor) -> float:
    return -10 * math.log10((first - second).square().mean().item())


def test_clip_survives_the_round_trip(tmp_path: Path) -> None:
    clip = sprite_clip()
    write_video(tmp_path / "deep" / "clip.mp4", clip, 8)
    loaded, fps = read_video(tmp_path / "deep" / "clip.mp4")
    assert (loaded.shape, loaded.dtype, fps) == (clip.shape, torch.float32, 8.0)
    assert loaded.min() >= 0
    assert loaded.max() <= 1
    # 32.8 dB measured; the halved chroma resolution of yuv420p is all that is lost.
    assert psnr(loaded, clip) > 32.0


def test_enlarged_clip_keeps_its_chroma(tmp_path: Path) -> None:
    clip = sprite_clip()
    (tmp_path / "clip.mp4").write_bytes(encode_mp4(clip, 8, min_side=128))
    loaded, _ = read_video(tmp_path / "clip.mp4")
    assert loaded.shape[-2:] == (128, 128)
    assert psnr(loaded[..., ::2, ::2], clip) > 40.0


def test_file_is_h264_that_browsers_play(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", sprite_clip(num_frames=5), 29.97)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.frames) == ("h264", "yuv420p", 5)
        assert float(stream.average_rate) == pytest.approx(29.97, abs=0.01)


def test_same_clip_gives_the_same_bytes() -> None:
    assert encode_mp4(sprite_clip(), 8) == encode_mp4(sprite_clip(), 8)


def test_values_outside_the_range_are_clamped_not_wrapped(tmp_path: Path) -> None:
    clip = torch.full((3, 3, 16, 16), 1.4)
    write_video(tmp_path / "clip.mp4", clip, 8)
    assert read_video(tmp_path / "clip.mp4")[0].min() > 0.98


@pytest.mark.parametrize(
    ("clip", "fps", "message"),
    [
        (torch.zeros(2, 3, 15, 16), 8, "15x16"),
        (torch.zeros(2, 1, 16, 16), 8, r"\(2, 1, 16, 16\)"),
        (torch.zeros(0, 3, 16, 16), 8, "cannot be written"),
        (torch.zeros(2, 3, 16, 16), 0, "fps=0"),
        (torch.full((2, 3, 16, 16), math.nan), 8, "not finite"),
    ],
)
def test_clips_that_cannot_be_written_are_refused(tmp_path: Path, clip: Tensor, fps: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        write_video(tmp_path / "clip.mp4", clip, fps)
    assert list(tmp_path.iterdir()) == []


def test_other_endings_missing_and_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.mp4"):
        write_video(tmp_path / "clip.avi", sprite_clip(), 8)
    with pytest.raises(DataError, match="does not exist"):
        read_video(tmp_path / "none.mp4")
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    with pytest.raises(DataError, match="cannot be decoded"):
        read_video(tmp_path / "broken.mp4")


def test_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file.bin"
    write_atomic(target, b"old")

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_sha256_of_a_file_matches_the_known_value(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc").startswith("ba7816bf8f01cfea")


def test_a_lossless_clip_keeps_every_pixel_and_its_bytes_repeat(tmp_path: Path) -> None:
    video = torch.rand(5, 3, 12, 18, generator=torch.Generator().manual_seed(0)).mul(255).round().div(255)
    write_lossless(tmp_path / "a.mkv", video, 8.0)
    write_lossless(tmp_path / "b.mkv", video, 8.0)
    read, fps = read_video(tmp_path / "a.mkv")
    assert fps == 8.0 and torch.equal((read * 255).round(), (video * 255).round())
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()
    with pytest.raises(DataError, match=r"must end in \.mkv"):
        write_lossless(tmp_path / "a.mp4", video, 8.0)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
@pytest.mark.parametrize("num_frames", [1, 2, 21])
def test_the_size_of_a_file_is_that_of_its_pixels(tmp_path: Path, name: str, num_frames: int) -> None:
    write = write_video if name.endswith("mp4") else write_lossless
    write(tmp_path / name, torch.rand(num_frames, 3, 16, 24), 8)
    assert video_size(tmp_path / name) == ClipSize(num_frames, 16, 24)
    assert read_video(tmp_path / name)[0].shape == (num_frames, 3, 16, 24)


def test_the_size_of_a_missing_or_broken_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        video_size(tmp_path / "none.mp4")
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    with pytest.raises(DataError, match="cannot be decoded"):
        video_size(tmp_path / "broken.mp4")
