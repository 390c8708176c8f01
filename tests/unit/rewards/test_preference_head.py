"""The head on CLIP and X-CLIP features passes the contract, and refuses what is no head."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rewards.errors import RewardError
from rewards.preference_head import PreferenceHead
from rewards.testing import RewardContract
from rewards.trainable import TrainableReward, UncertainReward
from rlhf_video.testing.tiny_pairs import tiny_clip, tiny_xclip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("head")
    start = tiny_clip(root / "clip")
    torch.manual_seed(0)
    fresh = PreferenceHead(start, dimensions=("quality", "motion"), hidden=8, uncertainty=True, trainable=True)
    fresh.save_pretrained(root / "saved")
    return root


class TestPreferenceHead(RewardContract):
    reward = "preference_head"
    bf16_tolerance = 0.1

    @pytest.fixture(autouse=True)
    def _folder(self, folder: Path) -> None:
        type(self).options = {"model": folder / "saved"}


def test_a_saved_head_comes_back_with_its_questions_and_its_spread(folder: Path) -> None:
    reward = PreferenceHead(folder / "saved", dimensions=("other",))
    assert isinstance(reward, TrainableReward) and isinstance(reward, UncertainReward)
    video = torch.rand(2, 3, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    video[1, 0, 0, 0, 0] = torch.nan
    mean, log_sigma = reward.distribution(video, ["a red wall"] * 2, fps=8)
    output = reward(video, ["a red wall"] * 2, fps=8)
    assert mean.shape == log_sigma.shape == (2, 2)
    torch.testing.assert_close(mean[0], torch.stack([output.values[key][0] for key in ("quality", "motion")]))
    assert mean[1].isnan().all() and log_sigma[1].isnan().all() and output.valid.tolist() == [True, False]


def test_what_is_no_head_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"holds no preference_head\.json: train a head"):
        PreferenceHead(folder / "clip")
    with pytest.raises(RewardError, match="no reward model folder"):
        PreferenceHead(tmp_path / "nothing")
    fresh = PreferenceHead(tiny_xclip(tmp_path / "xclip"), trainable=True)
    with pytest.raises(RewardError, match="without uncertainty"):
        fresh.distribution(torch.rand(1, 5, 3, 12, 12), ["a red wall"], fps=8)
    fresh.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "preference_head.safetensors").write_bytes(b"short")
    with pytest.raises(RewardError, match="Cannot load the head"):
        PreferenceHead(tmp_path / "saved")
    (tmp_path / "saved" / "preference_head.json").write_text("{}")
    with pytest.raises(RewardError, match="does not describe a head"):
        PreferenceHead(tmp_path / "saved")


def test_reward_backpropagation_trains_on_each_question(folder: Path, train_by_config: Callable[..., None]) -> None:
    train_by_config("preference_head", {"model": folder / "saved"}, dimension="motion")
