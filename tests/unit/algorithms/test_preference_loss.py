"""Labels change the loss as the formulas say: ties, soft labels, masks, smoothing, temperature, uncertainty."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlhf_video.algorithms.preference_loss import PreferenceLossConfig, label_targets, preference_loss
from rlhf_video.errors import ConfigError
from rlhf_video.preferences import ClipRecord, PreferencePair

BT = PreferenceLossConfig()
RK = PreferenceLossConfig(model="rao_kupper")
A, B = ClipRecord(path="a.mkv", sha256="a" * 64), ClipRecord(path="b.mkv", sha256="b" * 64)


def pair(**facts: object) -> PreferencePair:
    return PreferencePair(prompt="x", a=A, b=B, **facts)  # type: ignore[arg-type]


def loss(difference: float, label: str, config: PreferenceLossConfig, **extra: Tensor) -> float:
    targets = label_targets([pair(labels={"overall": label})], ("overall",), config)
    return float(preference_loss(torch.tensor([[difference]], dtype=torch.float64), targets, config, **extra))


def sigma(x: float) -> float:
    return float(logsigmoid(torch.tensor(x, dtype=torch.float64)))


def test_bradley_terry_is_minus_log_sigmoid_and_a_tie_is_half_a_win_each() -> None:
    assert loss(1.5, "A", BT) == pytest.approx(-sigma(1.5))
    assert loss(1.5, "B", BT) == pytest.approx(-sigma(-1.5))
    assert loss(1.5, "tie", BT) == pytest.approx(-(sigma(1.5) + sigma(-1.5)) / 2)
    assert loss(0.0, "A", BT) == pytest.approx(math.log(2))


def test_rao_kupper_is_video_aligns_loss() -> None:
    threshold = math.log(5)
    assert loss(1.5, "A", RK) == pytest.approx(-sigma(1.5 - threshold))
    assert loss(1.5, "tie", RK) == pytest.approx(-sigma(1.5 - threshold) - sigma(-1.5 - threshold) - math.log(24))
    assert loss(0.0, "tie", RK) == pytest.approx(-math.log(2 / 3))


def test_davidson_gives_a_tie_its_share() -> None:
    config = PreferenceLossConfig(model="davidson", tie_parameter=0.8)
    assert loss(0.0, "tie", config) == pytest.approx(-math.log(0.8 / 2.8))


def test_a_question_without_an_answer_costs_nothing_and_both_bad_is_a_choice() -> None:
    pairs = [pair(labels={"overall": "A"}), pair(labels={"overall": "both-bad"}), pair(soft={"motion": 0.7})]
    targets = label_targets(pairs, ("overall", "motion"), RK)
    assert targets.sum(-1).tolist() == [[1, 0], [0, 0], [0, 1]]
    losses = preference_loss(torch.ones(3, 2), targets, RK)
    assert (losses == 0).tolist() == [[False, True], [True, True], [True, False]]
    ties = label_targets(pairs, ("overall", "motion"), replace(RK, both_bad="tie"))
    assert ties[1, 0].tolist() == [0, 1, 0]


def test_a_soft_label_is_the_mean_of_both_losses_and_counts_before_the_label() -> None:
    soft = pair(labels={"overall": "B"}, soft={"overall": 0.75})
    targets = label_targets([soft], ("overall",), BT)
    expected = 0.75 * loss(0.4, "A", BT) + 0.25 * loss(0.4, "B", BT)
    assert float(preference_loss(torch.tensor([[0.4]]), targets, BT)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("config", [BT, RK], ids=["bradley_terry", "rao_kupper"])
def test_label_smoothing_mixes_in_every_outcome_that_the_model_knows(config: PreferenceLossConfig) -> None:
    outcomes = ("A", "B") if config.model == "bradley_terry" else ("A", "tie", "B")
    even = sum(loss(2.0, outcome, config) for outcome in outcomes) / len(outcomes)
    smoothed = loss(2.0, "A", replace(config, label_smoothing=0.2))
    assert smoothed == pytest.approx(0.8 * loss(2.0, "A", config) + 0.2 * even, rel=1e-6)
    masked = torch.zeros(1, 1, 3)
    assert float(preference_loss(torch.ones(1, 1), masked, replace(config, label_smoothing=0.2))) == 0


def test_the_temperature_divides_the_difference() -> None:
    assert loss(6.0, "A", replace(BT, temperature=4.0)) == pytest.approx(loss(1.5, "A", BT))


def test_the_closed_form_is_close_to_the_average_over_the_gaussian() -> None:
    deviation = torch.tensor([[1.3]], dtype=torch.float64)
    draws = 0.8 + 1.3 * torch.randn(400_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    threshold = math.log(5)
    for config, shift in ((BT, 0.0), (RK, threshold)):
        closed = math.exp(-loss(0.8, "A", replace(config, uncertainty="closed_form"), deviation=deviation))
        assert closed == pytest.approx(float(torch.sigmoid(draws - shift).mean()), abs=0.01)
    config = replace(RK, uncertainty="closed_form")
    total = sum(math.exp(-loss(0.8, outcome, config, deviation=deviation)) for outcome in ("A", "tie", "B"))
    assert total == pytest.approx(1)


def test_the_sampled_form_is_hpsv3s() -> None:
    config = replace(BT, uncertainty="sampled", num_draws=50_000)
    targets = label_targets([pair(labels={"overall": "A"})], ("overall",), config)
    difference, deviation = (torch.tensor([[number]], dtype=torch.float64) for number in (0.8, 1.3))
    noise, fresh = (
        torch.randn(count, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        for seed, count in ((0, config.num_draws), (1, 400_000))
    )
    sampled = float(preference_loss(difference, targets, config, deviation=deviation, noise=noise))
    assert sampled == pytest.approx(float(-logsigmoid(0.8 + 1.3 * fresh).mean()), abs=0.01)


def test_without_spread_uncertainty_changes_nothing() -> None:
    none = torch.zeros(1, 1, dtype=torch.float64)
    for kind in ("closed_form", "sampled"):
        config = replace(RK, uncertainty=kind, num_draws=3)
        extra = {"deviation": none, "noise": torch.randn(3, 1, 1, generator=torch.Generator().manual_seed(0))}
        assert loss(0.7, "A", config, **extra) == pytest.approx(loss(0.7, "A", RK))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "rao_kupper", "tie_parameter": 1.0}, "above 1"),
        ({"temperature": 0.0}, "above 0"),
        ({"label_smoothing": 1.0}, "below 1"),
        ({"learn_tie_parameter": True}, "nothing to learn"),
        ({"model": "davidson", "uncertainty": "closed_form"}, "no formula for davidson"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PreferenceLossConfig(**values)  # type: ignore[arg-type]
