"""Clips as raters get them: every frame in order, playable, alike, and without a word of their makers."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from app.studies.media import MediaPolicy, Placement, PlayFiles, common_size, place, transcode
from app.studies.probing import probe
from rlhf_video.data import read_frames, sha256_file
from rlhf_video.data.clip_facts import ClipFacts
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.testing.barcode_clips import Area, Codec, barcode_frame, read_barcodes, write_barcode_clip

POLICY = MediaPolicy(height=128, width=192, least_seconds=0)


def files(play: PlayFiles) -> tuple[Path, Path]:
    assert play.webm is not None
    return play.mp4, play.webm


@pytest.mark.parametrize(
    ("codec", "name", "num_frames", "fps", "height", "width"),
    [
        ("h264", "as_it_is.mp4", 49, 24, 128, 192),
        ("h264", "doubled.mp4", 33, 16, 64, 96),
        ("mpeg4", "odd.avi", 12, 8, 63, 65),
        ("vp9", "bars.webm", 21, Fraction(24000, 1001), 100, 60),
        ("ffv1", "reduced.mkv", 9, 8, 200, 202),
        ("vp9", "single.webm", 1, 8, 64, 64),
        ("h264", "fast.mp4", 30, 60, 64, 64),
    ],
)
def test_every_frame_is_kept_in_order(
    tmp_path: Path, codec: Codec, name: str, num_frames: int, fps: Fraction, height: int, width: int
) -> None:
    source = write_barcode_clip(tmp_path / name, num_frames, fps, codec=codec, height=height, width=width)
    play = transcode(source, tmp_path / "play", POLICY)
    spot = place(height, width, POLICY)
    area = Area(spot.left / 192, spot.top / 128, spot.width / 192, spot.height / 128)
    for path in files(play):
        assert read_barcodes(path, area) == list(range(num_frames))
        facts = probe(path)
        assert (facts.num_frames, facts.height, facts.width) == (num_frames, 128, 192)
        assert facts.fps == pytest.approx(play.fps) == pytest.approx(float(fps))
    assert (play.num_frames, play.height, play.width) == (num_frames, 128, 192)


def test_files_are_what_browsers_play_and_seek_fast(tmp_path: Path) -> None:
    source = write_barcode_clip(tmp_path / "clip.mp4", 30, 9, codec="mpeg4")
    for path, codec, profile in zip(
        files(transcode(source, tmp_path, POLICY)), ("h264", "vp9"), ("High", "Profile 0"), strict=True
    ):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            context = stream.codec_context
            assert (context.name, context.profile, context.pix_fmt) == (codec, profile, "yuv420p")
            assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
            packets = [packet for packet in container.demux(stream) if packet.size]
        assert [packet.is_keyframe for packet in packets] == [index % 4 == 0 for index in range(30)]
        times = [float(packet.pts * packet.time_base) for packet in packets]
        assert times == pytest.approx([index / 9 for index in range(30)], abs=6e-4)  # webm counts milliseconds
    content = transcode(source, tmp_path, POLICY).mp4.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_bytes_repeat_names_are_hashes_and_the_original_is_untouched(tmp_path: Path) -> None:
    source = write_barcode_clip(tmp_path / "clip.mp4", 20, 8)
    content, changed = source.read_bytes(), source.stat().st_mtime_ns
    first, second = (transcode(source, tmp_path / name, POLICY) for name in ("one", "two"))
    for mine, other in zip(files(first), files(second), strict=True):
        assert mine.read_bytes() == other.read_bytes()
        assert mine.stem == sha256_file(mine)
    assert {first.mp4.name, files(first)[1].name} == {path.name for path in (tmp_path / "one").iterdir()}
    assert (first.mp4_sha256, first.webm_sha256) == (first.mp4.stem, files(first)[1].stem)
    assert first.source_sha256 == sha256_file(source)
    assert (source.read_bytes(), source.stat().st_mtime_ns) == (content, changed)


@pytest.mark.parametrize("audio", [False, True])
def test_no_byte_names_the_system_or_the_programs(tmp_path: Path, audio: bool) -> None:
    secret = "secret-system"
    named = write_barcode_clip(
        tmp_path / "named.mp4", 12, 8, audio=True, metadata={"title": secret, "comment": secret, "artist": secret}
    )
    source = tmp_path / f"{secret}.mp4"
    with av.open(str(named)) as read, av.open(str(source), "w") as written:
        written.metadata.update(read.metadata)
        streams = {stream.index: written.add_stream_from_template(stream) for stream in read.streams}
        unit = f"h264_metadata=sei_user_data=086f3693-b7b3-4f2c-9653-21492feee5b8+{secret}"  # inside the video itself
        named_frames = av.BitStreamFilterContext(unit, in_stream=read.streams.video[0])
        for packet in read.demux():
            index = packet.stream.index
            for each in named_frames.filter(packet) if packet.stream.type == "video" and packet.size else [packet]:
                if each.size:
                    each.stream = streams[index]
                    written.mux(each)
    original = source.read_bytes()
    assert original.count(secret.encode()) >= 3 and bytes.fromhex("086f3693b7b34f2c965321492feee5b8") in original
    play = transcode(source, tmp_path / "play", MediaPolicy(height=64, width=96, audio=audio))
    for path in files(play):
        everything = path.read_bytes() + path.name.encode()
        for word in (secret.encode(), b"x264", b"libvpx", b"Lavf6", b"Lavc6", b"named"):
            assert word not in everything
        with av.open(str(path)) as container:
            assert container.metadata.get("creation_time") is None
            assert {stream.type for stream in container.streams} == {"video", *(["audio"] if audio else [])}


def test_sound_is_kept_where_the_study_asks_and_ends_with_the_pictures(tmp_path: Path) -> None:
    source = write_barcode_clip(tmp_path / "clip.webm", 32, 8, codec="vp9", audio=True)
    policy = MediaPolicy(height=64, width=96, audio=True, length="trim", greatest_seconds=2)
    for path in files(transcode(source, tmp_path, policy)):
        assert read_barcodes(path) == list(range(16))
        with av.open(str(path)) as container:
            sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        assert 2.0 <= len(sound) / 48_000 < 2.1
        assert 0.15 < np.sqrt(np.mean(sound[4800:90_000] ** 2)) < 0.25  # a tone of amplitude 0.3
    silent = write_barcode_clip(tmp_path / "silent.mp4", 16, 8)
    assert not probe(transcode(silent, tmp_path, policy).mp4).has_audio


@pytest.mark.parametrize(
    ("seconds", "length", "shown"),
    [(1.0, "reject", 8), (1.0, "trim", 8), (3.0, "trim", 16), (3.0, "keep", 24), (0.25, "keep", 2)],
)
def test_length_policy_keeps_or_trims(tmp_path: Path, seconds: float, length: str, shown: int) -> None:
    source = write_barcode_clip(tmp_path / "clip.mp4", int(8 * seconds), 8)
    policy = MediaPolicy(height=64, width=96, greatest_seconds=2, length=length, webm=False)  # type: ignore[arg-type]
    play = transcode(source, tmp_path, policy)
    assert read_barcodes(play.mp4) == list(range(shown))
    assert (play.num_frames, play.webm, play.source.num_frames) == (shown, None, 8 * seconds)


@pytest.mark.parametrize(
    ("num_frames", "policy", "message"),
    [
        (24, MediaPolicy(height=64, width=96, greatest_seconds=2), "lasts 3.00 s.*at most 2 s.*'trim'"),
        (2, MediaPolicy(height=64, width=96), "lasts 0.25 s.*at least 0.5 s"),
        (2, MediaPolicy(height=64, width=96, length="trim"), "lasts 0.25 s.*at least 0.5 s"),
        (8, MediaPolicy(height=64, width=96, greatest_bytes=1000), "MiB; this study takes at most"),
    ],
)
def test_what_the_policy_does_not_take_is_refused_before_anything_is_written(
    tmp_path: Path, num_frames: int, policy: MediaPolicy, message: str
) -> None:
    source = write_barcode_clip(tmp_path / "clip.mp4", num_frames, 8)
    with pytest.raises(DataError, match=message):
        transcode(source, tmp_path / "play", policy)
    assert not (tmp_path / "play").exists()


def test_a_failed_write_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_barcode_clip(tmp_path / "clip.mp4", 8, 8)

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        transcode(source, tmp_path / "play", POLICY)
    assert list((tmp_path / "play").iterdir()) == []


@pytest.mark.parametrize(
    ("height", "width", "spot"),
    [
        (128, 192, Placement(0, 0, 128, 192, "as it is")),
        (100, 190, Placement(14, 0, 100, 190, "as it is")),  # no fraction: 1.01 times would blur it
        (64, 64, Placement(0, 32, 128, 128, "nearest")),
        (40, 40, Placement(4, 36, 120, 120, "nearest")),
        (256, 192, Placement(0, 48, 128, 96, "lanczos")),
        (128, 384, Placement(32, 0, 64, 192, "lanczos")),
    ],
)
def test_pictures_are_placed_whole_and_unstretched(height: int, width: int, spot: Placement) -> None:
    assert place(height, width, POLICY) == spot


def test_larger_pictures_are_enlarged_smoothly() -> None:
    assert place(240, 320, MediaPolicy(height=480, width=640)) == Placement(0, 0, 480, 640, "lanczos")


@pytest.mark.parametrize(
    ("sizes", "common"),
    [
        ([(64, 64)], (384, 384)),
        ([(480, 832), (832, 480)], (832, 832)),
        ([(63, 65)], (442, 456)),
        ([(399, 401)], (400, 402)),
    ],
)
def test_the_common_size_holds_every_clip(sizes: list[tuple[int, int]], common: tuple[int, int]) -> None:
    clips = [ClipFacts(8, height, width, 8.0) for height, width in sizes]
    assert common_size(clips) == common
    policy = MediaPolicy(height=common[0], width=common[1])
    assert all(place(*size, policy).height >= size[0] for size in sizes)


def test_a_tiny_clip_is_shown_with_sharp_pixels_in_its_own_colours(tmp_path: Path) -> None:
    source = write_barcode_clip(tmp_path / "clip.mkv", 4, 8, height=64, width=64, codec="ffv1", tint=(200, 30, 60))
    policy = MediaPolicy(height=384, width=384)
    for path in files(transcode(source, tmp_path, policy)):
        shown = read_frames(path)[0].permute(0, 2, 3, 1).numpy().astype(float)
        drawn = barcode_frame(3, 64, 64, (200, 30, 60)).repeat(6, axis=0).repeat(6, axis=1)
        assert np.abs(shown[3] - drawn).mean() < 1.5
        assert np.abs(shown[3, 150, 20] - (200, 30, 60)).max() <= 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"height": 63}, "63x96"),
        ({"width": 8}, "64x8"),
        ({"crf": 18}, "crf=18"),
        ({"crf": 0}, "crf=0"),
        ({"length": "cut"}, "'cut'"),
        ({"least_seconds": 3, "greatest_seconds": 2}, "least_seconds=3"),
    ],
)
def test_wrong_policies_are_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MediaPolicy(**{"height": 64, "width": 96, **wrong})  # type: ignore[arg-type]


def test_a_study_without_clips_has_no_common_size() -> None:
    with pytest.raises(DataError, match="no clip"):
        common_size([])
