"""Rewards by optical flow on flows that are known, and on RAFT's own through the contract."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from rewards import registry
from rewards.catalogue import CATALOGUE
from rewards.errors import RewardError
from rewards.flow import FlowModel, sample_frames, visible, warp
from rewards.flow_motion import FlowMotion
from rewards.raft import Raft
from rewards.testing import RewardContract
from rewards.warp_error import WarpError

SLOPE = 0.02
"""Of the ramps, in grey levels per pixel: a ramp that moves right by s pixels gets darker by SLOPE * s."""


class RampFlow(FlowModel):
    """Knows how far a ramp has moved to the right from how much darker it has become; flow of real clips is RAFT's."""

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        moved = (first.mean(dim=(1, 2, 3)) - second.mean(dim=(1, 2, 3))) / SLOPE
        right = moved[:, None, None, None].expand(-1, 1, *first.shape[-2:])
        return torch.cat([right, torch.zeros_like(right)], dim=1)


def moving_ramp(places: list[float], *, height: int = 16, width: int = 24) -> Tensor:
    """Return one clip of a ramp that has moved right by `places` pixels, frame by frame."""
    columns = torch.arange(width) - torch.tensor(places)[:, None]
    frames = 0.5 + SLOPE * (columns - width / 2)
    return frames[None, :, None, None].expand(1, len(places), 3, height, width).contiguous()


@pytest.fixture(scope="module")
def ramp_flow(raft_file: Path) -> RampFlow:
    return RampFlow(raft_file, iterations=1, pairs_per_pass=2)


@pytest.fixture
def motion(raft_file: Path, ramp_flow: RampFlow) -> FlowMotion:
    reward = FlowMotion(raft_file)
    reward._flow = ramp_flow
    return reward


@pytest.fixture
def warp_error(raft_file: Path, ramp_flow: RampFlow) -> WarpError:
    reward = WarpError(raft_file)
    reward._flow = ramp_flow
    return reward


@pytest.fixture(scope="module")
def still_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return weights with which RAFT finds no motion in anything."""
    file = tmp_path_factory.mktemp("still") / "raft.pth"
    torch.save({name: torch.zeros_like(value) for name, value in Raft().state_dict().items()}, file)
    return file


class FlowContract(RewardContract):
    """The contract with a flow that costs nothing: RAFT's own gradient is checked with the dynamic degree."""

    shape = (2, 3, 3, 8, 8)
    bf16_tolerance = 0.1

    @pytest.fixture(autouse=True)
    def _flow(self, raft_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        type(self).options = {"weights": raft_file, "pairs_per_pass": 3}
        for module in ("flow_motion", "warp_error"):
            monkeypatch.setattr(f"rewards.{module}.FlowModel", RampFlow)


class TestFlowMotion(FlowContract):
    reward = "flow_motion"


class TestWarpError(FlowContract):
    reward = "warp_error"


@pytest.mark.parametrize("name", ["flow_motion", "warp_error"])
def test_gradient_reaches_pixels_through_raft(name: str, raft_file: Path) -> None:
    reward = registry.build(name, weights=raft_file, iterations=1)
    video = torch.rand(1, 3, 3, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    output = reward(video, ["noise"], fps=8)
    assert output.valid.all()
    for dimension in set(reward.spec.dimensions) - set(reward.spec.without_gradient):
        (gradient,) = torch.autograd.grad(output.values[dimension].sum(), video, retain_graph=True)
        assert gradient.isfinite().all()
        assert (gradient.flatten(2).abs().sum(dim=2) > 0).all()  # every frame


@pytest.mark.parametrize("name", ["flow_motion", "warp_error", "dynamic_degree"])
def test_a_config_file_names_everything_as_text(name: str, raft_file: Path) -> None:
    reward = registry.build(name, **yaml.safe_load(f"{{weights: {raft_file}, iterations: 2, pairs_per_pass: null}}"))
    entry = CATALOGUE[name]
    assert (entry.is_differentiable, entry.licence) == (reward.spec.is_differentiable, reward.spec.licence)
    assert reward.spec.name == name


def test_even_motion_is_its_speed_and_perfectly_smooth(motion: FlowMotion) -> None:
    values = motion(moving_ramp([0, 1.5, 3, 4.5]), ["ramp"], fps=8).values
    assert values["motion"].item() == pytest.approx(1.5 * 256 / 16, rel=1e-4)
    assert values["smoothness"].item() == pytest.approx(0, abs=1e-3)


def test_jerky_motion_of_the_same_speed_is_less_smooth(motion: FlowMotion) -> None:
    values = motion(moving_ramp([0, 1, 3, 4]), ["ramp"], fps=8).values
    assert values["motion"].item() == pytest.approx(4 / 3 * 256 / 16, rel=1e-4)
    # The flow to the right changes by 1 pixel twice, the one downwards never: a mean of 1/2.
    assert values["smoothness"].item() == pytest.approx(-0.5 * 256 / 16, rel=1e-3)


def test_motion_is_per_eighth_of_a_second_and_relative_to_the_frame(motion: FlowMotion) -> None:
    coarse = motion(moving_ramp([0, 1, 2, 3]), ["ramp"], fps=8).values["motion"]
    fine = motion(moving_ramp([0, 0.5, 1, 1.5, 2, 2.5, 3]), ["ramp"], fps=16).values["motion"]
    slow = motion(moving_ramp([0, 1, 2, 3]), ["ramp"], fps=4).values["motion"]
    large = motion(moving_ramp([0, 1, 2, 3], height=32, width=40), ["ramp"], fps=8).values["motion"]
    torch.testing.assert_close(coarse, fine, rtol=1e-4, atol=0)
    torch.testing.assert_close(coarse, 2 * slow, rtol=1e-4, atol=0)
    torch.testing.assert_close(coarse, 2 * large, rtol=1e-4, atol=0)


def test_a_still_clip_has_no_motion_and_is_smooth(motion: FlowMotion) -> None:
    values = motion(moving_ramp([0, 0, 0]), ["ramp"], fps=8).values
    assert (values["motion"].item(), values["smoothness"].item()) == (0, 0)


def test_too_few_frames_are_refused_with_how_many_fit(motion: FlowMotion, warp_error: WarpError) -> None:
    with pytest.raises(RewardError, match=r"3 of them: give at least 7 frames, got 6"):
        motion(moving_ramp([0.0] * 6), ["ramp"], fps=24)
    with pytest.raises(RewardError, match=r"3 frame\(s\)"):
        motion(moving_ramp([0, 1]), ["ramp"], fps=8)
    with pytest.raises(RewardError, match=r"2 frame\(s\)"):
        warp_error(moving_ramp([0]), ["ramp"], fps=8)
    assert sample_frames(7, fps=24, at_least=3) == range(0, 7, 3)


def test_warping_takes_motion_out_of_the_error(warp_error: WarpError) -> None:
    values = warp_error(moving_ramp([0, 1.5, 3]), ["ramp"], fps=8).values
    assert values["warp_error"].item() == pytest.approx(0, abs=1e-9)
    assert values["occluded"].item() == pytest.approx(2 / 24)  # two columns leave on the right


def test_flicker_is_what_remains(still_file: Path) -> None:
    reward = WarpError(still_file, iterations=1)
    steps = torch.tensor([0.2, 0.5, 0.4]).reshape(1, 3, 1, 1, 1).expand(1, 3, 3, 8, 8)
    values = reward(steps, ["flicker"], fps=8).values
    assert values["warp_error"].item() == pytest.approx((0.3**2 + 0.1**2) / 2, rel=1e-5)
    assert values["occluded"].item() == 0
    still = reward(steps[:, [0, 0, 0]], ["still"], fps=8).values
    assert still["warp_error"].item() == 0


def test_a_clip_without_a_visible_pixel_is_masked_and_its_neighbour_is_not(warp_error: WarpError) -> None:
    torn, even = moving_ramp([0.0, 30]), moving_ramp([0.0, 1])
    video = torch.cat([torn.clamp(0, 1), even]).requires_grad_()
    output = warp_error(video, ["torn", "even"], fps=8)
    assert output.valid.tolist() == [False, True]
    assert output.reasons == ("optical flow finds no pixel that two neighbouring frames both show", None)
    assert output.values["occluded"][0].isnan()
    (gradient,) = torch.autograd.grad(output.values["warp_error"][1], video)
    assert gradient.isfinite().all()
    assert not gradient[0].any()


def test_a_pair_without_a_visible_pixel_does_not_count_as_perfect(warp_error: WarpError) -> None:
    frames = torch.cat([moving_ramp([0.0, 0.0]), moving_ramp([0.0, 30]).clamp(0, 1)], dim=1)
    frames[0, 1, :, ::2] += 0.1  # a flicker of rows that the mean brightness takes for motion to the left
    frames[0, 1, :, 1::2] -= 0.1
    alone = warp_error(frames[:, :2], ["a"], fps=8).values["warp_error"]
    with_cut = warp_error(frames[:, [0, 1, 3]], ["a"], fps=8).values["warp_error"]
    assert alone.item() == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(with_cut, alone)


def test_warp_fetches_what_the_flow_points_to() -> None:
    frames = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    flow = torch.tensor([2.0, -1.0]).reshape(1, 2, 1, 1).expand(1, 2, 6, 8)
    warped = warp(frames, flow)
    torch.testing.assert_close(warped[..., 1:, :-2], frames[..., :-1, 2:])
    torch.testing.assert_close(warped[..., 0, :-2], frames[..., 0, 2:])  # above the border lies the border
    half = warp(frames, torch.full_like(flow, 0.5))[..., :-1, :-1]
    torch.testing.assert_close(half, torch.nn.functional.avg_pool2d(frames, 2, 1))


def test_pixels_are_lost_where_flow_does_not_return_jumps_or_leaves() -> None:
    forward = torch.zeros(1, 2, 8, 12)
    everywhere = torch.ones(1, 1, 8, 12, dtype=torch.bool)
    assert torch.equal(visible(forward, forward), everywhere)
    backward = forward.clone()
    backward[:, 0, 2, 3], backward[:, 0, 5, 6] = 0.7, 0.72  # squared 0.49 and 0.52, against a bound of 0.5 and a bit
    expected = everywhere.clone()
    expected[..., 5, 6] = False
    assert torch.equal(visible(forward, backward), expected)
    leaving = torch.tensor([0.0, 3.0]).reshape(1, 2, 1, 1).expand(1, 2, 8, 12)
    expected = everywhere.clone()
    expected[..., 5:, :] = False
    assert torch.equal(visible(leaving, -leaving), expected)
    jump = forward.clone()
    jump[:, 0, :, 6:] = 0.3  # the squared step 0.09 is above 0.002, the bound of pixels at rest
    expected = everywhere.clone()
    expected[..., 5] = False  # the boundary
    expected[..., 11] = False  # leaves
    assert torch.equal(visible(jump, -jump), expected)


@pytest.mark.parametrize("name", ["flow_motion", "warp_error", "dynamic_degree"])
def test_weights_and_options_that_do_not_fit_are_refused(name: str, raft_file: Path, tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="no weight file"):
        registry.build(name, weights=str(tmp_path / "nowhere.pth"))
    (tmp_path / "torn.pth").write_bytes(raft_file.read_bytes()[:100_000])
    with pytest.raises(RewardError, match="Cannot read weights"):
        registry.build(name, weights=str(tmp_path / "torn.pth"))
    with pytest.raises(RewardError, match="not on the Hub"):
        registry.build(name)
    with pytest.raises(RewardError, match="iterations must be 1 or more"):
        registry.build(name, weights=str(raft_file), iterations=0)
    with pytest.raises(RewardError, match="pairs_per_pass must be 1 or more"):
        registry.build(name, weights=str(raft_file), pairs_per_pass=0)


@pytest.mark.parametrize(
    ("name", "dimension", "weight"),
    [("dynamic_degree", "degree", 1.0), ("flow_motion", "smoothness", 1.0), ("warp_error", "warp_error", -1.0)],
)
def test_reward_backpropagation_trains_on_each_of_them(
    name: str, dimension: str, weight: float, raft_file: Path, train_by_config: Callable[..., None]
) -> None:
    options = {"weights": raft_file, "iterations": 1}
    train_by_config(name, options, dimension=dimension, weight=weight)
