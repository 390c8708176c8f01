"""A careful ensemble: worst case, disagreement, abstention, and the config that builds it."""

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from rewards import registry
from rewards.base import RewardOutput, require_differentiable
from rewards.errors import RewardError
from rewards.testing import BrightnessReward, RewardContract

BRIGHT = {"name": "brightness", "normalisation": {"mean": 0.5, "std": 0.1, "provenance": "made up"}}
SHARP = {"name": "sharpness", "normalisation": {"mean": 0.2, "std": 0.2}}
DULL = {"name": "saturation", "normalisation": {"mean": 0.3, "std": 0.1}}
MEMBERS = [BRIGHT, SHARP, DULL]
PROMPTS = ["a", "b", "c"]


def clips() -> Tensor:
    return torch.rand(3, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def score(**options: object) -> RewardOutput:
    return registry.build("ensemble", members=MEMBERS, **options)(clips(), PROMPTS, fps=8.0)


class TestEnsembleOfMeanMinusDeviation(RewardContract):
    reward = "ensemble"
    options: Mapping[str, object] = {"members": MEMBERS, "num_std": 0.5}
    bf16_tolerance = 0.1


class TestEnsembleOfTheWorst(RewardContract):
    reward = "ensemble"
    options: Mapping[str, object] = {"members": MEMBERS, "aggregate": "min"}
    bf16_tolerance = 0.1


def member_scores(output: RewardOutput) -> Tensor:
    return torch.stack([output.values[key] for key in ("brightness", "sharpness", "saturation")])


def test_members_are_normalised_and_turned_so_that_higher_is_better() -> None:
    output, video = score(), clips()
    raw = registry.build("brightness")(video, PROMPTS, fps=8.0).values["brightness"]
    torch.testing.assert_close(output.values["brightness"], (raw - 0.5) / 0.1)
    saturation = registry.build("saturation")
    raw = saturation(video, PROMPTS, fps=8.0).values["saturation"]
    sign = 1 if saturation.spec.higher_is_better else -1
    torch.testing.assert_close(output.values["saturation"], sign * (raw - 0.3) / 0.1)


def test_aggregates_follow_their_formulas() -> None:
    members = member_scores(score())
    mean, std = members.mean(0), members.std(0, correction=0)
    torch.testing.assert_close(score(aggregate="mean").values["score"], mean)
    torch.testing.assert_close(score(aggregate="min").values["score"], members.amin(0))
    torch.testing.assert_close(score(num_std=2.0).values["score"], mean - 2 * std)


def test_ensemble_abstains_where_members_disagree() -> None:
    spread = member_scores(score()).std(0, correction=0)
    between = float(spread.sort().values[:2].mean())
    output = score(abstain_above=between)
    assert output.valid.tolist() == (spread <= between).tolist()
    assert sum(output.valid.tolist()) == 1
    for valid, reason, value in zip(output.valid.tolist(), output.reasons, output.values["score"], strict=True):
        assert (reason is None) == valid
        assert bool(value.isnan()) != valid
        assert valid or "disagree" in str(reason)


def test_abstention_takes_the_gradient_too() -> None:
    video = clips().requires_grad_()
    output = registry.build("ensemble", members=MEMBERS, abstain_above=1e-6)(video, PROMPTS, fps=8.0)
    assert not output.valid.any()
    (gradient,) = torch.autograd.grad(output.values["score"].nansum(), video)
    assert not gradient.any()


def test_members_that_agree_exactly_have_a_finite_gradient() -> None:
    twins = [BRIGHT, {**BRIGHT, "label": "again"}]
    video = clips().requires_grad_()
    output = registry.build("ensemble", members=twins)(video, PROMPTS, fps=8.0)
    (gradient,) = torch.autograd.grad(output.values["score"].sum(), video)
    torch.testing.assert_close(gradient, torch.full_like(gradient, 10 / (4 * 3 * 8 * 8)))


class Refusing(BrightnessReward):
    """Cannot judge the first clip."""

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        output = super().__call__(video, prompts, fps=fps)
        valid = torch.arange(len(video)) > 0
        return RewardOutput(output.values, valid, ("too dark", *output.reasons[1:]))


def test_member_that_masks_a_clip_masks_the_ensemble_and_says_who() -> None:
    from rewards.composite import Normalisation, RewardTerm
    from rewards.ensemble import Ensemble

    statistics = Normalisation(mean=0.0, std=1.0)
    members = [RewardTerm(key=key, reward=reward, normalisation=statistics)
               for key, reward in (("careful", Refusing()), ("plain", BrightnessReward()))]  # fmt: skip
    output = Ensemble(members)(clips(), PROMPTS, fps=8.0)
    assert output.valid.tolist() == [False, True, True]
    assert output.reasons == ("careful: too dark", None, None)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"members": [BRIGHT]}, "two or more"),
        ({"members": [BRIGHT, BRIGHT]}, "label"),
        ({"members": [BRIGHT, {"name": "sharpness"}]}, "statistics"),
        ({"members": [BRIGHT, {"name": "sharpnes"}]}, "Did you mean"),
        ({"members": [BRIGHT, {**SHARP, "wieght": 1}]}, "wieght"),
        ({"members": [BRIGHT, {**SHARP, "normalisation": {"mean": 0}}]}, "normalisation"),
        ({"members": "brightness"}, "list"),
        ({"members": MEMBERS, "aggregate": "median"}, "median"),
        ({"members": MEMBERS, "num_std": -1.0}, "num_std"),
        ({"members": MEMBERS, "abstain_above": 0.0}, "abstain_above"),
    ],
)
def test_ensemble_that_makes_no_sense_is_refused(options: dict[str, object], named: str) -> None:
    with pytest.raises(RewardError, match=named):
        registry.build("ensemble", **options)


def test_ensemble_trains_on_its_score_and_can_be_a_term_of_a_sum() -> None:
    ensemble = registry.build("ensemble", members=MEMBERS)
    require_differentiable(ensemble, dimension="score")
    total = registry.build(
        "weighted",
        terms=[
            {
                "name": "ensemble",
                "dimension": "score",
                "options": {"members": MEMBERS},
                "normalisation": {"mean": 0.0, "std": 2.0},
            },
            {"name": "frame_difference", "weight": 0.5, "normalisation": {"mean": 0.1, "std": 0.1}},
        ],
    )
    video = clips().requires_grad_()
    output = total(video, PROMPTS, fps=8.0)
    expected = output.values["ensemble"] / 2 + 0.5 * (output.values["frame_difference"] - 0.1) / 0.1
    torch.testing.assert_close(output.values["total"], expected)
