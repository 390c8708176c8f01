import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_video.errors import DataError
from rlhf_video.stats import AreaUnderCurve, KendallTauB, SpearmanRho
from rlhf_video.stats.ranks import midranks, signed_ranks

SMALL = st.integers(-3, 3).map(float)


@st.composite
def two_variables(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    pairs = draw(st.lists(st.tuples(SMALL, SMALL), min_size=1, max_size=14))
    return [first for first, _ in pairs], [second for _, second in pairs]


def _naive_tau_b(first: list[float], second: list[float]) -> float:
    """Every pair of observations looked at."""
    concordant = discordant = tied_first = tied_second = 0
    pairs = list(itertools.combinations(zip(first, second, strict=True), 2))
    for (a, b), (c, d) in pairs:
        product = (a - c) * (b - d)
        concordant += product > 0
        discordant += product < 0
        tied_first += a == c
        tied_second += b == d
    scale = math.sqrt((len(pairs) - tied_first) * (len(pairs) - tied_second))
    return (concordant - discordant) / scale if scale else math.nan


def _naive_area(is_positive: list[bool], values: list[float]) -> float:
    positives = [value for value, kind in zip(values, is_positive, strict=True) if kind]
    negatives = [value for value, kind in zip(values, is_positive, strict=True) if not kind]
    wins = [(p > n) + (p == n) / 2 for p in positives for n in negatives]
    return sum(wins) / len(wins) if wins else math.nan


@given(variables=two_variables())
def test_tau_b_equals_looking_at_every_pair(variables: tuple[list[float], list[float]]) -> None:
    first, second = variables
    tau = KendallTauB(first, second)(np.ones(len(first)))
    assert tau == pytest.approx(_naive_tau_b(first, second), abs=1e-12, nan_ok=True)


@given(variables=two_variables())
def test_symmetric_tau_b_sees_both_sides_and_forgets_which_clip_is_a(
    variables: tuple[list[float], list[float]],
) -> None:
    first, second = variables
    tau = KendallTauB(first, second, symmetric=True)(np.ones(len(first)))
    both = _naive_tau_b([*first, *(-x for x in first)], [*second, *(-y for y in second)])
    assert tau == pytest.approx(both, abs=1e-12, nan_ok=True)
    swapped = KendallTauB([-first[0], *first[1:]], [-second[0], *second[1:]], symmetric=True)(np.ones(len(first)))
    assert tau == pytest.approx(swapped, abs=1e-12, nan_ok=True)


@given(variables=two_variables())
def test_area_equals_counting_pairs(variables: tuple[list[float], list[float]]) -> None:
    kind, values = [value > 0 for value in variables[0]], variables[1]
    area = AreaUnderCurve(kind, values)(np.ones(len(kind)))
    assert area == pytest.approx(_naive_area(kind, values), abs=1e-12, nan_ok=True)


@given(variables=two_variables(), seed=st.integers(0, 9))
def test_weights_are_multiplicities(variables: tuple[list[float], list[float]], seed: int) -> None:
    first, second = variables
    weights = np.random.default_rng(seed).integers(1, 4, len(first))
    repeated = np.repeat(first, weights), np.repeat(second, weights)
    ones = np.ones(int(weights.sum()))
    for symmetric in (False, True):
        weighted = KendallTauB(first, second, symmetric=symmetric)(weights.astype(float))
        plain = KendallTauB(*repeated, symmetric=symmetric)(ones)
        assert weighted == pytest.approx(plain, abs=1e-12, nan_ok=True)
    kinds = np.array(first) > 0, repeated[0] > 0
    area = AreaUnderCurve(kinds[0], second)(weights.astype(float))
    assert area == pytest.approx(AreaUnderCurve(kinds[1], repeated[1])(ones), abs=1e-12, nan_ok=True)


def test_correlation_is_pearson_on_ranks() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=40)
    second = first + rng.normal(size=40)
    rho = SpearmanRho(first, np.exp(second))(np.ones(40))
    ranks = [np.argsort(np.argsort(column)) for column in (first, second)]
    assert rho == pytest.approx(np.corrcoef(ranks)[0, 1])


def test_symmetric_correlation_is_pearson_on_ranks_of_both_sides() -> None:
    rng = np.random.default_rng(1)
    first = rng.normal(size=30)
    second = first + rng.normal(size=30)
    both = [midranks(np.concatenate((column, -column))) for column in (first, second)]
    rho = SpearmanRho(first, second, symmetric=True)(np.ones(30))
    assert rho == pytest.approx(np.corrcoef(both)[0, 1])
    first[3], second[3] = -first[3], -second[3]
    assert SpearmanRho(first, second, symmetric=True)(np.ones(30)) == pytest.approx(rho)


def test_equal_values_share_their_mean_rank() -> None:
    assert midranks([3.0, 1.0, 3.0, 2.0]).tolist() == [3.5, 1.0, 3.5, 2.0]
    assert signed_ranks([0.0, 2.0, -2.0, 1.0]).tolist() == [0.0, 3.0, -3.0, 1.5]


@pytest.mark.parametrize(
    "value",
    [
        KendallTauB([1, 1, 1], [1, 2, 3])(np.ones(3)),
        KendallTauB([1, 2, 3], [1, 1, 1])(np.ones(3)),
        KendallTauB([0, 0], [1, 2], symmetric=True)(np.ones(2)),
        AreaUnderCurve([True, True], [1, 2])(np.ones(2)),
        SpearmanRho([1, 1, 1], [1, 2, 3])(np.ones(3)),
        SpearmanRho([0, 0], [1, 2], symmetric=True)(np.ones(2)),
    ],
)
def test_constant_variable_has_no_correlation(value: float) -> None:
    assert math.isnan(value)


@pytest.mark.parametrize("statistic", [KendallTauB, AreaUnderCurve, SpearmanRho])
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [([], [], "n >= 1"), ([1.0], [1.0, 2.0], "one shape"), ([1.0, 0.0], [1.0, math.nan], "finite numbers")],
)
def test_input_that_has_no_ranks_is_refused(
    statistic: type, first: list[float], second: list[float], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        statistic(first, second)
