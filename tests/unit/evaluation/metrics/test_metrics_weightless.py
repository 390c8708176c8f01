"""Measures without weights: closed forms, and what must not change them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from evaluation.base import ClipEntry, ClipScore, DecodedClip, Metric, SkipClipError
from evaluation.metrics import pixels
from evaluation.metrics.blockiness import Blockiness
from evaluation.metrics.frame_faults import FrameFaults
from evaluation.metrics.loop import Loop
from evaluation.metrics.luminance_flicker import LuminanceFlicker
from evaluation.metrics.pixels import per_frame
from evaluation.registry import build_metric
from rlhf_video.data import read_video, write_video
from rlhf_video.errors import ConfigError

NAMES = ("luminance_flicker", "frame_faults", "loop", "blockiness")


def clip_of(frames: Tensor) -> DecodedClip:
    entry = ClipEntry(file=Path("clip.mp4"), sha256="0" * 64, prompt="a red circle")
    return DecodedClip(entry, frames.to(torch.uint8), 8.0)


def grey(levels: list[int], side: int = 32) -> DecodedClip:
    """Return a clip of even frames."""
    return clip_of(torch.tensor(levels)[:, None, None, None].expand(-1, 3, side, side))


def noise(num_frames: int = 24, side: int = 32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_frames, 3, side, side), generator=generator, dtype=torch.uint8)


def moving(num_frames: int = 24, step: int = 2, period: int | None = None) -> Tensor:
    """Return a white 8x8 square on black that moves to the right, from the start again after `period` frames."""
    frames = torch.zeros(num_frames, 3, 32, 64, dtype=torch.uint8)
    for number in range(num_frames):
        left = step * (number % period if period else number)
        frames[number, :, 12:20, left : left + 8] = 255
    return frames


def value(metric: Metric, clip: DecodedClip, name: str | None = None) -> float:
    return metric.score(clip).values[name or metric.spec.name]


@pytest.mark.parametrize("name", NAMES)
def test_measure_is_built_by_name_and_says_what_it_declares(name: str) -> None:
    metric = build_metric(name, None, {}).metric
    assert isinstance(metric, Metric)
    result = metric.score(clip_of(noise()))
    assert isinstance(result, ClipScore)
    assert tuple(result.values) == metric.spec.dimensions
    assert metric.spec.name == name and metric.spec.family == "measure" and not metric.spec.weights
    assert set(result.curves) <= set(metric.spec.dimensions)
    again = metric.score(clip_of(noise()))
    assert result == again


@pytest.mark.parametrize("name", NAMES)
def test_measure_leaves_the_shared_frames_alone(name: str) -> None:
    frames = noise()
    metric = build_metric(name, None, {}).metric
    assert isinstance(metric, Metric)
    metric.score(clip_of(frames))
    assert torch.equal(frames, noise())


def test_what_metrics_share_is_made_once_per_clip_and_changes_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = noise(7, 32)
    metrics = (Blockiness(), FrameFaults(), Loop(), LuminanceFlicker())
    alone = [metric.score(clip_of(frames)) for metric in metrics]
    made: list[object] = []
    monkeypatch.setattr(pixels, "per_frame", lambda *a: made.append(a[0]) or per_frame(*a))
    shared = clip_of(frames)
    assert [metric.score(shared) for metric in metrics] == alone
    assert made == [pixels.luma]
    other = clip_of(255 - frames)
    assert metrics[0].score(other) == Blockiness().score(clip_of(255 - frames)) and len(made) == 3


def test_flicker_is_one_for_black_and_white_in_turns_and_zero_for_stills_and_fades() -> None:
    flicker = LuminanceFlicker()
    assert value(flicker, grey([0, 255] * 6)) == pytest.approx(1.0, abs=1e-6)
    assert value(flicker, clip_of(noise(1).expand(12, -1, -1, -1))) == 0.0
    assert value(flicker, grey(list(range(0, 240, 20)))) == pytest.approx(0.0, abs=1e-6)


def test_flicker_counts_a_flash_by_its_closed_form() -> None:
    # Second differences of 0 0 0 h 0 0 0 are 0 h -2h h 0: their mean absolute value is 4h / 5.
    flash = value(LuminanceFlicker(), grey([50, 50, 50, 101, 50, 50, 50]))
    assert flash == pytest.approx(51 / 255 * 4 / 5 / 2, abs=1e-6)


def test_flicker_ignores_where_pixels_lie_and_the_direction_of_time_but_not_the_order_of_frames() -> None:
    flicker, frames = LuminanceFlicker(), (noise() * torch.linspace(0, 1, 24)[:, None, None, None]).to(torch.uint8)
    order = torch.randperm(32 * 32, generator=torch.Generator().manual_seed(1))
    moved = frames.flatten(2)[:, :, order].view_as(frames)
    assert value(flicker, clip_of(moved)) == pytest.approx(value(flicker, clip_of(frames)), abs=1e-6)
    assert value(flicker, clip_of(frames.flip(0))) == pytest.approx(value(flicker, clip_of(frames)), abs=1e-9)
    shuffled = frames[torch.randperm(24, generator=torch.Generator().manual_seed(2))]
    assert value(flicker, clip_of(shuffled)) > 10 * value(flicker, clip_of(frames))


def test_flicker_ignores_motion_over_an_even_background() -> None:
    assert value(LuminanceFlicker(), clip_of(moving())) == pytest.approx(0.0, abs=1e-6)


def test_flicker_has_nothing_to_say_about_two_frames() -> None:
    with pytest.raises(SkipClipError, match="3 frames"):
        LuminanceFlicker().score(grey([0, 255]))


def test_a_still_clip_is_frozen_and_repeated_and_a_moving_one_is_neither() -> None:
    still = FrameFaults().score(clip_of(noise(1).expand(10, -1, -1, -1))).values
    assert (still["frozen"], still["repeated"], still["black"]) == (1.0, 1.0, 0.0)
    clean = FrameFaults().score(clip_of(moving())).values
    assert (clean["frozen"], clean["repeated"], clean["black"]) == (0.0, 0.0, 0.0)


def test_black_counts_dark_frames_and_forgives_two_percent() -> None:
    frames = noise(8)
    frames[:2] = 20  # below 0.1 of the range
    frames[2] = 20
    frames[2, :, :1, :16] = 255  # 16 of 1024 pixels: 1.6%
    frames[3] = 20
    frames[3, :, :1, :] = 255  # 3.1%
    result = FrameFaults().score(clip_of(frames))
    assert result.values["black"] == 3 / 8
    assert result.curves["black"] == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_a_loop_repeats_without_freezing_and_a_shuffle_keeps_the_repeats() -> None:
    loop = moving(12, period=4)
    values = FrameFaults().score(clip_of(loop)).values
    assert values["frozen"] == 0.0 and values["repeated"] == 1.0
    frames = torch.cat([noise(9), noise(9)[:1], noise(9)[4:5]])
    shuffled = frames[torch.randperm(11, generator=torch.Generator().manual_seed(4))]
    assert FrameFaults().score(clip_of(frames)).values["repeated"] == pytest.approx(4 / 11)
    assert FrameFaults().score(clip_of(shuffled)).values["repeated"] == pytest.approx(4 / 11)


def test_frames_with_equal_small_pictures_are_told_apart_in_full() -> None:
    # Checkerboards of opposite phase have the same averages over 2x2 pixels and no pixel in common.
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2
    first = (board * 255).to(torch.uint8).expand(3, -1, -1)
    second = ((1 - board) * 255).to(torch.uint8).expand(3, -1, -1)
    third = noise(1)[0]
    values = FrameFaults().score(clip_of(torch.stack([first, third, second]))).values
    assert values["repeated"] == 0.0


def test_tolerance_decides_what_is_frozen() -> None:
    frames = torch.full((2, 3, 32, 32), 100, dtype=torch.uint8)
    frames[1, :, :8] += 1  # a quarter of the pixels by one level: 0.00098 on average
    assert FrameFaults().score(clip_of(frames)).values["frozen"] == 1.0
    assert FrameFaults(tolerance=0.0).score(clip_of(frames)).values["frozen"] == 0.0
    with pytest.raises(ConfigError, match="tolerance"):
        FrameFaults(tolerance=1.0)


def test_a_single_frame_is_not_frozen() -> None:
    assert FrameFaults().score(clip_of(noise(1))).values == {"black": 0.0, "frozen": 0.0, "repeated": 0.0}


def test_exact_loops_score_one_and_straight_motion_zero() -> None:
    assert value(Loop(), clip_of(moving(24, period=8))) == pytest.approx(1.0, abs=1e-9)
    assert value(Loop(), clip_of(moving(24))) == pytest.approx(0.0, abs=1e-9)


def test_loop_does_not_depend_on_direction_brightness_or_contrast() -> None:
    frames = moving(24, period=9)
    frames[:, 0, :4] += torch.arange(24, dtype=torch.uint8)[:, None, None]  # not an exact loop
    expected = value(Loop(), clip_of(frames))
    assert 0.5 < expected < 1.0
    assert value(Loop(), clip_of(frames.flip(0))) == pytest.approx(expected, abs=1e-9)
    assert value(Loop(), clip_of(frames // 2 * 2 // 2 + 60)) == pytest.approx(expected, abs=0.01)


def test_shuffling_a_loop_destroys_it() -> None:
    assert value(Loop(), clip_of(noise(32))) < 0.1
    loop = noise(8).repeat(4, 1, 1, 1)
    order = torch.randperm(32, generator=torch.Generator().manual_seed(5))
    assert value(Loop(), clip_of(loop)) == pytest.approx(1.0, abs=1e-9)
    assert value(Loop(), clip_of(loop[order])) < 0.5


def test_a_still_clip_has_no_period() -> None:
    with pytest.raises(SkipClipError, match="does not move"):
        Loop().score(clip_of(noise(1).expand(12, -1, -1, -1)))


def mosaic(block: int, num_frames: int = 3, side: int = 48) -> Tensor:
    cells = noise(num_frames, side // block, seed=7)
    return cells.repeat_interleave(block, dim=2).repeat_interleave(block, dim=3)


def test_a_mosaic_on_the_grid_scores_one_and_noise_scores_zero() -> None:
    assert value(Blockiness(), clip_of(mosaic(8))) == 1.0
    assert value(Blockiness(block=16), clip_of(mosaic(16))) == 1.0
    assert abs(value(Blockiness(), clip_of(noise(24, 64)))) < 0.02


def test_blockiness_of_a_known_picture_is_its_closed_form() -> None:
    # Columns step by 3 at borders and by 1 elsewhere, rows by 0: (3 - 1) / (3 + 1).
    steps = torch.ones(31, dtype=torch.int64)
    steps[7::8] = 3
    row = torch.cat([torch.zeros(1, dtype=torch.int64), steps.cumsum(0)])
    frames = row.expand(2, 3, 32, 32)
    assert value(Blockiness(), clip_of(frames)) == pytest.approx(0.5, abs=1e-6)


def test_blockiness_ignores_brightness_contrast_axes_and_the_order_of_frames() -> None:
    frames = (noise(6, 32) // 4 + mosaic(8, 6, 32) // 4).to(torch.uint8)
    expected = value(Blockiness(), clip_of(frames))
    assert 0.1 < expected < 0.9
    assert value(Blockiness(), clip_of(frames + 50)) == pytest.approx(expected, abs=1e-6)
    assert value(Blockiness(), clip_of(frames * 2)) == pytest.approx(expected, abs=1e-6)
    assert value(Blockiness(), clip_of(frames.mT)) == pytest.approx(expected, abs=1e-9)
    assert value(Blockiness(), clip_of(frames.flip(0))) == pytest.approx(expected, abs=1e-9)


def test_coding_at_low_quality_makes_a_clip_blockier(tmp_path: Path) -> None:
    across = torch.linspace(0, 1, 64)
    smooth = (0.5 + 0.4 * torch.sin(9 * across[:, None] + 7 * across) * across).expand(4, 3, 64, 64)
    scores = {}
    for crf in (5, 48):
        write_video(tmp_path / f"{crf}.mp4", smooth, 8.0, crf=crf)
        pixels, _ = read_video(tmp_path / f"{crf}.mp4")
        scores[crf] = value(Blockiness(), clip_of(pixels.mul(255).round()))
    assert scores[48] > 0.05 > 5 * abs(scores[5])


def test_blockiness_skips_even_frames_and_small_ones() -> None:
    with pytest.raises(SkipClipError, match="even"):
        Blockiness().score(grey([10, 20, 30]))
    with pytest.raises(SkipClipError, match="two blocks"):
        Blockiness(block=32).score(clip_of(noise()))
    with pytest.raises(ConfigError, match="block=1"):
        Blockiness(block=1)
