"""Gold copies: as long and as large as their source, and worse beyond doubt."""

import math
from pathlib import Path

import pytest
import torch

from app.studies.degrading import DEGRADATIONS, Degradation, degrade
from app.studies.media import MediaPolicy, transcode
from app.studies.probing import probe
from rlhf_video.data import read_frames, write_lossless
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.testing.barcode_clips import read_barcodes, write_barcode_clip


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_a_copy_is_as_long_and_large_and_much_worse(tmp_path: Path, kind: Degradation) -> None:
    source = write_barcode_clip(tmp_path / "system.avi", 16, 8, height=63, width=65, codec="mpeg4")
    copy = degrade(source, tmp_path / "gold", kind, seed=3)
    mine, other = probe(source), probe(copy)
    assert (mine.num_frames, mine.height, mine.width, mine.fps) == (
        other.num_frames, other.height, other.width, other.fps,
    )  # fmt: skip
    difference = (read_frames(source)[0].float() - read_frames(copy)[0].float()).square().mean().item()
    assert 10 * math.log10(255**2 / difference) < 27  # dB; the encoder alone leaves more than 40
    again = degrade(source, tmp_path / "again", kind, seed=3)
    assert (copy.name, copy.read_bytes()) == (again.name, again.read_bytes())
    assert transcode(copy, tmp_path, MediaPolicy(height=128, width=192)).num_frames == 16


def test_frozen_and_shuffled_copies_hold_the_frames_of_the_source(tmp_path: Path) -> None:
    source = write_barcode_clip(tmp_path / "clip.mp4", 16, 8)
    frozen = read_barcodes(degrade(source, tmp_path, "frozen", 0))
    assert len(frozen) == 16 and len(set(frozen)) == 1
    shuffled = read_barcodes(degrade(source, tmp_path, "shuffled", 0))
    assert shuffled != list(range(16)) and set(shuffled) == set(range(16))


def test_another_seed_gives_another_copy(tmp_path: Path) -> None:
    source = write_barcode_clip(tmp_path / "clip.mp4", 16, 8)
    for kind in ("noise", "shuffled"):
        assert degrade(source, tmp_path, kind, 0) != degrade(source, tmp_path, kind, 1)


@pytest.mark.parametrize("kind", ["frozen", "shuffled"])
def test_a_still_clip_does_not_get_worse_by_its_order(tmp_path: Path, kind: Degradation) -> None:
    write_lossless(tmp_path / "still.mkv", torch.rand(1, 3, 16, 16).repeat(8, 1, 1, 1), 8)
    with pytest.raises(DataError, match=f"kind='{kind}' is hardly worse"):
        degrade(tmp_path / "still.mkv", tmp_path / "gold", kind, 0)
    assert not (tmp_path / "gold").exists()


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"kind='sepia'.*low_bitrate"):
        degrade(tmp_path / "clip.mp4", tmp_path, "sepia", 0)  # type: ignore[arg-type]
