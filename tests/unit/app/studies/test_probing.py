"""Which files are clips that people can be asked about, and what is known of them."""

from fractions import Fraction
from pathlib import Path

import av
import pytest

from app.studies import probing
from app.studies.probing import frame_rate, probe
from rlhf_video.errors import DataError
from rlhf_video.testing.barcode_clips import Codec, barcode_frame, write_barcode_clip


@pytest.mark.parametrize(
    ("codec", "name", "pixel_format"),
    [
        ("h264", "clip.mp4", "yuv420p"),
        ("mpeg4", "clip.mp4", "yuv420p"),
        ("vp9", "clip.webm", "yuv420p"),
        ("ffv1", "clip.mkv", "bgr0"),
    ],
)
@pytest.mark.parametrize("audio", [False, True])
def test_facts_are_those_of_the_file(tmp_path: Path, codec: Codec, name: str, pixel_format: str, audio: bool) -> None:
    path = write_barcode_clip(tmp_path / name, 12, 8, codec=codec, audio=audio, metadata={"title": "wan"})
    facts = probe(path)
    assert (facts.codec, facts.pixel_format, facts.has_audio) == (codec, pixel_format, audio)
    assert (facts.num_frames, facts.height, facts.width, facts.fps, facts.duration) == (12, 64, 96, 8.0, 1.5)
    assert facts.num_bytes == path.stat().st_size
    assert facts.bitrate == pytest.approx(8 * facts.num_bytes / 1.5)
    assert "title" in facts.metadata_keys


@pytest.mark.parametrize(("codec", "name"), [("h264", "clip.mp4"), ("vp9", "clip.webm")])
def test_one_frame_and_a_broken_rate_are_clips(tmp_path: Path, codec: Codec, name: str) -> None:
    assert probe(write_barcode_clip(tmp_path / name, 1, 8, codec=codec)).duration == 0.125
    rate = Fraction(24000, 1001)
    assert frame_rate(write_barcode_clip(tmp_path / name, 9, rate, codec=codec)) == rate


@pytest.mark.parametrize(("codec", "name"), [("h264", "clip.mp4"), ("vp9", "clip.webm")])
def test_a_clip_without_a_frame_is_refused(tmp_path: Path, codec: Codec, name: str) -> None:
    path = write_barcode_clip(tmp_path / name, 0, codec=codec)
    with pytest.raises(DataError, match=r"holds no picture|cannot be played"):
        probe(path)


@pytest.mark.parametrize("kept", [0.4, 0.7, 0.97])
@pytest.mark.parametrize("audio", [False, True])
@pytest.mark.parametrize(
    ("codec", "name", "faststart"),
    [("h264", "a.mp4", False), ("h264", "a.mp4", True), ("vp9", "a.webm", False), ("ffv1", "a.mkv", False)],
)
def test_a_clip_that_was_cut_off_is_refused(
    tmp_path: Path, codec: Codec, name: str, faststart: bool, audio: bool, kept: float
) -> None:
    options = {"movflags": "faststart"} if faststart else {}
    path = write_barcode_clip(tmp_path / name, 24, 8, codec=codec, audio=audio, options=options)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DataError, match="cut off"):
        probe(path)


def test_a_damaged_clip_is_refused(tmp_path: Path) -> None:
    path = write_barcode_clip(tmp_path / "clip.mp4", 24, 8, options={"movflags": "faststart"})
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    content[half:-100] = bytes((7 * byte + 13) % 256 for byte in content[half:-100])
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged|cannot be decoded"):
        probe(path)


def test_a_variable_frame_rate_is_refused(tmp_path: Path) -> None:
    path = write_barcode_clip(tmp_path / "clip.mp4", 6, 16, ticks=[0, 1, 2, 5, 6, 9])
    with pytest.raises(DataError, match=r"variable frame rate \(62.5 to 187.5 ms.*-fps_mode cfr"):
        probe(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"not a video", "cannot be played"), (b"#EXTM3U\n#EXTINF:1,\nother.mp4\n", "cannot be played")],
)
def test_what_is_no_video_is_refused_and_a_play_list_opens_no_other_file(
    tmp_path: Path, content: bytes, message: str
) -> None:
    write_barcode_clip(tmp_path / "other.mp4", 3)
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(DataError, match=message):
        probe(tmp_path / "clip.mp4")


def test_a_missing_clip_and_mere_sound_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        probe(tmp_path / "none.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        container.start_encoding()
        container.mux(stream.encode(None))
    with pytest.raises(DataError, match="holds no picture"):
        probe(tmp_path / "sound.mp4")


@pytest.mark.parametrize(("height", "width", "message"), [(4, 16, "4x16"), (16, 160, "longer than 8 to 1")])
def test_absurd_shapes_are_refused(tmp_path: Path, height: int, width: int, message: str) -> None:
    path = write_barcode_clip(tmp_path / "clip.mkv", 2, codec="ffv1", height=height, width=width)
    with pytest.raises(DataError, match=message):
        probe(path)


def test_more_frames_than_a_clip_has_are_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "GREATEST_FRAMES", 8)
    for name, codec in (("clip.mp4", "h264"), ("clip.mkv", "ffv1")):
        with pytest.raises(DataError, match="frames"):
            probe(write_barcode_clip(tmp_path / name, 9, codec=codec))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "message"), [("sar=4/3", "oblong"), ("transfer=smpte2084", "PQ"), ("transfer=arib-std-b67", "HLG")]
)
def test_pictures_that_screens_show_unlike_models_are_refused(tmp_path: Path, setting: str, message: str) -> None:
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"x264-params": setting})
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(barcode_frame(index, 64, 96), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(DataError, match=message):
        probe(path)


def test_a_rotation_tag_is_refused(tmp_path: Path) -> None:
    path = write_barcode_clip(tmp_path / "clip.mp4", 3)
    upright, turned = ([1, 0, 0, 0, 1, 0, 0, 0, 0x4000], [0, 1, 0, -1, 0, 0, 0, 0, 0x4000])

    def matrix(values: list[int]) -> bytes:
        return b"".join((value << 16).to_bytes(4, "big", signed=True) for value in values)

    before, after = path.read_bytes().split(b"tkhd")
    assert matrix(upright) in after
    path.write_bytes(before + b"tkhd" + after.replace(matrix(upright), matrix(turned), 1))
    with pytest.raises(DataError, match="rotated"):
        probe(path)
