"""What holds for every clip, size and frame count."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rewards.base import FramePolicy
from rewards.composite import Normalisation, RewardTerm, WeightedReward
from rewards.errors import RewardError
from rewards.frame_difference import FrameDifference
from rewards.saturation import Saturation
from rewards.sharpness import Sharpness
from rewards.testing import BrightnessReward
from rewards.video_ops import fit_square, resize

WEIGHTLESS = (BrightnessReward, FrameDifference, Saturation, Sharpness)
SIZES = st.integers(3, 24)
SEEDS = st.integers(0, 10_000)


def clips(seed: int, num_frames: int = 4, height: int = 6, width: int = 5) -> Tensor:
    return torch.rand(2, num_frames, 3, height, width, generator=torch.Generator().manual_seed(seed))


def score(reward: type, video: Tensor, fps: float = 8.0) -> Tensor:
    values: dict[str, Tensor] = reward()(video, ["one", "two"], fps=fps).values
    return next(iter(values.values()))


@given(num_frames=st.integers(1, 200), count=st.integers(1, 64))
def test_uniform_frames_are_ordered_inside_and_hold_both_ends(num_frames: int, count: int) -> None:
    indices = FramePolicy("uniform", count).select(num_frames)
    assert len(indices) == count
    assert list(indices) == sorted(indices)
    assert 0 <= indices[0] <= indices[-1] < num_frames
    if count > 1:
        assert (indices[0], indices[-1]) == (0, num_frames - 1)
        steps = {later - earlier for earlier, later in itertools.pairwise(indices)}
        assert max(steps) - min(steps) <= 1


@given(num_frames=st.integers(1, 100), count=st.integers(1, 64), kind=st.sampled_from(["all", "first", "uniform"]))
def test_choosing_from_chosen_frames_changes_nothing(num_frames: int, count: int, kind: str) -> None:
    policy = FramePolicy(kind, None if kind == "all" else count)  # type: ignore[arg-type]
    chosen = policy.select(num_frames)
    assert tuple(chosen[i] for i in policy.select(len(chosen))) == chosen


@given(
    num_frames=st.integers(1, 300),
    fps=st.floats(1.0, 60.0),
    rate=st.floats(0.1, 30.0),
    fewest=st.integers(1, 9),
    multiple=st.integers(1, 4),
)
def test_frames_by_rate_are_groups_that_span_the_clip_and_stay_when_chosen_again(
    num_frames: int, fps: float, rate: float, fewest: int, multiple: int
) -> None:
    policy = FramePolicy("rate", fewest, rate, multiple)
    if num_frames < multiple:
        with pytest.raises(RewardError, match=f"at least {multiple} frames"):
            policy.select(num_frames, fps=fps)
        return
    chosen = policy.select(num_frames, fps=fps)
    count = len(chosen)
    assert count % multiple == 0
    assert list(chosen) == sorted(set(chosen))
    assert 0 <= chosen[0] <= chosen[-1] < num_frames
    assert count == 1 or (chosen[0], chosen[-1]) == (0, num_frames - 1)
    most = num_frames // multiple * multiple
    assert min(-(-fewest // multiple) * multiple, most) <= count <= most
    wanted = num_frames / fps * rate
    if fewest + multiple <= wanted <= most:
        assert abs(count - wanted) <= multiple / 2
    assert policy.select(count, fps=fps * count / num_frames) == tuple(range(count))


@given(seed=SEEDS, num_frames=st.integers(2, 6), height=SIZES, width=SIZES)
def test_weightless_scores_stay_in_their_range_for_every_size(
    seed: int, num_frames: int, height: int, width: int
) -> None:
    video = clips(seed, num_frames, height, width)
    for reward in WEIGHTLESS:
        low, high = reward().spec.range
        value = score(reward, video)
        assert bool(((value >= low) & (value <= high)).all())


@given(seed=SEEDS)
def test_weightless_scores_do_not_depend_on_the_direction_of_time_or_on_mirrors(seed: int) -> None:
    video = clips(seed)
    for reward in WEIGHTLESS:
        for turned in (video.flip(1), video.flip(-1), video.flip(-2)):
            torch.testing.assert_close(score(reward, video), score(reward, turned), rtol=1e-4, atol=1e-6)


@given(seed=SEEDS, strength=st.floats(0.0, 1.0))
def test_washing_a_clip_out_scales_chroma_motion_and_detail(seed: int, strength: float) -> None:
    video = clips(seed)
    washed = 0.5 + strength * (video - 0.5)
    for reward in (FrameDifference, Saturation, Sharpness):
        torch.testing.assert_close(score(reward, washed), strength * score(reward, video), rtol=1e-3, atol=1e-5)


@given(seed=SEEDS, fps=st.floats(0.5, 60.0))
def test_motion_is_a_rate(seed: int, fps: float) -> None:
    video = clips(seed)
    torch.testing.assert_close(score(FrameDifference, video, fps), score(FrameDifference, video, 1.0) * fps)


@given(height=SIZES, width=SIZES, size=st.integers(2, 20), value=st.floats(0.0, 1.0))
def test_resizing_a_flat_frame_keeps_it_flat(height: int, width: int, size: int, value: float) -> None:
    frame = torch.full((3, height, width), value)
    torch.testing.assert_close(resize(frame, (size, size)), torch.full((3, size, size), value), rtol=1e-5, atol=1e-5)
    for fit in ("crop", "squash"):
        fitted = fit_square(frame, size, fit)  # type: ignore[arg-type]
        torch.testing.assert_close(fitted, torch.full((3, size, size), value), rtol=1e-5, atol=1e-5)
    assert fit_square(frame, size, "letterbox").shape == (3, size, size)


@given(seed=SEEDS, shift=st.floats(-2, 2), scale=st.floats(0.1, 10))
def test_normalised_total_does_not_depend_on_the_rewards_own_scale(seed: int, shift: float, scale: float) -> None:
    raw = score(BrightnessReward, clips(seed)).double()
    spread = torch.cat([raw, raw + 0.1, raw - 0.2])
    plain, moved = (Normalisation.from_scores(scores) for scores in (spread, scale * spread + shift))
    term = RewardTerm(key="light", reward=BrightnessReward(), normalisation=plain)
    other = RewardTerm(key="light", reward=BrightnessReward(), normalisation=moved)
    torch.testing.assert_close(other.weighted(scale * raw + shift), term.weighted(raw), rtol=1e-6, atol=1e-6)


@given(seed=SEEDS, weight=st.floats(0.1, 10))
def test_shares_sum_to_one(seed: int, weight: float) -> None:
    unit = Normalisation(mean=0.0, std=1.0)
    reward = WeightedReward(
        [
            RewardTerm(key="light", reward=BrightnessReward(), weight=weight, normalisation=unit),
            RewardTerm(key="dull", reward=Saturation(), weight=-1.0, normalisation=unit),
        ]
    )
    shares = reward.pixel_gradient(clips(seed), ["one", "two"], fps=8).shares
    assert abs(sum(shares.values()) - 1) < 1e-6
    assert min(shares.values()) > 0
