"""Every reward passes the contract, and the contract catches rewards that lie."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from rewards.base import RewardOutput
from rewards.testing import BrightnessReward, RewardContract


class TestBrightness(RewardContract):
    reward = "brightness"


class TestFrameDifference(RewardContract):
    reward = "frame_difference"


class TestSaturation(RewardContract):
    reward = "saturation"


class TestColourfulness(RewardContract):
    reward = "colourfulness"


class TestSharpness(RewardContract):
    reward = "sharpness"


class TestClipPreference(RewardContract):
    reward = "clip_preference"
    bf16_tolerance = 0.1

    @pytest.fixture(autouse=True)
    def _folder(self, clip_folder: Path) -> None:
        type(self).options = {"model": clip_folder}


class TestClipPreferenceOfFewFramesInPasses(RewardContract):
    reward = "clip_preference"
    bf16_tolerance = 0.1

    @pytest.fixture(autouse=True)
    def _folder(self, clip_folder: Path) -> None:
        frames = {"kind": "uniform", "count": 3}
        type(self).options = {"model": clip_folder, "frames": frames, "fit": "letterbox", "frames_per_pass": 2}


class TestVideoText(RewardContract):
    reward = "video_text"
    bf16_tolerance = 0.1

    @pytest.fixture(autouse=True)
    def _folder(self, xclip_folder: Path) -> None:
        type(self).options = {"model": xclip_folder}


class TestVideoTextResampledInPasses(RewardContract):
    reward = "video_text"
    shape = (3, 9, 3, 20, 14)
    bf16_tolerance = 0.1

    @pytest.fixture(autouse=True)
    def _folder(self, xclip_folder: Path) -> None:
        type(self).options = {"model": xclip_folder, "fit": "squash", "clips_per_pass": 2}


class TestDynamicDegree(RewardContract):
    reward = "dynamic_degree"
    shape = (2, 2, 3, 8, 8)  # RAFT sees 128x128 whatever the clip: each pair costs
    bf16_tolerance = 0.1

    @pytest.fixture(autouse=True)
    def _file(self, raft_file: Path) -> None:
        type(self).options = {"weights": raft_file, "iterations": 2, "temperature": 10.0}


class DetachedReward(BrightnessReward):
    """Declares a gradient that it does not give."""

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        return super().__call__(video, prompts, fps=fps).detach()


class BatchDependentReward(BrightnessReward):
    """Divides by the largest score of the batch, as a public reward does."""

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        output = super().__call__(video, prompts, fps=fps)
        values = {key: value / value.max() for key, value in output.values.items()}
        return RewardOutput(values, output.valid, output.reasons)


class WrongGradientReward(BrightnessReward):
    """Doubles its gradient through a straight-through trick."""

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        return super().__call__(2 * video - video.detach(), prompts, fps=fps)


def contract_of(reward: BrightnessReward) -> RewardContract:
    class Contract(RewardContract):
        shape = (2, 2, 3, 4, 4)

        def build(self) -> BrightnessReward:
            return reward

    return Contract()


def test_contract_catches_a_gradient_that_is_declared_but_missing() -> None:
    with pytest.raises(AssertionError):
        contract_of(DetachedReward()).test_gradient_reaches_pixels_as_declared()


def test_contract_catches_a_score_that_depends_on_the_batch() -> None:
    with pytest.raises(AssertionError):
        contract_of(BatchDependentReward()).test_a_batch_scores_as_its_clips_alone()


def test_contract_catches_a_wrong_gradient() -> None:
    with pytest.raises(GradcheckError):
        contract_of(WrongGradientReward()).test_gradient_equals_finite_differences()


WEIGHTLESS = {
    "brightness": {},
    "colourfulness": {},
    "exposure": {"dimension": "well_exposed"},
    "frame_difference": {},
    "saturation": {"weight": -1.0},
    "sharpness": {},
    "temporal_flicker": {},
}


@pytest.mark.parametrize("name", WEIGHTLESS)
def test_reward_backpropagation_trains_on_each_weightless_one(name: str, train_by_config: Callable[..., None]) -> None:
    train_by_config(name, {}, **WEIGHTLESS[name])


def test_reward_backpropagation_trains_on_folders_of_both_classes(
    clip_folder: Path, xclip_folder: Path, train_by_config: Callable[..., None], tmp_path: Path
) -> None:
    train_by_config("clip_preference", {"model": clip_folder})
    shutil.rmtree(tmp_path / "run")
    train_by_config("video_text", {"model": xclip_folder})


def test_reward_backpropagation_trains_on_several_as_one(train_by_config: Callable[..., None]) -> None:
    parts = [{"name": name, "normalisation": {"mean": 0.5, "std": 0.1}} for name in ("brightness", "sharpness")]
    train_by_config("weighted", {"terms": parts}, dimension="total")
