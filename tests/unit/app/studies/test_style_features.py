"""Covariates of style control."""

from pathlib import Path

import pytest
import torch

from app.studies.style_features import style_features
from rlhf_video.data import write_lossless


def test_features_of_a_flickering_colour_are_known(tmp_path: Path) -> None:
    video = torch.zeros(4, 3, 16, 16)
    video[1::2] = torch.tensor([1.0, 0.2, 0.2])[:, None, None]  # black, red, black, red
    write_lossless(tmp_path / "clip.mkv", video, 8)
    features = style_features(tmp_path / "clip.mkv")
    luma = 0.2126 + 0.2 * (1 - 0.2126)
    assert features.duration == 0.5
    assert features.motion == pytest.approx(luma, abs=1e-4)
    assert features.brightness == pytest.approx(luma / 2, abs=1e-4)
    assert features.saturation == pytest.approx(0.4, abs=1e-4)
    assert features.bitrate == 16 * (tmp_path / "clip.mkv").stat().st_size


def test_one_frame_has_no_motion(tmp_path: Path) -> None:
    write_lossless(tmp_path / "clip.mkv", torch.rand(1, 3, 16, 16), 8)
    assert style_features(tmp_path / "clip.mkv").motion == 0.0
