"""The static filter of temporal flickering: which clips stand still, and which of those count."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from evaluation.base import ClipEntry, DecodedClip, SkipClipError
from evaluation.ports import static_filter as static_filter_module
from evaluation.ports import temporal_flickering
from evaluation.ports.static_filter import FASTEST_SHARE, StaticFilter, why_moving
from evaluation.ports.temporal_flickering import TemporalFlickering
from rewards.dynamic_degree import fastest
from rewards.raft import Raft
from rewards.random_weights import random_array


@pytest.fixture(scope="module")
def raft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "raft.pth"
    state = {name: torch.from_numpy(random_array(name, value.shape)) for name, value in Raft().state_dict().items()}
    torch.save(state, path)
    return path


def clip_of(frames: Tensor) -> DecodedClip:
    return DecodedClip(ClipEntry(file=Path("clip.mp4"), sha256="", prompt=""), frames, fps=8.0)


def test_one_step_in_eight_may_be_fast() -> None:
    assert why_moving([4.0] * 2 + [0.0] * 13, [0.0, 0.0]) is None
    reason = why_moving([4.0] * 3 + [0.0] * 12, [0.0, 0.0])
    assert reason == "it moves: 3 of 15 steps are faster than 3 pixels, 2 may be"


@pytest.mark.parametrize("ends", [[12.1, 0.0], [0.0, 12.1]])
def test_a_slow_drift_shows_between_the_first_frame_and_the_last(ends: list[float]) -> None:
    assert why_moving([2.9] * 15, [12.0, 12.0]) is None
    assert why_moving([2.9] * 15, ends) == "it moves: its last frame is 12.1 pixels from the first, 12 are allowed"


def test_speed_is_the_mean_of_the_fastest_two_percent() -> None:
    flow = torch.zeros(1, 2, 10, 20)
    flow[0, :, 0, :4] = torch.tensor([[3.0, 0.0, 6.0, 0.0], [4.0, 5.0, 8.0, 20.0]])  # lengths 5, 5, 10, 20 of 200
    assert fastest(flow, FASTEST_SHARE).item() == pytest.approx(10.0)


def test_every_step_and_both_ways_between_the_ends_are_measured(raft: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_filter_module, "ITERATIONS", 2)
    frames = torch.randint(0, 256, (3, 3, 128, 130), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    static_filter = StaticFilter(raft)
    speeds = static_filter.speeds(frames)
    pairs = [(0, 1), (1, 2), (2, 0), (0, 2)]
    for speed, pair in zip(speeds, pairs, strict=True):
        torch.testing.assert_close(static_filter.speeds(frames[list(pair)])[0], speed, rtol=1e-4, atol=0)


def test_clips_that_move_are_skipped_and_others_score_as_ever(raft: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = clip_of(torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8))
    filtered = TemporalFlickering(static_filter=raft)
    monkeypatch.setattr(temporal_flickering.StaticFilter, "why_moving", lambda *_: None)
    assert filtered.score(shown) == TemporalFlickering().score(shown)
    monkeypatch.setattr(temporal_flickering.StaticFilter, "why_moving", lambda *_: "it moves: a lot")
    with pytest.raises(SkipClipError, match="it moves: a lot"):
        filtered.score(shown)


def test_only_a_filter_needs_weights_and_counts_five_of_a_prompt(raft: Path) -> None:
    plain, filtered = TemporalFlickering().spec, TemporalFlickering(static_filter=raft).spec
    assert (plain.weights, plain.first_of_prompt) == ((), None)
    assert (filtered.weights, filtered.first_of_prompt) == (("raft_things",), 5)
