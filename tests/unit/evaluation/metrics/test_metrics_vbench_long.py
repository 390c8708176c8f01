"""VBench-Long's parts: a port on the parts of a clip, its scenes, and the resemblance of first frames."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from evaluation.base import ClipEntry, ClipScore, DecodedClip, Metric, SkipClipError
from evaluation.metrics import vbench_long
from evaluation.metrics.vbench_long import LONGER, PORTED, VBenchLong
from evaluation.ports.long_alignment import TABLES, align, fuse
from evaluation.ports.long_consistency import pick_clip_to_clip
from evaluation.ports.long_splitting import differences, parts, scenes
from evaluation.ports.random_weights import VIT_B_32, clip_state, dino_state
from evaluation.ports.subject_consistency import SubjectConsistency
from evaluation.ports.temporal_flickering import TemporalFlickering
from evaluation.registry import build_metric
from evaluation.running.weights_state import weight_states
from rlhf_video.errors import ConfigError


def clip_of(frames: Tensor, fps: float = 4.0) -> DecodedClip:
    entry = ClipEntry(file=Path("clip.mp4"), sha256="0" * 64, prompt="a red circle")
    return DecodedClip(entry, frames.to(torch.uint8), fps)


def noise(num_frames: int, side: int = 16, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (num_frames, 3, side, side), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "dino.pth"
    torch.save(dino_state(width=64, depth=1, patch_size=56), path)
    return path


@pytest.mark.parametrize("num_frames", [1, 7, 8, 9, 16, 20, 31])
def test_parts_leave_no_frame_out_and_are_equally_long(num_frames: int) -> None:
    cut = parts(num_frames, 8)
    assert {len(part) for part in cut} == {min(num_frames, 8)}
    assert sorted({frame for part in cut for frame in part}) == list(range(num_frames))


def test_a_clip_scores_the_mean_of_its_parts() -> None:
    frames = noise(20).to(torch.uint8)  # 5 s of 4 frames: parts at 0, 8 and 12
    port = TemporalFlickering()
    expected = [port.score(clip_of(frames[i : i + 8])).values["temporal_flickering"] for i in (0, 8, 12)]
    result = VBenchLong("temporal_flickering").score(clip_of(frames))
    assert result.curves["temporal_flickering"] == expected
    assert result.values["temporal_flickering"] == pytest.approx(sum(expected) / 3)


def test_parts_last_two_or_ten_seconds_or_what_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert VBenchLong("temporal_flickering")._seconds == 2.0
    monkeypatch.setattr(vbench_long, "LONGER", (*LONGER, "temporal_flickering"))
    assert VBenchLong("temporal_flickering")._seconds == 10.0
    result = VBenchLong("temporal_flickering", clip_seconds=2.5).score(clip_of(noise(20)))
    assert len(result.curves["temporal_flickering"]) == 2


def test_a_rate_with_a_fraction_is_rounded_down() -> None:
    result = VBenchLong("temporal_flickering").score(clip_of(noise(18), fps=3.9))  # parts of 6, not of 8
    assert len(result.curves["temporal_flickering"]) == 3


def test_its_numbers_are_of_a_family_of_their_own() -> None:
    built = build_metric("vbench_long", None, {"dimension": "temporal_flickering"})
    assert isinstance(built.metric, Metric)
    assert (built.spec.family, built.spec.dimensions) == ("vbench-long-port", ("temporal_flickering",))
    assert built.label == "long_temporal_flickering"
    assert built.key != build_metric("temporal_flickering", None, {}).key


class _Port:
    """A port that says what it is told to say of each part."""

    def __init__(self, answers: Sequence[float | Exception]) -> None:
        self.spec = TemporalFlickering().spec
        self._answers = iter(answers)

    def score(self, _: DecodedClip) -> ClipScore:
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return ClipScore(values={"temporal_flickering": answer})


def long_of(answers: Sequence[float | Exception]) -> VBenchLong:
    metric = VBenchLong("temporal_flickering")
    metric._port = _Port(answers)
    return metric


def test_parts_that_vbench_leaves_out_do_not_count() -> None:
    moving = SkipClipError("it moves")
    assert long_of([0.9, moving, 0.7]).score(clip_of(noise(20))).values["temporal_flickering"] == pytest.approx(0.8)
    with pytest.raises(SkipClipError, match="every part is left out, the last one because it moves"):
        long_of([moving] * 3).score(clip_of(noise(20)))


def test_a_part_that_fails_fails_the_clip() -> None:
    with pytest.raises(ZeroDivisionError):
        long_of([0.9, ZeroDivisionError(), 0.7]).score(clip_of(noise(20)))


def test_another_skipped_part_skips_the_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = long_of([0.9, SkipClipError("nothing to see"), 0.7])
    strict = dict.fromkeys(vbench_long.VBENCH_DIMENSIONS, vbench_long.VBENCH_DIMENSIONS["scene"])
    monkeypatch.setattr(vbench_long, "VBENCH_DIMENSIONS", strict)
    with pytest.raises(SkipClipError, match="part 2 of 3: nothing to see"):
        metric.score(clip_of(noise(20)))


def test_subject_consistency_joins_the_parts_and_their_first_frames(dino: Path) -> None:
    frames = noise(20, side=60).to(torch.uint8)
    port = SubjectConsistency(dino)
    options = {"weights": str(dino)}

    def consistency(shown: Tensor) -> float:
        return port.score(clip_of(shown)).values["subject_consistency"]

    in_clip = sum(consistency(frames[i : i + 8]) for i in (0, 8, 12)) / 3
    between = consistency(frames[[0, 8, 12]])
    dimension = "subject_consistency"
    whole = VBenchLong(dimension, options=options, clip_to_clip="dino").score(clip_of(frames))
    assert whole.values[dimension] == pytest.approx(0.5 * in_clip + 0.5 * align(dimension, between))
    inside = VBenchLong(dimension, options=options, clip_to_clip="off")
    assert inside.score(clip_of(frames)).values[dimension] == pytest.approx(in_clip)
    single = VBenchLong(dimension, options=options, clip_to_clip="dino").score(clip_of(frames[:8]))
    assert single.values[dimension] == pytest.approx(consistency(frames[:8]))


def test_first_frames_are_compared_by_dinov2_where_nothing_is_said(dino: Path, tmp_path: Path) -> None:
    state = dino_state(width=64, depth=1, patch_size=14)
    torch.save({**state, "mask_token": torch.zeros(1, 64), "blocks.0.ls1.gamma": torch.ones(64) * 2,
                "blocks.0.ls2.gamma": torch.ones(64)}, tmp_path / "dinov2.pth")  # fmt: skip
    options = {"weights": str(dino)}
    metric = VBenchLong("subject_consistency", options=options, clip_to_clip_weights=tmp_path / "dinov2.pth")
    assert metric.spec.weights == ("dino_vit_b_16", "dinov2_vit_b_14")
    frames = noise(20, side=60)
    other = VBenchLong("subject_consistency", options=options, clip_to_clip="dino")
    assert metric.score(clip_of(frames)).values != other.score(clip_of(frames)).values


def test_features_that_have_no_port_are_asked_for_by_name() -> None:
    with pytest.raises(ConfigError, match=r"DreamSim.*clip_to_clip: clip"):
        VBenchLong("background_consistency")
    with pytest.raises(ConfigError, match="is one of clip, off"):
        VBenchLong("background_consistency", clip_to_clip="dino")
    with pytest.raises(ConfigError, match="alone: leave it out for temporal_flickering"):
        VBenchLong("temporal_flickering", clip_to_clip="clip")
    assert pick_clip_to_clip("subject_consistency", None) == "dinov2"
    assert pick_clip_to_clip("motion_smoothness", None) == "off"


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'temporal_flickering'"):
        VBenchLong("temporal_flicker")
    with pytest.raises(ConfigError, match="scene has no port"):
        VBenchLong("scene")
    for name in ("clip_seconds", "scene_threshold"):
        with pytest.raises(ConfigError, match=f"{name} must be above 0"):
            VBenchLong("temporal_flickering", **{name: 0.0})  # type: ignore[arg-type]
    assert len(PORTED) == 10


def test_a_plan_names_the_weights_of_the_port_and_of_the_first_frames() -> None:
    def needed(**options: object) -> list[str]:
        return [state.name for state in weight_states("vbench_long", options)]

    assert needed(dimension="subject_consistency") == ["dino_vit_b_16", "dinov2_vit_b_14"]
    assert needed(dimension="subject_consistency", clip_to_clip="dino") == ["dino_vit_b_16"]
    assert needed(dimension="temporal_flickering") == []
    assert needed(dimension="temporal_flickering", options={"static_filter": "raft_things"}) == ["raft_things"]


@pytest.mark.parametrize("dimension", list(TABLES))
def test_alignment_rises_and_keeps_its_ends(dimension: str) -> None:
    table = TABLES[dimension]
    assert len(table) == 101 and (table[0], table[-1]) == (0.0, 1.0)
    assert all(former <= latter for former, latter in pairwise(table))
    assert align(dimension, 0.125) == pytest.approx((table[12] + table[13]) / 2)
    assert fuse(dimension, 0.9, None) == fuse(dimension, 0.9, 0.0) == 0.9


def test_a_cut_starts_a_scene_that_is_scored_by_itself() -> None:
    first, second = noise(1, seed=1).expand(20, -1, -1, -1), noise(1, seed=2).expand(22, -1, -1, -1)
    frames = torch.cat([first, second]).to(torch.uint8)
    assert [len(scene) for scene in scenes(frames, 35.0)] == [20, 22]
    plain, cut = (
        VBenchLong("temporal_flickering", scene_threshold=threshold).score(clip_of(frames)) for threshold in (None, 35)
    )
    assert cut.values["temporal_flickering"] == 1.0 > plain.values["temporal_flickering"]


def test_scenes_last_fifteen_frames_at_least() -> None:
    frames = torch.cat([noise(1, seed=i).expand(length, -1, -1, -1) for i, length in enumerate((10, 10, 10, 10))])
    assert [len(scene) for scene in scenes(frames.to(torch.uint8), 35.0)] == [20, 20]


def test_differences_are_those_of_hue_saturation_and_value() -> None:
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0], [255, 255, 255], [100, 50, 50]])
    frames = colours[:, :, None, None].expand(-1, -1, 4, 4).to(torch.uint8)
    hsv = [(0, 255, 255), (60, 255, 255), (120, 255, 255), (0, 0, 0), (0, 0, 255), (0, 128, 100)]
    expected = [sum(abs(a - b) for a, b in zip(one, other, strict=True)) / 3 for one, other in pairwise(hsv)]
    assert list(differences(frames)) == pytest.approx(expected)


def test_background_consistency_compares_first_frames_by_clip(tmp_path: Path) -> None:
    sizes = VIT_B_32.__class__(width=64, layers=1, text_width=64, text_layers=1, embed_dim=16, num_words=64)
    torch.save(clip_state(sizes), tmp_path / "clip.pt")
    options = {"weights": str(tmp_path / "clip.pt")}
    frames, dimension = noise(20, side=40), "background_consistency"
    off, by_clip = (VBenchLong(dimension, options=options, clip_to_clip=choice) for choice in ("off", "clip"))
    in_clip, fused = (metric.score(clip_of(frames)).values[dimension] for metric in (off, by_clip))
    port = build_metric(dimension, None, options).metric
    assert isinstance(port, Metric)
    between = port.score(clip_of(frames[[0, 8, 12]])).values[dimension]
    assert fused == pytest.approx(fuse(dimension, in_clip, between)) and fused != in_clip
