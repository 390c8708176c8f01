"""The dynamic degree is VBench's rule on RAFT's flow, and a smooth form of it with a gradient."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rewards.base import require_differentiable
from rewards.composite import RewardTerm
from rewards.dynamic_degree import DynamicDegree
from rewards.errors import RewardError


class SpeedOfBrightness(DynamicDegree):
    """Takes the brightness of the second frame, times 16, as the speed of a pair of 256-pixel frames."""

    def _speeds(self, first: Tensor, second: Tensor) -> Tensor:
        return 16 * second.mean(dim=(1, 2, 3)) * second.shape[-1] / 256


def clip_of_speeds(speeds: list[float], size: int = 8) -> Tensor:
    frames = torch.tensor([0.0, *speeds]) / 16
    return frames.reshape(1, -1, 1, 1, 1).expand(1, -1, 3, size, size).contiguous()


def score(reward: DynamicDegree, video: Tensor, fps: float = 8.0) -> tuple[float, float]:
    values = reward(video, ["a"] * len(video), fps=fps).values
    return values["degree"].item(), values["is_dynamic"].item()


@pytest.fixture(scope="module")
def by_brightness(raft_file: Path) -> DynamicDegree:
    return SpeedOfBrightness(raft_file)


@pytest.mark.parametrize("num_frames", [2, 3, 5, 6, 7, 10, 14, 16, 17])
def test_verdict_is_that_of_vbench(by_brightness: DynamicDegree, num_frames: int) -> None:
    for num_fast in range(num_frames):
        speeds = [6.5] * num_fast + [5.5] * (num_frames - 1 - num_fast)
        needed = round(4 * (num_frames / 16.0))  # VBench's text; Python rounds halves to even
        assert score(by_brightness, clip_of_speeds(speeds))[1] == float(num_fast >= needed)


def test_degree_is_the_mean_sigmoid_of_the_excess(by_brightness: DynamicDegree) -> None:
    degree, _ = score(by_brightness, clip_of_speeds([6.0, 8.0, 2.0]))
    expected = np.mean([1 / (1 + np.exp(-excess / 2)) for excess in (0.0, 2.0, -4.0)])
    assert degree == pytest.approx(expected, abs=1e-5)
    still, verdict = score(by_brightness, clip_of_speeds([0.0, 0.0, 0.0]))
    assert (round(still, 2), verdict) == (0.05, 0.0)


def test_threshold_grows_with_the_frame(by_brightness: DynamicDegree) -> None:
    speeds = [7.0, 7.0, 3.0]
    small, large = (score(by_brightness, clip_of_speeds(speeds, size)) for size in (8, 16))
    assert small == pytest.approx(large)


def test_frames_are_sampled_at_about_eight_per_second(by_brightness: DynamicDegree) -> None:
    video = clip_of_speeds([16.0, 8.0, 16.0, 8.0, 16.0, 8.0])
    for fps, interval in ((4.0, 1), (8.0, 1), (12.0, 2), (16.0, 2), (24.0, 3)):
        assert score(by_brightness, video, fps) == score(by_brightness, video[:, ::interval])
    with pytest.raises(RewardError, match="at least 4 frames, got 3"):
        by_brightness(video[:, :3], ["a"], fps=24.0)


def test_speed_is_the_mean_of_the_longest_twentieth(raft_file: Path) -> None:
    reward = DynamicDegree(raft_file, iterations=1)
    first, second = torch.rand(2, 2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    for speed, flow in zip(reward._speeds(first, second), reward._flow(first, second), strict=True):
        lengths = np.sqrt((flow.numpy() ** 2).sum(axis=0)).ravel()
        longest = np.sort(lengths)[::-1][: int(0.05 * 16 * 24)]
        assert speed.item() == pytest.approx(longest.mean(), rel=1e-5)


@pytest.mark.parametrize("size", [1, 3])
def test_passes_change_neither_scores_nor_gradients(raft_file: Path, size: int) -> None:
    results = []
    for pairs_per_pass in (None, size):
        video = torch.rand(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
        reward = DynamicDegree(raft_file, iterations=1, pairs_per_pass=pairs_per_pass)
        degree = reward(video, ["a", "b"], fps=8.0).values["degree"]
        results.append((degree.detach(), *torch.autograd.grad(degree.sum(), video)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)


def test_only_the_degree_can_be_trained_on(raft_file: Path) -> None:
    reward = DynamicDegree(raft_file)
    require_differentiable(reward, dimension="degree")
    with pytest.raises(RewardError, match=r"'is_dynamic' is a verdict without gradient.*Train on degree"):
        require_differentiable(reward, dimension="is_dynamic")
    with pytest.raises(RewardError, match="choose one: degree, is_dynamic"):
        RewardTerm(key="motion", reward=reward)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations must be 1 or more"),
        ({"pairs_per_pass": 0}, "pairs_per_pass must be 1 or more"),
        ({"temperature": 0.0}, "temperature must be above 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(RewardError, match=message):
        DynamicDegree("nowhere.pth", **options)  # type: ignore[arg-type]
