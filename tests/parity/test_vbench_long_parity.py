"""Long clips and the static filter as VBench's own code has them: golden numbers of record_vbench_long.py."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evaluation.base import ClipEntry, DecodedClip
from evaluation.ports import preprocessing
from evaluation.ports.long_alignment import align, fuse
from evaluation.ports.long_consistency import clip_to_clip_by
from evaluation.ports.long_splitting import differences, parts
from evaluation.ports.random_weights import random_clip
from evaluation.ports.static_filter import StaticFilter, why_moving
from evaluation.ports.temporal_flickering import TemporalFlickering

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "vbench_long.json").read_text())
TOLERANCE = 1e-4
"""Relative."""
STATIC, FIRST = GOLDEN["static_filter"], GOLDEN["first_frames"]
FUSIONS = [(dimension, recorded) for dimension, all_ in GOLDEN["fusions"].items() for recorded in all_]
State = Callable[..., dict[str, Tensor]]


def frames_of(name: str, size: list[int]) -> Tensor:
    return torch.from_numpy(random_clip(name, *size)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("recorded", GOLDEN["splits"])
def test_parts_are_the_originals(recorded: dict[str, Any]) -> None:
    cut = parts(recorded["num_frames"], int(recorded["fps"]) * recorded["seconds"])
    assert [[part.start, len(part)] for part in cut] == recorded["parts"]


@pytest.mark.parametrize(("dimension", "recorded"), FUSIONS)
def test_fused_consistency_is_the_originals(dimension: str, recorded: dict[str, float]) -> None:
    fused = fuse(dimension, recorded["in_clip"], recorded["clip_to_clip"])
    assert fused == pytest.approx(recorded["fused"], abs=1e-6)


def test_an_average_without_the_table_is_seen() -> None:
    plain = [recorded["in_clip"] / 2 + recorded["clip_to_clip"] / 2 for _, recorded in FUSIONS]
    assert sum(abs(a - recorded["fused"]) > 0.02 for a, (_, recorded) in zip(plain, FUSIONS, strict=True)) >= 8
    assert align("subject_consistency", 0.6) != align("background_consistency", 0.6)


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory, random_state: State) -> Path:
    path = tmp_path_factory.mktemp("dinov2") / "dinov2.pth"
    torch.save(random_state(FIRST["shapes"]), path)
    return path


class TestFirstFrames:
    @staticmethod
    def difference(name: str, weights: Path) -> float:
        """Return how far what lacks to full consistency, which is what varies, is from the original's."""
        resemblance = clip_to_clip_by("dinov2", TemporalFlickering(), weights)
        assert resemblance is not None
        entry = ClipEntry(file=Path("clip.mp4"), sha256="", prompt="")
        score = resemblance(DecodedClip(entry, frames_of(name, FIRST["clips"][name]), 8.0))
        return abs(score - FIRST["scores"][name]) / (1 - FIRST["scores"][name])

    @pytest.mark.parametrize("name", list(FIRST["scores"]))
    def test_consistency_by_dinov2_is_the_originals(self, name: str, dinov2: Path) -> None:
        assert self.difference(name, dinov2) < TOLERANCE

    def test_a_resize_without_smoothing_is_seen(self, dinov2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        resize = nn.functional.interpolate

        def rough(pixels: Tensor, **options: Any) -> Tensor:
            return resize(pixels, **{**options, "antialias": False})

        monkeypatch.setattr(preprocessing.functional, "interpolate", rough)
        assert self.difference("landscape", dinov2) > 10 * TOLERANCE

    def test_blocks_without_their_scales_are_seen(self, tmp_path: Path, random_state: State) -> None:
        state = {name: value for name, value in random_state(FIRST["shapes"]).items() if ".ls" not in name}
        torch.save(state, tmp_path / "unscaled.pth")
        assert self.difference("small", tmp_path / "unscaled.pth") > 10 * TOLERANCE


@pytest.fixture(scope="module")
def static_filter(tmp_path_factory: pytest.TempPathFactory, random_state: State) -> StaticFilter:
    path = tmp_path_factory.mktemp("raft") / "raft.pth"
    torch.save({f"module.{name}": value for name, value in random_state(STATIC["shapes"]).items()}, path)
    return StaticFilter(path)


class TestStaticFilter:
    @pytest.mark.parametrize("name", list(STATIC["speeds"]))
    def test_speeds_are_the_originals(self, name: str, static_filter: StaticFilter) -> None:
        frames = frames_of(name, STATIC["clips"][name])
        ours = static_filter.speeds(frames).numpy()
        *steps, there, back = np.array(STATIC["speeds"][name]) * 256 / min(frames.shape[-2:])
        np.testing.assert_allclose(ours, [*steps, back, there], rtol=TOLERANCE)

    @pytest.mark.parametrize("name", list(STATIC["verdicts"]))
    def test_the_verdict_on_speeds_is_the_originals(self, name: str) -> None:
        recorded = STATIC["verdicts"][name]
        speeds = recorded["speeds"]
        assert (why_moving(speeds[:-2], speeds[-2:]) is None) is recorded["is_static"]

    def test_verdicts_of_both_kinds_were_recorded(self) -> None:
        assert [recorded["is_static"] for recorded in STATIC["verdicts"].values()].count(True) in range(2, 8)


@pytest.mark.parametrize("name", list(GOLDEN["scenes"]["scores"]))
def test_differences_are_those_of_pyscenedetect(name: str) -> None:
    frames = frames_of(name, GOLDEN["scenes"]["clips"][name])
    if name == "grey":
        frames = frames[:, :1].expand(-1, 3, -1, -1)
    expected = GOLDEN["scenes"]["scores"][name]
    assert list(differences(frames)) == pytest.approx(expected, abs=0.1)  # of 255: OpenCV rounds hue otherwise
