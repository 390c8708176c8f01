"""The beta tail equals the binomial sum that it is for whole numbers, and its symmetries hold."""

import math
from fractions import Fraction

import pytest

from rlhf_video.errors import ConfigError
from rlhf_video.stats.beta_tail import beta_above


def _binomial(a: int, b: int) -> float:
    """Return P(p > 1/2) for Beta(a, b) = P(Binomial(a + b - 1, 1/2) <= a - 1)."""
    throws, ways, total = a + b - 1, 1, 0
    for heads in range(a):
        total += ways
        ways = ways * (throws - heads) // (heads + 1)
    return float(Fraction(total, 2**throws))


def test_it_equals_the_binomial_sum_for_whole_numbers() -> None:
    worst = max(abs(beta_above(a, b) - _binomial(a, b)) for a in range(1, 40) for b in range(1, 40))
    assert worst < 1e-12


def test_it_stays_exact_for_thousands_of_votes() -> None:
    assert beta_above(5000, 5100) == pytest.approx(_binomial(5000, 5100), abs=1e-11)


def test_one_vote_after_a_uniform_prior_is_three_quarters() -> None:
    assert beta_above(2.0, 1.0) == pytest.approx(0.75, abs=1e-15)


def test_the_threshold_may_lie_elsewhere() -> None:
    assert beta_above(1.0, 1.0, 0.2) == pytest.approx(0.8, abs=1e-14)  # uniform
    assert beta_above(3.0, 1.0, 0.3) == pytest.approx(1 - 0.3**3, abs=1e-14)


@pytest.mark.parametrize(("a", "b"), [(0.3, 7.25), (12.5, 4.0), (1e-3, 1e-3)])
def test_exchanging_the_shapes_gives_the_other_tail(a: float, b: float) -> None:
    assert beta_above(a, b) + beta_above(b, a) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("arguments", [(0.0, 1.0), (1.0, -1.0), (1.0, 1.0, 1.0), (math.nan, 1.0)])
def test_what_is_no_distribution_is_refused(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError):
        beta_above(*arguments)
