import numpy as np
import pytest

from rlhf_video.errors import DataError
from rlhf_video.stats import brier_score, calibration_error, davidson, fit_slope, rao_kupper, win_probability


def test_equal_clips_tie_two_times_of_three_at_video_aligns_k() -> None:
    logs = rao_kupper(0.0, 5.0)
    assert [float(np.exp(log)) for log in logs] == pytest.approx([1 / 6, 2 / 3, 1 / 6])
    assert float(np.exp(davidson(0.0, 2.0)[1])) == pytest.approx(0.5)


@pytest.mark.parametrize(("model", "bad"), [(rao_kupper, 0.9), (rao_kupper, float("nan")), (davidson, -0.1)])
def test_an_impossible_tie_parameter_is_refused(model: object, bad: float) -> None:
    with pytest.raises(DataError, match="nobody"):
        model(0.0, bad)  # type: ignore[operator]


@pytest.mark.parametrize("slope", [0.2, 1.0, 7.0])
def test_the_slope_that_made_the_votes_is_found(slope: float) -> None:
    rng = np.random.default_rng(0)
    gaps = rng.normal(size=20_000) * 3
    won = rng.random(20_000) < win_probability(gaps, slope)
    assert fit_slope(gaps, won) == pytest.approx(slope, rel=0.08)


def test_calibrating_brings_the_error_down_and_leaves_the_order() -> None:
    rng = np.random.default_rng(1)
    gaps = rng.normal(size=4000) * 20
    won = rng.random(4000) < win_probability(gaps, 0.1)
    raw, fitted = win_probability(gaps), win_probability(gaps, fit_slope(gaps[:2000], won[:2000]))
    assert calibration_error(fitted[2000:], won[2000:]) < 0.05 < 0.1 < calibration_error(raw[2000:], won[2000:])
    assert brier_score(fitted, won) < brier_score(raw, won)
    assert ((fitted > 0.5) == (raw > 0.5)).all()


def test_a_perfect_scorer_gets_a_finite_slope_and_a_useless_one_none() -> None:
    assert 0 < fit_slope([1.0, 2.0, -3.0], [1, 1, 0]) < 100
    with pytest.raises(DataError, match="No slope fits"):
        fit_slope([0.0, 0.0], [1, 0])


def test_calibration_error_does_not_care_which_clip_is_called_a() -> None:
    rng = np.random.default_rng(2)
    p, won = rng.random(500), rng.random(500) < 0.5
    assert calibration_error(p, won) == pytest.approx(calibration_error(1 - p, ~won))
    assert calibration_error([0.5, 0.5], [1, 1]) == 0
    assert brier_score([0.5, 0.5], [1, 0]) == 0.25
