import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from evaluation.judging.score_store import ClipScore, RewardIdentity, ScoreStore
from evaluation.judging.scoring import score_clips
from rewards.base import RewardOutput
from rewards.errors import RewardError
from rewards.testing import BrightnessReward
from rlhf_video.data import write_video
from rlhf_video.errors import DataError

IDENTITY = RewardIdentity.of("brightness", "1", {})
SCORE = ClipScore(values={"brightness": 0.5}, covariates={"brightness": 0.5, "motion": 0.0, "duration": 1.0})


class CountingReward(BrightnessReward):
    """Brightness that counts its calls, stops like a killed process, and can refuse a prompt."""

    def __init__(self, *, stop_after: int | None = None) -> None:
        super().__init__()
        self.prompts: list[str] = []
        self._stop_after = stop_after

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        if self._stop_after is not None and len(self.prompts) >= self._stop_after:
            raise KeyboardInterrupt
        self.prompts += prompts
        output = super().__call__(video, prompts, fps=fps)
        if prompts[0] == "refuse":
            raise RewardError("this prompt is too long")
        if prompts[0] == "abstain":
            return RewardOutput(output.values, torch.tensor([False]), ("nothing to see",))
        if prompts[0] == "broken":
            return RewardOutput({"brightness": torch.tensor([float("nan")])}, output.valid, (None,))
        return output


@pytest.fixture
def clips(tmp_path: Path, make_clip: Callable[..., Path]) -> list[tuple[Path, str]]:
    return [(make_clip(tmp_path / f"{number}.mp4", 0.1 + 0.2 * number), f"prompt {number}") for number in range(4)]


def _score(
    reward: BrightnessReward, clips: Sequence[tuple[Path, str]], path: Path
) -> tuple[dict[tuple[Path, str], ClipScore], list[tuple[str, str]]]:
    with ScoreStore(path, IDENTITY) as store:
        scores, failures = score_clips(reward, clips, store)
    return scores, [(failure.prompt, failure.reason) for failure in failures]


def test_scores_are_the_rewards_own_and_covariates_come_with_them(
    clips: list[tuple[Path, str]], tmp_path: Path
) -> None:
    scores, failures = _score(BrightnessReward(), clips, tmp_path / "scores.jsonl")
    assert failures == []
    assert [scores[key].values["brightness"] for key in clips] == pytest.approx([0.1, 0.3, 0.5, 0.7], abs=0.01)
    assert scores[clips[0]].covariates == pytest.approx({"brightness": 0.1, "motion": 0.0, "duration": 3 / 8}, abs=0.01)


def test_motion_is_measured_in_grey_levels_per_second(tmp_path: Path) -> None:
    video = torch.zeros(2, 3, 16, 16)
    video[1] = 0.5
    write_video(tmp_path / "clip.mp4", video, 4.0)
    scores, _ = _score(BrightnessReward(), [(tmp_path / "clip.mp4", "p")], tmp_path / "scores.jsonl")
    (score,) = scores.values()
    assert score.covariates["motion"] == pytest.approx(2.0, abs=0.05)


def test_known_clips_are_not_scored_again(clips: list[tuple[Path, str]], tmp_path: Path) -> None:
    first, again = CountingReward(), CountingReward()
    before, _ = _score(first, clips, tmp_path / "scores.jsonl")
    after, _ = _score(again, clips, tmp_path / "scores.jsonl")
    assert (len(first.prompts), len(again.prompts)) == (4, 0)
    assert before == after


def test_killed_run_goes_on_where_it_stopped(clips: list[tuple[Path, str]], tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    with pytest.raises(KeyboardInterrupt):
        _score(CountingReward(stop_after=2), clips, path)
    rest = CountingReward()
    scores, _ = _score(rest, clips, path)
    assert rest.prompts == ["prompt 2", "prompt 3"]
    assert scores == _score(BrightnessReward(), clips, tmp_path / "straight.jsonl")[0]


@pytest.mark.parametrize("cut", [1, 5, 60, 200])
def test_line_torn_by_a_kill_is_scored_again_and_the_file_is_whole_afterwards(
    clips: list[tuple[Path, str]], tmp_path: Path, cut: int
) -> None:
    path = tmp_path / "scores.jsonl"
    expected, _ = _score(BrightnessReward(), clips, path)
    straight = path.read_bytes()
    path.write_bytes(straight[:-cut])
    again = CountingReward()
    assert _score(again, clips, path)[0] == expected
    assert again.prompts == ["prompt 3"]
    assert path.read_bytes() == straight


def test_key_is_content_prompt_reward_version_and_options(tmp_path: Path) -> None:
    path, weights = tmp_path / "scores.jsonl", tmp_path / "weights"
    weights.mkdir()
    (weights / "a.bin").write_bytes(b"1")
    options = {"model": str(weights), "frames": 4}
    with ScoreStore(path, RewardIdentity.of("r", "1", options)) as store:
        store.add("aa", "p", SCORE)
        assert store.find("aa", "p") == SCORE
        assert store.find("ab", "p") is None and store.find("aa", "q") is None
    (weights / "a.bin").write_bytes(b"2")
    changed = RewardIdentity.of("r", "1", options)
    (weights / "a.bin").write_bytes(b"1")
    others = [RewardIdentity.of("r", "2", options), RewardIdentity.of("r", "1", {**options, "frames": 5}), changed]
    for identity in others:
        with ScoreStore(path, identity) as store:
            assert store.find("aa", "p") is None
    with ScoreStore(path, RewardIdentity.of("r", "1", dict(reversed(options.items())))) as store:
        assert store.find("aa", "p") == SCORE


def test_one_file_keeps_the_scores_of_several_rewards(tmp_path: Path) -> None:
    for name in ("x", "y"):
        with ScoreStore(tmp_path / "s.jsonl", RewardIdentity.of(name, "1", {})) as store:
            store.add("aa", "p", SCORE)
    assert len(store) == 2
    rewards = [json.loads(line)["reward"] for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert rewards == ["x@1", "y@1"]


def test_damaged_line_is_named_and_a_foreign_file_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(b'{"key": "a"}\n')
    with pytest.raises(DataError, match="Line 1 of the score file"):
        ScoreStore(path, IDENTITY)
    path.write_bytes(b"my thesis")
    with pytest.raises(DataError, match="is not a score file"):
        ScoreStore(path, IDENTITY)
    assert path.read_bytes() == b"my thesis"


def test_same_pixels_at_two_paths_are_scored_once(clips: list[tuple[Path, str]], tmp_path: Path) -> None:
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(clips[0][0].read_bytes())
    reward = CountingReward()
    scores, _ = _score(reward, [clips[0], (copy, "prompt 0")], tmp_path / "s.jsonl")
    assert reward.prompts == ["prompt 0"]
    assert scores[copy, "prompt 0"] == scores[clips[0]]


def test_clips_without_a_score_are_listed_and_tried_again(clips: list[tuple[Path, str]], tmp_path: Path) -> None:
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(clips[0][0].read_bytes()[:100])
    bad = [(torn, "p"), (clips[1][0], "refuse"), (clips[1][0], "abstain"), (clips[1][0], "broken")]
    path = tmp_path / "scores.jsonl"
    scores, failures = _score(CountingReward(), [clips[0], *bad], path)
    assert list(scores) == [clips[0]]
    assert [prompt for prompt, _ in failures] == ["p", "refuse", "abstain", "broken"]
    assert "cannot be decoded" in failures[0][1]
    assert [reason for _, reason in failures[1:]] == [
        "this prompt is too long",
        "not valid: nothing to see",
        "the reward returned nan for brightness",
    ]
    assert len(path.read_text().splitlines()) == 1
    again = CountingReward()
    _score(again, [clips[0], *bad], path)
    assert again.prompts == ["refuse", "abstain", "broken"]


def test_reward_that_scores_nothing_ends_early_with_the_first_reason(
    tmp_path: Path, make_clip: Callable[..., Path]
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 0.5)
    copies = []
    for number in range(30):
        copies.append((tmp_path / f"{number}.mp4", "refuse"))
        copies[-1][0].write_bytes(clip.read_bytes())
    reward = CountingReward()
    with pytest.raises(
        DataError, match=r"None of the first 10 clips could be scored; .*0\.mp4': this prompt is too long"
    ):
        _score(reward, copies, tmp_path / "s.jsonl")
    assert len(reward.prompts) == 10


def test_error_that_no_user_can_mend_is_not_swallowed(clips: list[tuple[Path, str]], tmp_path: Path) -> None:
    class Faulty(BrightnessReward):
        def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _score(Faulty(), clips, tmp_path / "s.jsonl")
