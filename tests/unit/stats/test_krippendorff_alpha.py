"""Alpha reproduces the printed values of Krippendorff's own examples, and means what it says."""

import numpy as np
import pytest

from rlhf_video.errors import ConfigError, DataError
from rlhf_video.stats import krippendorff_alpha, percent_agreement

Long = tuple[list[int], list[int], list[str]]

# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", sections A to D; a dot is a missing answer.
BINARY = ["0100000010", "1110010000"]
TWO_OBSERVERS = ["aabbdcccedda", "babbbccceddd"]
FOUR_OBSERVERS = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]


def long_form(observers: list[str]) -> Long:
    """Return items, raters and answers of one string per observer."""
    cells = [
        (item, rater, answer) for rater, row in enumerate(observers) for item, answer in enumerate(row) if answer != "."
    ]
    items, raters, answers = zip(*cells, strict=True)
    return list(items), list(raters), list(answers)


@pytest.mark.parametrize(
    ("observers", "metric", "printed"),
    [
        (BINARY, "nominal", 0.095),
        (TWO_OBSERVERS, "nominal", 0.692),
        (FOUR_OBSERVERS, "nominal", 0.743),
        (FOUR_OBSERVERS, "ordinal", 0.815),
    ],
)
def test_published_examples_are_reproduced(observers: list[str], metric: str, printed: float) -> None:
    interval = krippendorff_alpha(*long_form(observers), metric=metric, num_resamples=200)
    assert round(interval.mean, 3) == printed
    assert interval.low < interval.mean < interval.high <= 1.0


def test_exact_fractions_of_the_two_observer_examples() -> None:
    assert krippendorff_alpha(*long_form(BINARY), num_resamples=10).mean == pytest.approx(2 / 21, abs=1e-12)
    assert krippendorff_alpha(*long_form(TWO_OBSERVERS), num_resamples=10).mean == pytest.approx(155 / 224, abs=1e-12)


def test_percent_agreement_of_two_raters_is_the_share_of_items_they_agree_on() -> None:
    assert percent_agreement(*long_form(BINARY)) == pytest.approx(6 / 10)
    assert percent_agreement(*long_form(TWO_OBSERVERS)) == pytest.approx(9 / 12)


def test_items_with_one_answer_change_nothing() -> None:
    items, raters, answers = long_form(FOUR_OBSERVERS)
    lone = krippendorff_alpha([*items, 99], [*raters, 0], [*answers, "7"], num_resamples=10)
    assert lone.mean == krippendorff_alpha(items, raters, answers, num_resamples=10).mean
    assert lone.num_items == 11  # of twelve, as one has a single answer already in the publication


def votes_of(rng: np.random.Generator, *, num_items: int, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth = rng.integers(-1, 2, size=num_items)
    answers = np.where(rng.random((3, num_items)) < noise, rng.integers(-1, 2, size=(3, num_items)), truth)
    return np.tile(np.arange(num_items), 3), np.repeat(np.arange(3), num_items), answers.ravel()


def test_raters_who_guess_have_an_alpha_around_zero() -> None:
    interval = krippendorff_alpha(*votes_of(np.random.default_rng(0), num_items=400, noise=1.0), num_resamples=500)
    assert interval.low < 0 < interval.high and interval.high - interval.low < 0.15


def test_interval_covers_the_alpha_of_all_items() -> None:
    # A rater is right with chance 1 - noise, else answers at random: alpha is the chance that both are right.
    rng, held = np.random.default_rng(1), 0
    for _ in range(100):
        interval = krippendorff_alpha(*votes_of(rng, num_items=60, noise=0.4), num_resamples=100)
        held += interval.low <= 0.36 <= interval.high
    assert held >= 88


def test_ordinal_alpha_forgives_ties_more_than_reversals() -> None:
    items, raters = [0, 0, 1, 1, 2, 2, 3, 3], [0, 1] * 4
    near, far = [1, 0, -1, -1, 1, 1, 0, 0], [1, -1, -1, -1, 1, 1, 0, 0]
    by_metric = {
        metric: [
            krippendorff_alpha(items, raters, votes, metric=metric, num_resamples=10).mean for votes in (near, far)
        ]
        for metric in ("nominal", "ordinal")
    }
    assert by_metric["ordinal"][0] - by_metric["ordinal"][1] > 0.3
    assert abs(by_metric["nominal"][0] - by_metric["nominal"][1]) < 0.05


def test_answers_that_measure_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="same"):
        krippendorff_alpha([0, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 1])
    assert percent_agreement([0, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 1]) == 1.0
    with pytest.raises(DataError, match="item twice"):
        krippendorff_alpha([0, 0], [0, 0], [1, -1])
    with pytest.raises(DataError, match="two raters"):
        krippendorff_alpha([0, 1], [0, 1], [1, -1])
    with pytest.raises(DataError, match="must all be"):
        percent_agreement([0, 1], [0, 1], [1])
    with pytest.raises(ConfigError, match="interval"):
        krippendorff_alpha([0, 0], [0, 1], [1, -1], metric="interval")
