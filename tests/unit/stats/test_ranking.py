"""Fitted strengths are those of closed forms, of independent optimisers, and of the truth that made the votes."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from rlhf_video.errors import ConfigError, DataError
from rlhf_video.stats import (
    Comparisons,
    RankingModel,
    bradley_terry,
    connected_parts,
    davidson,
    elo,
    fit_ranking,
    model_covariance,
    rao_kupper,
)

TIE_MODELS: tuple[RankingModel, ...] = ("davidson", "rao_kupper")
EVERY_MODEL: tuple[RankingModel, ...] = ("bradley_terry", "bradley_terry_without_ties", *TIE_MODELS)


def table(*counts: tuple[str, str, str, int]) -> Comparisons:
    """Build comparisons from (a, b, label, how often)."""
    rows = [(a, b, label) for a, b, label, count in counts for _ in range(count)]
    return Comparisons.from_labels(*(list(column) for column in zip(*rows, strict=True)))


def simulated(
    strengths: np.ndarray, outcomes: Callable[[np.ndarray], tuple[np.ndarray, ...]], *, num: int, seed: int
) -> Comparisons:
    rng = np.random.default_rng(seed)
    first = rng.integers(len(strengths), size=num)
    second = (first + rng.integers(1, len(strengths), size=num)) % len(strengths)
    win, tie, _ = np.exp(outcomes(strengths[first] - strengths[second]))
    draw = rng.random(num)
    outcome = np.where(draw < win, 1, np.where(draw < win + tie, 0, -1)).astype(np.int8)
    names = tuple(f"s{index}" for index in range(len(strengths)))
    return Comparisons(systems=names, first=first, second=second, outcome=outcome, weight=np.ones(num))


def gap(fitted: np.ndarray) -> float:
    return float(fitted[0] - fitted[1])


def test_two_systems_have_the_log_odds_of_their_wins_as_gap() -> None:
    ranking = fit_ranking(table(("a", "b", "A", 7), ("b", "a", "A", 3)))
    assert gap(ranking.strengths) == pytest.approx(math.log(7 / 3), abs=1e-14)
    assert ranking.strengths.sum() == pytest.approx(0.0, abs=1e-15)
    assert ranking.tie_parameter is None and ranking.separation is None


def test_ties_are_half_wins_or_left_out_as_named() -> None:
    votes = table(("a", "b", "A", 7), ("b", "a", "A", 3), ("a", "b", "tie", 10))
    assert gap(fit_ranking(votes).strengths) == pytest.approx(math.log(12 / 8), abs=1e-14)
    without = fit_ranking(votes, model="bradley_terry_without_ties")
    assert gap(without.strengths) == pytest.approx(math.log(7 / 3), abs=1e-14)
    assert len(without.comparisons) == 10


def test_two_systems_with_ties_are_fitted_exactly() -> None:
    votes = table(("a", "b", "A", 7), ("b", "a", "A", 3), ("b", "a", "tie", 10))
    ranking = fit_ranking(votes, model="davidson")
    assert gap(ranking.strengths) == pytest.approx(math.log(7 / 3), abs=1e-12)
    assert ranking.tie_parameter == pytest.approx(10 / math.sqrt(21), abs=1e-12)
    ranking = fit_ranking(votes, model="rao_kupper")
    log_odds_a, log_odds_b = math.log(7 / 13), math.log(3 / 17)
    assert gap(ranking.strengths) == pytest.approx((log_odds_a - log_odds_b) / 2, abs=1e-12)
    assert ranking.tie_parameter == pytest.approx(math.exp(-(log_odds_a + log_odds_b) / 2), abs=1e-12)
    for model in TIE_MODELS:
        logs = fit_ranking(votes, model=model).outcome_log_probabilities("b", "a")
        np.testing.assert_allclose(np.exp(logs), [3 / 20, 10 / 20, 7 / 20], rtol=1e-12)


def test_prior_pulls_a_gap_to_where_its_pull_balances_the_votes() -> None:
    prior_sd = 0.7
    fitted = gap(fit_ranking(table(("a", "b", "A", 9), ("a", "b", "B", 1)), prior_sd=prior_sd).strengths)
    # The derivative by the gap g: wins - votes * s(g) = g / (2 sd^2), as both strengths are g / 2 from 0.
    assert 9 - 10 / (1 + math.exp(-fitted)) == pytest.approx(fitted / (2 * prior_sd**2), abs=1e-12)
    assert 0 < fitted < math.log(9)


def test_bradley_terry_agrees_with_zermelos_iteration() -> None:
    votes = simulated(np.linspace(-1, 1, 5), bradley_terry, num=300, seed=0)
    wins, _ = votes.tally()
    meetings, worth = wins + wins.T, np.ones(5)
    for _ in range(3000):  # Zermelo 1929; Hunter 2004: wins over expected wins, no derivative anywhere
        worth = wins.sum(axis=1) / (meetings / (worth[:, None] + worth[None, :])).sum(axis=1)
        worth /= np.exp(np.log(worth).mean())
    np.testing.assert_allclose(fit_ranking(votes).strengths, np.log(worth), atol=1e-12)


def _torch_log_likelihood(votes: Comparisons, model: str, free: torch.Tensor) -> torch.Tensor:
    """Write the models as their papers do, in worths pi = e^strength: free is (strengths, ln v or ln k)."""
    worth, tie = free[:-1].exp(), free[-1].exp()
    a, b = worth[torch.tensor(votes.first)], worth[torch.tensor(votes.second)]
    if model == "davidson":
        total = a + b + tie * (a * b).sqrt()
        win, loss, tied = a / total, b / total, tie * (a * b).sqrt() / total
    else:
        win, loss = a / (a + tie * b), b / (b + tie * a)
        tied = (tie**2 - 1) * a * b / ((a + tie * b) * (b + tie * a))
    outcome = torch.tensor(votes.outcome)
    chosen = torch.where(outcome == 1, win, torch.where(outcome == -1, loss, tied))
    return (torch.tensor(votes.weight) * chosen.log()).sum()


@pytest.mark.parametrize("model", TIE_MODELS)
def test_tie_models_agree_with_a_general_optimiser(model: RankingModel) -> None:
    votes = simulated(np.linspace(-1, 1, 4), lambda d: davidson(d, 0.9), num=400, seed=1)
    free = torch.tensor([0.0] * 4 + [0.5], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [free], lr=0.5, max_iter=500, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = -_torch_log_likelihood(votes, model, free)
        loss.backward()
        return loss

    optimiser.step(closure)
    expected = free.detach().numpy()
    ranking = fit_ranking(votes, model=model)
    np.testing.assert_allclose(ranking.strengths, expected[:-1] - expected[:-1].mean(), atol=1e-7)
    assert ranking.tie_parameter == pytest.approx(math.exp(expected[-1]), abs=1e-7)


@pytest.mark.parametrize("model", TIE_MODELS)
def test_information_is_the_second_derivative_of_the_papers_formula(model: RankingModel) -> None:
    votes = simulated(np.linspace(-1, 1, 4), lambda d: davidson(d, 0.9), num=200, seed=2)
    ranking = fit_ranking(votes, model=model)
    assert ranking.tie_parameter is not None
    at = torch.tensor([*ranking.strengths, math.log(ranking.tie_parameter)], dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(lambda free: _torch_log_likelihood(votes, model, free), at).numpy()
    np.testing.assert_allclose(np.linalg.pinv(-hessian), model_covariance(ranking).matrix, atol=1e-10)


@pytest.mark.parametrize("model", EVERY_MODEL)
@pytest.mark.parametrize("prior_sd", [None, 0.5])
def test_gradient_vanishes_to_rounding(model: RankingModel, prior_sd: float | None) -> None:
    votes = simulated(np.linspace(-2, 2, 7), lambda d: rao_kupper(d, 2.0), num=2000, seed=3)
    ranking = fit_ranking(votes, model=model, prior_sd=prior_sd)
    weight = ranking.cells.weights(ranking.comparisons.weight)
    assert np.abs(ranking.cells.likelihood.derivatives(ranking.free, weight).gradient).max() < 1e-11


@pytest.mark.parametrize("model", TIE_MODELS)
def test_truth_behind_the_votes_is_recovered(model: RankingModel) -> None:
    truth, parameter = np.linspace(-1, 1, 5), 2.0
    outcomes = davidson if model == "davidson" else rao_kupper
    votes = simulated(truth, lambda d: outcomes(d, parameter), num=20_000, seed=4)
    ranking = fit_ranking(votes, model=model)
    errors = np.sqrt(np.diag(model_covariance(ranking).matrix))
    assert (np.abs(ranking.strengths - truth) < 4 * errors[:5]).all() and errors.max() < 0.05
    assert ranking.tie_parameter is not None
    assert abs(math.log(ranking.tie_parameter / parameter)) < 4 * errors[5]


def test_half_wins_shrink_gaps_and_keep_their_order() -> None:
    truth = np.linspace(-1, 1, 5)
    votes = simulated(truth, lambda d: davidson(d, 2.0), num=20_000, seed=4)
    shrunk = fit_ranking(votes).strengths
    assert (shrunk.argsort() == truth.argsort()).all()
    assert np.ptp(shrunk) < 0.6 * np.ptp(fit_ranking(votes, model="davidson").strengths)


def test_without_ties_every_model_is_bradley_terry() -> None:
    votes = simulated(np.linspace(-1, 1, 4), bradley_terry, num=200, seed=5)
    plain, *others = (fit_ranking(votes, model=model) for model in EVERY_MODEL)
    for other in others:
        np.testing.assert_array_equal(other.strengths, plain.strengths)
    assert [other.tie_parameter for other in others] == [None, 0.0, 1.0]
    for model in TIE_MODELS:
        logs = fit_ranking(votes, model=model).outcome_log_probabilities("s0", "s1")
        np.testing.assert_allclose(logs, plain.outcome_log_probabilities("s0", "s1"), rtol=1e-12)


def test_weights_count_as_votes() -> None:
    many = fit_ranking(table(("a", "b", "A", 6), ("a", "b", "B", 2), ("b", "c", "A", 3), ("b", "c", "B", 2)))
    rows = (["a", "a", "b", "b", "c"], ["b", "b", "c", "c", "a"], ["A", "B", "A", "B", "A"])
    few = fit_ranking(Comparisons.from_labels(*rows, weights=[6, 2, 3, 2, 0]))
    np.testing.assert_allclose(few.strengths, many.strengths, atol=1e-14)
    assert len(few.comparisons) == 4


def test_undefeated_system_is_refused_by_name_and_finite_with_a_prior() -> None:
    votes = table(("top", "mid", "A", 10), ("mid", "low", "A", 2), ("low", "mid", "A", 1))
    with pytest.raises(DataError, match=r"infinite: .*\{top\} > \{low, mid\}.*prior_sd"):
        fit_ranking(votes)
    ranking = fit_ranking(votes, prior_sd=1.0)
    assert np.isfinite(ranking.strengths).all() and ranking.strengths.argmax() == ranking.index("top")
    assert ranking.separation is not None and "{top}" in ranking.separation


def test_group_that_only_beats_the_others_is_refused() -> None:
    votes = table(("a", "b", "A", 2), ("a", "b", "B", 2), ("c", "d", "A", 1), ("d", "c", "A", 1), ("b", "c", "A", 5))
    with pytest.raises(DataError, match=r"\{a, b\} > \{c, d\}"):
        fit_ranking(votes)


@pytest.mark.parametrize("model", TIE_MODELS)
def test_wins_and_ties_without_a_loss_have_no_finite_gap_under_a_tie_model(model: RankingModel) -> None:
    votes = table(("a", "b", "A", 5), ("a", "b", "tie", 5))
    assert gap(fit_ranking(votes).strengths) == pytest.approx(math.log(3))  # half wins: 7.5 to 2.5
    with pytest.raises(DataError, match="more wins than ties"):
        fit_ranking(votes, model=model)
    ranking = fit_ranking(votes, model=model, prior_sd=1.0)
    assert 0 < gap(ranking.strengths) < 5 and ranking.separation is not None
    # One loss closes the cycle of two wins and no tie.
    assert (
        fit_ranking(table(("a", "b", "A", 5), ("a", "b", "tie", 5), ("b", "a", "A", 1)), model=model).separation is None
    )


@pytest.mark.parametrize("prior_sd", [None, 1.0])
def test_systems_that_never_met_are_refused_and_ranked_apart(prior_sd: float | None) -> None:
    left = (("a", "b", "A", 3), ("a", "b", "B", 2))
    right = (("x", "y", "A", 1), ("x", "y", "B", 4))
    with pytest.raises(DataError, match=r"2 parts that never met: \{a, b\} \| \{x, y\}"):
        fit_ranking(table(*left, *right), prior_sd=prior_sd)
    parts = connected_parts(table(*left, *right))
    assert [part.systems for part in parts] == [("a", "b"), ("x", "y")]
    for part, alone in zip(parts, (left, right), strict=True):
        np.testing.assert_array_equal(fit_ranking(part).strengths, fit_ranking(table(*alone)).strengths)


def test_system_that_only_tied_is_unconnected_once_ties_are_dropped() -> None:
    votes = table(("a", "b", "A", 3), ("a", "b", "B", 2), ("b", "c", "tie", 4))
    assert np.isfinite(fit_ranking(votes).strengths).all()
    with pytest.raises(DataError, match=r"\{a, b\} \| \{c\}"):
        fit_ranking(votes, model="bradley_terry_without_ties")


def test_only_ties_make_equal_systems_or_an_error() -> None:
    votes = table(("a", "b", "tie", 3))
    np.testing.assert_array_equal(fit_ranking(votes).strengths, [0.0, 0.0])
    for model in TIE_MODELS:
        with pytest.raises(DataError, match="Every comparison is a tie"):
            fit_ranking(votes, model=model, prior_sd=1.0)
    with pytest.raises(DataError, match="no comparison"):
        fit_ranking(votes, model="bradley_terry_without_ties")


def test_lopsided_votes_still_reach_their_maximum() -> None:
    ranking = fit_ranking(Comparisons.from_labels(["a", "a"], ["b", "b"], ["A", "B"], weights=[1e6, 1e-3]))
    assert gap(ranking.strengths) == pytest.approx(math.log(1e9), rel=1e-12)
    weak = fit_ranking(table(("a", "b", "A", 50)), prior_sd=100.0)
    assert 5 < gap(weak.strengths) < 50


def test_elo_puts_ten_to_one_at_400_points() -> None:
    np.testing.assert_allclose(elo([0.0, math.log(10)]), [1000.0, 1400.0])
    assert float(elo(math.log(10), center=0.0)) == pytest.approx(400.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["A", "both-bad"]}, "both-bad"),
        ({"b": ["b", "a"]}, "against itself"),
        ({"weights": [1.0, -1.0]}, "Weights"),
        ({"weights": [1.0, math.nan]}, "Weights"),
        ({"prompts": ["p"]}, r"must all be \(2,\)"),
        ({"a": ["a", "a", "a"]}, r"must all be \(3,\)"),
        ({"a": [], "b": [], "labels": []}, "two or more"),
    ],
)
def test_broken_tables_are_refused(change: dict, message: str) -> None:
    columns = {"a": ["a", "a"], "b": ["b", "b"], "labels": ["A", "B"]} | change
    with pytest.raises(DataError, match=message):
        Comparisons.from_labels(**columns)


def test_unknown_settings_and_systems_are_refused() -> None:
    votes = table(("a", "b", "A", 3), ("a", "b", "B", 2))
    with pytest.raises(ConfigError, match="model='elo' is not known"):
        fit_ranking(votes, model="elo")
    with pytest.raises(ConfigError, match="prior_sd=0"):
        fit_ranking(votes, prior_sd=0.0)
    with pytest.raises(DataError, match="'c' was not ranked"):
        fit_ranking(votes).index("c")
