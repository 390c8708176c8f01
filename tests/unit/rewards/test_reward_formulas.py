"""Weightless rewards on clips whose score is known, and the facts that rewards declare."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from rewards.base import FramePolicy, RewardSpec, masked_output, parse_frame_policy, version_of
from rewards.colourfulness import Colourfulness
from rewards.errors import RewardError
from rewards.frame_difference import FrameDifference
from rewards.saturation import Saturation
from rewards.sharpness import Sharpness
from rewards.testing import BrightnessReward
from rewards.video_ops import centre_crop, fit_square, letterbox, resize, resize_short_side, take_frames


def flat(colour: tuple[float, float, float], num_frames: int = 3) -> torch.Tensor:
    return torch.tensor(colour).reshape(1, 1, 3, 1, 1).expand(1, num_frames, 3, 6, 6).contiguous()


def test_frame_difference_of_a_fade_is_its_speed() -> None:
    fade = torch.linspace(0.2, 0.8, 7).reshape(1, 7, 1, 1, 1).expand(1, 7, 3, 4, 4)
    score = FrameDifference()(fade, ["fade"], fps=8).values["motion"]
    torch.testing.assert_close(score, torch.tensor([0.1 * 8]))
    assert FrameDifference()(flat((0.1, 0.5, 0.9)), ["still"], fps=8).values["motion"].item() == 0


def test_frame_difference_of_a_moving_square_grows_with_its_speed() -> None:
    def moving(step: int) -> torch.Tensor:
        video = torch.zeros(1, 6, 3, 8, 32)
        for frame in range(6):
            video[:, frame, :, 2:6, frame * step : frame * step + 6] = 1
        return video

    scores = [FrameDifference()(moving(step), ["square"], fps=8).values["motion"].item() for step in (0, 1, 2, 4)]
    assert scores == sorted(scores)
    assert scores[0] == 0


def test_frame_difference_needs_two_frames() -> None:
    with pytest.raises(RewardError, match=r"2 frame\(s\)"):
        FrameDifference()(flat((0.5, 0.5, 0.5), num_frames=1), ["still"], fps=8)


def test_saturation_of_flat_colours_is_their_chroma() -> None:
    for colour, chroma in (((0.5, 0.5, 0.5), 0.0), ((1.0, 0.0, 0.0), 1.0), ((0.1, 0.4, 0.3), 0.3)):
        score = Saturation()(flat(colour), ["flat"], fps=8).values["saturation"]
        torch.testing.assert_close(score, torch.tensor([chroma]))


def test_colourfulness_follows_the_paper() -> None:
    picture = torch.rand(3, 9, 7, generator=torch.Generator().manual_seed(0)).double()
    red, green, blue = (255 * picture).numpy()
    red_green, yellow_blue = red - green, 0.5 * (red + green) - blue
    spread, strength = np.hypot(red_green.std(), yellow_blue.std()), np.hypot(red_green.mean(), yellow_blue.mean())
    score = Colourfulness()(picture.expand(1, 4, 3, 9, 7), ["noise"], fps=8).values["colourfulness"]
    assert score.item() == pytest.approx((spread + 0.3 * strength) / 255, rel=1e-5)
    assert Colourfulness()(flat((0.4, 0.4, 0.4)), ["grey"], fps=8).values["colourfulness"].item() < 1e-5


def test_sharpness_falls_with_blur_and_is_four_for_a_checkerboard_of_black_and_white() -> None:
    noise = torch.rand(1, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    blurred = functional.avg_pool2d(noise.flatten(0, 1), 3, 1, 1).unflatten(0, (1, 2))
    sharp, soft = (Sharpness()(video, ["noise"], fps=8).values["sharpness"].item() for video in (noise, blurred))
    assert sharp > 2 * soft
    checks = (torch.arange(6)[:, None] + torch.arange(6)) % 2
    board = checks.float().expand(1, 2, 3, 6, 6)
    torch.testing.assert_close(Sharpness()(board, ["board"], fps=8).values["sharpness"], torch.tensor([4.0]))


def test_sharpness_of_a_flat_clip_is_nothing_with_a_finite_gradient() -> None:
    video = flat((0.2, 0.4, 0.6)).requires_grad_()
    score = Sharpness()(video, ["flat"], fps=8).values["sharpness"]
    (gradient,) = torch.autograd.grad(score.sum(), video)
    assert score.item() < 1e-5
    assert gradient.isfinite().all()
    with pytest.raises(RewardError, match="3x3"):
        Sharpness()(video[..., :2], ["flat"], fps=8)


def test_brightness_gradient_is_one_over_the_number_of_values() -> None:
    video = flat((0.2, 0.4, 0.6)).requires_grad_()
    (gradient,) = torch.autograd.grad(BrightnessReward()(video, ["flat"], fps=8).values["brightness"].sum(), video)
    torch.testing.assert_close(gradient, torch.full_like(video, 1 / (3 * 3 * 6 * 6)))


def test_spec_with_repeated_dimensions_or_empty_range_is_refused() -> None:
    spec: RewardSpec = BrightnessReward().spec
    with pytest.raises(RewardError, match="distinct dimensions"):
        replace(spec, dimensions=("a", "a"))
    with pytest.raises(RewardError, match="empty range"):
        replace(spec, range=(1.0, 1.0))


@pytest.mark.parametrize(
    ("kind", "count", "message"),
    [
        ("all", 3, "takes no count"),
        ("uniform", None, "needs a count"),
        ("first", 0, "at least 1"),
        ("last", 1, "Unknown"),
    ],
)
def test_frame_policy_that_makes_no_sense_is_refused(kind: str, count: int | None, message: str) -> None:
    with pytest.raises(RewardError, match=message):
        FramePolicy(kind, count)  # type: ignore[arg-type]


def test_frame_policy_is_read_as_a_config_writes_it() -> None:
    policy = FramePolicy("uniform", 4)
    assert parse_frame_policy("first") == FramePolicy("first")
    assert parse_frame_policy({"kind": "uniform", "count": 4}) == policy
    assert parse_frame_policy(policy) is policy
    with pytest.raises(RewardError, match="not understood"):
        parse_frame_policy({"kind": "uniform", "count": "4"})


def test_letterbox_keeps_the_aspect_ratio_between_black_bars() -> None:
    boxed = letterbox(torch.ones(3, 8, 16), 8)
    assert boxed.shape == (3, 8, 8)
    assert not boxed[:, :2].any()
    assert not boxed[:, 6:].any()
    torch.testing.assert_close(boxed[:, 2:6], torch.ones(3, 4, 8))


def test_crop_keeps_the_centre() -> None:
    ramp = torch.arange(10.0).expand(3, 4, 10)
    assert centre_crop(ramp, (4, 4))[0, 0].tolist() == [3, 4, 5, 6]
    assert resize_short_side(torch.rand(3, 4, 10), 8).shape == (3, 8, 20)
    with pytest.raises(RewardError, match="resize first"):
        centre_crop(ramp, (5, 4))


def test_antialias_matters_and_is_on() -> None:
    noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    plain = functional.interpolate(noise[None], (16, 16), mode="bicubic", align_corners=False)[0]
    assert resize(noise, (16, 16)).std() < 0.5 * plain.std()


def test_all_frames_are_a_view_and_repeats_are_allowed() -> None:
    video = torch.rand(2, 3, 3, 4, 4)
    assert take_frames(video, (0, 1, 2)) is video
    assert torch.equal(take_frames(video, (0, 0, 2)), video[:, [0, 0, 2]])
    assert fit_square(video, 6, "squash").shape == (2, 3, 3, 6, 6)


def test_a_score_that_is_not_finite_is_masked_with_its_reason() -> None:
    scores = {"a": torch.tensor([1.0, float("nan"), 2.0, 3.0]), "b": torch.tensor([1.0, 1.0, float("inf"), 0.0])}
    output = masked_output(scores, torch.tensor([True, True, True, False]), (None, None, None, "too dark"))
    assert output.valid.tolist() == [True, False, False, False]
    assert output.reasons == (None, "the model gave no finite score", "the model gave no finite score", "too dark")
    assert all(value[1:].isnan().all() for value in output.values.values())


def test_version_names_what_is_not_the_default() -> None:
    assert version_of(precision=("float32", "float32"), area=(3, 3)) == "1"
    assert version_of(precision=("bfloat16", "float32"), area=(3, 4)) == "1-precision=bfloat16-area=3"
    long = version_of(condition=("a sentence that is longer than a name", ""))
    assert long != version_of(condition=("another sentence that is longer than a name", ""))
    assert len(long) < 24


def test_transformers_and_torchvision_cut_odd_margins_differently() -> None:
    frames = torch.arange(7.0).expand(1, 3, 4, 7)
    assert fit_square(frames, 4, "crop")[0, 0, 0].tolist() == [2, 3, 4, 5]
    assert fit_square(frames, 4, "processor_crop")[0, 0, 0].tolist() == [1, 2, 3, 4]
