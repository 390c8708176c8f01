"""The barcode clips that other tests read frame numbers from."""

from pathlib import Path

import numpy as np
import pytest

from rlhf_video.testing.barcode_clips import Area, Codec, barcode_frame, read_barcode, read_barcodes, write_barcode_clip


@pytest.mark.parametrize(("height", "width"), [(16, 16), (64, 64), (63, 65), (240, 416)])
def test_every_number_is_read_back_from_a_frame(height: int, width: int) -> None:
    assert [read_barcode(barcode_frame(index, height, width)) for index in range(258)] == [*range(256), 0, 1]


@pytest.mark.parametrize(
    ("codec", "name"), [("h264", "a.mp4"), ("mpeg4", "a.mp4"), ("vp9", "a.webm"), ("ffv1", "a.mkv")]
)
def test_every_number_is_read_back_from_a_file(tmp_path: Path, codec: Codec, name: str) -> None:
    path = write_barcode_clip(tmp_path / name, 40, 8, codec=codec, audio=True)
    assert read_barcodes(path) == list(range(40))


def test_a_picture_without_a_barcode_has_no_number() -> None:
    frame = barcode_frame(7, 64, 64)
    assert read_barcode(np.zeros_like(frame)) is None
    assert read_barcode(np.full_like(frame, frame.mean())) is None
    assert read_barcode(np.flipud(frame)) is None


def test_the_area_of_a_letterboxed_picture_is_read() -> None:
    canvas = np.zeros((100, 200, 3), dtype=np.uint8)
    canvas[20:84, 50:146] = barcode_frame(181, 64, 96)
    assert read_barcode(canvas, Area(50 / 200, 20 / 100, 96 / 200, 64 / 100)) == 181
    assert read_barcode(canvas) is None
