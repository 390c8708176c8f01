"""Drift: a metric over the segments of a clip."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from evaluation.base import ClipEntry, DecodedClip, Metric, SkipClipError
from evaluation.metrics.drift import Drift, fitted_rise
from evaluation.metrics.mean_colour import MeanColour
from evaluation.metrics.reward import RewardMetric
from evaluation.registry import build_metric
from rlhf_video.data import read_video, write_video
from rlhf_video.errors import ConfigError
from rlhf_video.sprites.grammar import parse_prompt
from rlhf_video.sprites.renderer import render


def clip_of(frames: Tensor) -> DecodedClip:
    entry = ClipEntry(file=Path("clip.mp4"), sha256="0" * 64, prompt="a red circle")
    return DecodedClip(entry, frames.to(torch.uint8), 8.0)


def noise(num_frames: int, side: int = 16) -> Tensor:
    return torch.randint(0, 256, (num_frames, 3, side, side), generator=torch.Generator().manual_seed(0))


def grey(levels: list[int]) -> DecodedClip:
    return clip_of(torch.tensor(levels)[:, None, None, None].expand(-1, 3, 16, 16))


def brightness(**options: object) -> Drift:
    return Drift("reward", options={"name": "brightness"}, segment_frames=4, **options)  # type: ignore[arg-type]


def test_a_brightening_clip_drifts_by_what_it_brightens() -> None:
    result = brightness().score(grey([0] * 4 + [51] * 4 + [102] * 4))
    assert result.values == pytest.approx({"brightness_change": 0.4}, abs=1e-6)
    assert result.curves["brightness_change"] == pytest.approx([0.0, 0.2, 0.4], abs=1e-6)


def test_a_clip_that_stays_the_same_does_not_drift() -> None:
    result = brightness(trend=True).score(clip_of(noise(4).repeat(5, 1, 1, 1)))
    assert result.values == {"brightness_change": 0.0, "brightness_trend": pytest.approx(0.0, abs=1e-12)}


def test_playing_backwards_turns_the_drift_round() -> None:
    levels = [10, 12, 30, 44, 60, 90, 91, 99, 130, 140, 200, 201]
    forward, backward = (brightness().score(grey(order)).values for order in (levels, levels[::-1]))
    assert forward == pytest.approx({name: -value for name, value in backward.items()}, abs=1e-6)


def test_segments_are_the_metrics_own_values_on_cut_clips_and_leave_no_frame_out() -> None:
    frames = noise(14).to(torch.uint8)
    plain = RewardMetric("frame_difference")
    drift = Drift("reward", options={"name": "frame_difference"}, segment_frames=4, trend=True)
    starts = (0, 3, 7, 10)  # four segments of 4 cover 14 frames with overlaps
    expected = [plain.score(clip_of(frames[start : start + 4])).values["motion"] for start in starts]
    result = drift.score(clip_of(frames))
    assert result.curves["motion_change"] == expected
    assert result.values["motion_change"] == expected[3] - expected[0]
    assert result.values["motion_trend"] == pytest.approx(np.polyfit(starts, expected, 1)[0] * 10, rel=1e-9)


def test_trend_is_the_least_squares_line_whatever_single_points_do() -> None:
    assert fitted_rise(np.array([0, 5, 10, 15]), np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(3.0)
    assert fitted_rise(np.array([0, 1, 2]), np.array([0.0, 9.0, 0.0])) == pytest.approx(0.0)


def test_facts_follow_the_metric() -> None:
    spec = Drift("luminance_flicker").spec
    assert spec.name == "drift_luminance_flicker" and spec.family == "measure" and spec.version == "2-1"
    assert spec.dimensions == ("luminance_flicker_change",)
    assert Drift("luminance_flicker", trend=True).spec.dimensions == (*spec.dimensions, "luminance_flicker_trend")
    assert spec.higher_is_better is False and spec.unit == "grey levels of 1"
    built = build_metric("drift", None, {"metric": "luminance_flicker"})
    assert isinstance(built.metric, Metric) and built.label == "drift_luminance_flicker"


def test_a_trend_that_would_only_repeat_the_change_is_skipped() -> None:
    with pytest.raises(SkipClipError, match="a trend of 3 segments is the change"):
        brightness(trend=True).score(grey(list(range(12))))
    assert brightness(trend=True).score(grey(list(range(16)))).values.keys() == {
        "brightness_change",
        "brightness_trend",
    }


def test_short_clips_and_silent_segments_are_skipped() -> None:
    with pytest.raises(SkipClipError, match="more than the 4 frames"):
        brightness().score(grey([1, 2, 3, 4]))
    still_at_the_end = torch.cat([noise(8), noise(1).expand(8, -1, -1, -1)])
    with pytest.raises(SkipClipError, match="segment 2 of 2: the clip does not move"):
        Drift("loop", segment_frames=8).score(clip_of(still_at_the_end))


def test_curve_of_a_metric_against_references_is_cut_into_segments(tmp_path: Path) -> None:
    write_video(tmp_path / "a red circle-0.mp4", noise(12) / 255.0, 8.0)
    reference = read_video(tmp_path / "a red circle-0.mp4")[0].mul(255).round()
    error = torch.arange(12)[:, None, None, None] * 3
    drift = Drift("psnr", options={"references": str(tmp_path)}, segment_frames=4, source="curve")
    result = drift.score(clip_of((reference + error).clamp(0, 255)))
    curve = result.curves["psnr_change"]
    assert len(curve) == 3 and curve[0] > curve[1] > curve[2]
    assert result.values["psnr_change"] == curve[2] - curve[0] < 0


def test_what_cannot_be_followed_is_refused() -> None:
    with pytest.raises(ConfigError, match="segment_frames"):
        Drift("loop", segment_frames=0)
    with pytest.raises(ConfigError, match="no curve"):
        Drift("loop", segment_frames=4, source="curve").score(clip_of(noise(12)))
    folder = Path(__file__).resolve().parents[4] / "assets/sprite-clip"
    with pytest.raises(ConfigError, match="compares sets"):
        Drift("kernel_distance", options={"backbone": "clip_frames", "model": str(folder)})


def test_eighths_are_eighths_whatever_the_length() -> None:
    for num_frames in (16, 21, 189):
        levels = [round(200 * frame / (num_frames - 1)) for frame in range(num_frames)]
        drift = Drift("reward", options={"name": "brightness"}, num_segments=8, parts=True)
        result = drift.score(grey(levels))
        size = -(-num_frames // 8)
        assert list(result.values) == [f"brightness_{number}" for number in range(1, 9)] == list(drift.spec.dimensions)
        assert result.values["brightness_1"] == pytest.approx(np.mean(levels[:size]) / 255, abs=1e-5)
        assert result.values["brightness_8"] == pytest.approx(np.mean(levels[-size:]) / 255, abs=1e-5)
        assert list(result.values.values()) == sorted(result.values.values()) == result.curves["brightness_1"]
    with pytest.raises(SkipClipError, match="cannot be cut into 8 segments"):
        drift.score(grey([1] * 7))


def test_a_gap_does_not_cancel_between_clips_that_fade_and_clips_that_burn_out() -> None:
    drift = Drift("reward", options={"name": "brightness"}, num_segments=2, gap=True)
    fading, burning = drift.score(grey([0, 51])), drift.score(grey([51, 0]))
    assert fading.values == burning.values == pytest.approx({"brightness_gap": 0.2}, abs=1e-6)
    assert drift.spec.higher_is_better is False


def test_a_verifiers_share_is_followed_through_a_clip() -> None:
    prompt = "a red circle standing still on a navy background"
    video = render([parse_prompt(prompt)], [0])[0]
    frames = torch.cat([video, video[:, [2, 1, 0]]]).mul(255)  # red turns blue
    entry = ClipEntry(file=Path("clip.mp4"), sha256="0" * 64, prompt=prompt)
    judge = {"name": "rlhf_video.sprites.judge:SpriteJudge"}
    result = Drift("reward", options=judge, num_segments=4, parts=True).score(
        DecodedClip(entry, frames.to(torch.uint8), 8.0)
    )
    assert [result.values[f"all_{number}"] for number in (1, 2, 3, 4)] == [1, 1, 0, 0]
    assert [result.values[f"shape_{number}"] for number in (1, 2)] == [1, 1]


@pytest.mark.parametrize("options", [{"num_segments": 1}, {"parts": True}, {"gap": True, "trend": True}])
def test_options_that_exclude_each_other_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"num_segments|one of trend"):
        Drift("loop", **options)  # type: ignore[arg-type]


def test_mean_colour_is_cie_lab() -> None:
    red = torch.tensor([255, 0, 0])[None, :, None, None].expand(2, 3, 4, 4)
    values = MeanColour().score(clip_of(red)).values
    assert values == pytest.approx({"lightness": 53.24, "green_red": 80.09, "blue_yellow": 67.20}, abs=0.02)
    for level, lightness in ((0, 0.0), (119, 50.03), (255, 100.0)):
        values = MeanColour().score(grey([level])).values
        assert values == pytest.approx({"lightness": lightness, "green_red": 0.0, "blue_yellow": 0.0}, abs=0.02)


def test_a_clip_that_turns_yellow_has_a_colour_drift() -> None:
    tint = torch.tensor([[200, 200, 200]] * 4 + [[200, 200, 150]] * 4)[..., None, None].expand(-1, -1, 8, 8)
    values = Drift("mean_colour", num_segments=2, gap=True).score(clip_of(tint)).values
    assert values["blue_yellow_gap"] > 20 > 5 > values["lightness_gap"]
