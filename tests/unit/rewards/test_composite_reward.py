"""A sum of rewards normalises, masks, refuses and shares out gradients as it says."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rewards import registry
from rewards.base import RewardOutput, masked_output, require_differentiable
from rewards.composite import Normalisation, RewardTerm, WeightedReward
from rewards.errors import RewardError
from rewards.frame_difference import FrameDifference
from rewards.saturation import Saturation
from rewards.testing import BrightnessReward, RewardContract

PROMPTS = ["a", "b", "c"]


def clips(seed: int = 0) -> Tensor:
    return torch.rand(3, 4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def weighted() -> WeightedReward:
    return WeightedReward(
        [
            RewardTerm(
                key="light", reward=BrightnessReward(), weight=2.0, normalisation=Normalisation(mean=0.5, std=0.1)
            ),
            RewardTerm(key="dull", reward=Saturation(), weight=-1.0, normalisation=Normalisation(mean=0.4, std=0.2)),
        ]
    )


class TestWeighted(RewardContract):
    reward = "unused"
    bf16_tolerance = 0.1

    @pytest.fixture(autouse=True)
    def _register(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(registry, "build", lambda name, **options: weighted())


class ColourJudge(BrightnessReward):
    """Scores without gradient, and cannot judge a dark clip."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = replace(self.spec, name="judge", is_differentiable=False)

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        score = video.detach().mean(dim=(1, 2, 3, 4))
        valid = score > 0.1
        reasons = tuple(None if ok else "too dark" for ok in valid.tolist())
        return masked_output({"brightness": score}, valid, reasons)


def test_total_is_the_weighted_sum_of_normalised_scores() -> None:
    video = clips()
    output = weighted()(video, PROMPTS, fps=8)
    light = video.mean(dim=(1, 2, 3, 4))
    dull = (video.amax(dim=2) - video.amin(dim=2)).mean(dim=(1, 2, 3))
    torch.testing.assert_close(output.values["light"], light)
    torch.testing.assert_close(output.values["dull"], dull)
    torch.testing.assert_close(output.values["total"], 2 * (light - 0.5) / 0.1 - (dull - 0.4) / 0.2)


def test_measured_statistics_give_base_clips_mean_zero_and_deviation_one() -> None:
    reward = WeightedReward([RewardTerm(key="light", reward=BrightnessReward())])
    with pytest.raises(RewardError, match="'light' has no base-model statistics"):
        reward(clips(), PROMPTS, fps=8)
    raw = BrightnessReward()(clips(), PROMPTS, fps=8).values["brightness"]
    measured = reward.with_normalisation({"light": Normalisation.from_scores(raw, provenance="3 clips")})
    total = measured(clips(), PROMPTS, fps=8).values["total"]
    torch.testing.assert_close(total.mean(), torch.tensor(0.0), rtol=0, atol=1e-4)
    torch.testing.assert_close(total.std(), torch.tensor(1.0), rtol=1e-4, atol=0)


def test_statistics_skip_masked_scores_and_refuse_too_few_or_equal_ones() -> None:
    scores = torch.tensor([1.0, math.nan, 3.0])
    assert Normalisation.from_scores(scores) == Normalisation(mean=2.0, std=math.sqrt(2.0))
    with pytest.raises(RewardError, match="at least 2 valid"):
        Normalisation.from_scores(torch.tensor([1.0, math.nan]))
    with pytest.raises(RewardError, match="cannot tell them apart"):
        Normalisation.from_scores(torch.ones(5))
    with pytest.raises(RewardError, match="std > 0"):
        Normalisation(mean=0.0, std=0.0)


def test_pixel_gradient_equals_autograd_of_the_total() -> None:
    reward, video = weighted(), clips()
    result = reward.pixel_gradient(video, PROMPTS, fps=8)
    leaf = video.clone().requires_grad_()
    output = reward(leaf, PROMPTS, fps=8)
    (expected,) = torch.autograd.grad(output.values["total"].sum(), leaf)
    torch.testing.assert_close(result.gradient, expected)
    torch.testing.assert_close(result.output.values, output.detach().values)
    assert not result.output.values["total"].requires_grad
    assert not result.gradient.requires_grad


def test_pixel_gradient_works_under_no_grad_and_keeps_the_clips_dtype() -> None:
    with torch.no_grad():
        result = weighted().pixel_gradient(clips().bfloat16(), PROMPTS, fps=8)
    assert result.gradient.dtype == torch.bfloat16
    assert result.gradient.any()


def test_shares_follow_weight_over_deviation() -> None:
    def term(key: str, std: float) -> RewardTerm:
        return RewardTerm(key=key, reward=BrightnessReward(), normalisation=Normalisation(mean=0, std=std))

    reward = WeightedReward([term("wide", 0.3), term("narrow", 0.1)])
    assert reward.pixel_gradient(clips(), PROMPTS, fps=8).shares == pytest.approx({"wide": 0.25, "narrow": 0.75})


def test_shares_of_a_flat_reward_are_zero_and_not_nan() -> None:
    still = torch.full((1, 3, 3, 4, 4), 0.5)
    term = RewardTerm(key="motion", reward=FrameDifference(), normalisation=Normalisation(mean=0, std=1))
    assert WeightedReward([term]).pixel_gradient(still, ["a"], fps=8).shares == {"motion": 0.0}


def test_clip_that_one_term_masks_is_masked_for_all_and_gets_no_gradient() -> None:
    class MaskingReward(BrightnessReward):
        def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
            valid = torch.tensor([True, False, True])
            return masked_output({"brightness": video.mean(dim=(1, 2, 3, 4))}, valid, (None, "too dark", None))

    unit = Normalisation(mean=0, std=1)
    reward = WeightedReward(
        [
            RewardTerm(key="light", reward=BrightnessReward(), normalisation=unit),
            RewardTerm(key="masking", reward=MaskingReward(), normalisation=unit),
        ]
    )
    result = reward.pixel_gradient(clips(), PROMPTS, fps=8)
    assert result.output.valid.tolist() == [True, False, True]
    assert result.output.reasons == (None, "masking: too dark", None)
    assert all(value[1].isnan() for value in result.output.values.values())
    assert not result.gradient[1].any()
    assert result.gradient[0].any()
    assert result.norms["light"] == pytest.approx(result.norms["masking"])


def test_reward_that_is_not_differentiable_cannot_train_but_can_score() -> None:
    unit = Normalisation(mean=0, std=1)
    reward = WeightedReward([RewardTerm(key="judge", reward=ColourJudge(), normalisation=unit)])
    assert not reward.spec.is_differentiable
    assert reward(clips(), PROMPTS, fps=8).valid.all()
    with pytest.raises(RewardError, match="'judge' is not differentiable, so it cannot train"):
        reward.pixel_gradient(clips(), PROMPTS, fps=8)
    with pytest.raises(RewardError, match="held-out"):
        require_differentiable(ColourJudge())
    require_differentiable(BrightnessReward())


def test_verdict_of_a_differentiable_reward_cannot_train() -> None:
    class TwoHeaded(BrightnessReward):
        def __init__(self) -> None:
            super().__init__()
            self.spec = replace(self.spec, dimensions=("brightness", "is_bright"), without_gradient=("is_bright",))

        def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
            output = super().__call__(video, prompts, fps=fps)
            score = output.values["brightness"]
            return masked_output(output.values | {"is_bright": (score > 0.5).float()}, output.valid, output.reasons)

    unit = Normalisation(mean=0, std=1)
    smooth, verdict = (
        WeightedReward([RewardTerm(key="light", reward=TwoHeaded(), dimension=name, normalisation=unit)])
        for name in ("brightness", "is_bright")
    )
    assert smooth.spec.is_differentiable
    assert smooth.pixel_gradient(clips(), PROMPTS, fps=8).gradient.any()
    assert not verdict.spec.is_differentiable
    with pytest.raises(RewardError, match="'is_bright' is a verdict without gradient"):
        verdict.pixel_gradient(clips(), PROMPTS, fps=8)
    with pytest.raises(RewardError, match=r"no dimensions \['is_dark'\]"):
        replace(TwoHeaded().spec, without_gradient=("is_dark",))


def test_reward_that_lies_about_its_gradient_is_named() -> None:
    class Liar(BrightnessReward):
        def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
            return super().__call__(video, prompts, fps=fps).detach()

    term = RewardTerm(key="liar", reward=Liar(), normalisation=Normalisation(mean=0, std=1))
    with pytest.raises(RewardError, match="'liar' declares a gradient"):
        WeightedReward([term]).pixel_gradient(clips(), PROMPTS, fps=8)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight": 0.0}, "leave it out"),
        ({"weight": math.nan}, "leave it out"),
        ({"weight": -1.0}, "higher is better, so its weight must be positive"),
        ({"key": "total"}, "other than 'total'"),
        ({"dimension": "colour"}, "no dimension 'colour'. Known: brightness"),
    ],
)
def test_wrong_term_is_refused(values: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"key": "light", "reward": BrightnessReward(), **values}
    with pytest.raises(RewardError, match=message):
        RewardTerm(**arguments)  # type: ignore[arg-type]


def test_lower_is_better_needs_a_negative_weight() -> None:
    with pytest.raises(RewardError, match="lower is better, so its weight must be negative"):
        RewardTerm(key="dull", reward=Saturation())


def test_one_dimension_of_several_must_be_chosen() -> None:
    class Two(BrightnessReward):
        def __init__(self) -> None:
            super().__init__()
            self.spec = replace(self.spec, dimensions=("brightness", "darkness"))

    with pytest.raises(RewardError, match="choose one: brightness, darkness"):
        RewardTerm(key="two", reward=Two())
    assert RewardTerm(key="two", reward=Two(), dimension="brightness").dimension == "brightness"


def test_empty_and_repeated_sums_and_unknown_statistics_are_refused() -> None:
    term = RewardTerm(key="light", reward=BrightnessReward())
    for terms in ([], [term, term]):
        with pytest.raises(RewardError, match="distinct names"):
            WeightedReward(terms)
    with pytest.raises(RewardError, match="unknown rewards \\['dark'\\]"):
        WeightedReward([term]).with_normalisation({"dark": Normalisation(mean=0, std=1)})
