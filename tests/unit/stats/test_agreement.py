import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_video.errors import DataError
from rlhf_video.stats import (
    TieCurve,
    agreement_counts,
    correct_at,
    credit_without_ties,
    cross_fit_threshold,
)

DISCRETE = st.integers(-3, 3).map(float)
CONTINUOUS = st.floats(-2, 2, allow_nan=False, width=32)


def comparisons(margins: st.SearchStrategy[float]) -> st.SearchStrategy[list[tuple[int, float]]]:
    return st.lists(st.tuples(st.sampled_from((-1, 0, 1)), margins), min_size=1, max_size=25)


def _predict(margin: float, threshold: float) -> int | None:
    """The rule in words: tie within the threshold, else the sign; an exact 0 outside predicts nothing."""
    if abs(margin) <= threshold:
        return 0
    return None if margin == 0 else int(math.copysign(1, margin))


def _brute_force(pairs: list[tuple[int, float]], threshold: float) -> float:
    return sum(_predict(margin, threshold) == label for label, margin in pairs) / len(pairs)


def _inside_groups(pairs: list[tuple[int, float]]) -> float:
    """Best accuracy when it is read after every single comparison in order of |margin|, as VideoAlign's script does."""
    ordered = sorted(pairs, key=lambda pair: abs(pair[1]))
    best = -math.inf
    for count in range(1, len(ordered) + 1):
        right = sum(label == 0 for label, _ in ordered[:count])
        right += sum(label * margin > 0 for label, margin in ordered[count:])
        best = max(best, right / len(ordered))
    return best


@given(pairs=comparisons(DISCRETE) | comparisons(CONTINUOUS))
def test_best_threshold_is_the_best_of_all_thresholds_there_are(pairs: list[tuple[int, float]]) -> None:
    labels, margins = zip(*pairs, strict=True)
    sizes = sorted({abs(margin) for margin in margins})
    between = [(low + high) / 2 for low, high in itertools.pairwise(sizes)]
    brute = max(_brute_force(pairs, threshold) for threshold in (-1.0, *sizes, *between, math.inf))
    best = TieCurve(labels, margins).best()
    assert best.accuracy == pytest.approx(brute, abs=1e-12)
    assert _brute_force(pairs, best.threshold) == pytest.approx(best.accuracy, abs=1e-12)


@given(pairs=comparisons(DISCRETE))
def test_every_point_of_the_curve_is_what_its_threshold_achieves(pairs: list[tuple[int, float]]) -> None:
    labels, margins = zip(*pairs, strict=True)
    curve = TieCurve(labels, margins)
    assert curve.thresholds[0] == -1.0 and curve.thresholds[-1] == math.inf
    achieved = [correct_at(labels, margins, threshold).mean() for threshold in curve.thresholds]
    np.testing.assert_allclose(curve.accuracies(), achieved, atol=1e-12)


def test_reading_inside_a_group_reports_what_no_threshold_achieves() -> None:
    # Equal |margin|, a tie listed first: inside the group both seem right.
    pairs = [(0, 1.0), (1, 1.0)]
    assert _inside_groups(pairs) == 1.0
    assert max(_brute_force(pairs, threshold) for threshold in (-1.0, 0.0, 1.0, math.inf)) == 0.5
    assert TieCurve(*zip(*pairs, strict=True)).best().accuracy == 0.5


def test_integer_scores_inflate_the_reading_inside_groups_by_nine_points() -> None:
    rng = np.random.default_rng(0)
    labels, margins = rng.integers(-1, 2, 600), rng.integers(-3, 4, 600).astype(float)
    order = np.lexsort((labels != 0, np.abs(margins)))  # ties first inside each group
    pairs = list(zip(labels[order].tolist(), margins[order].tolist(), strict=True))
    ours = TieCurve(labels, margins).best().accuracy
    assert ours == max(_brute_force(pairs, float(threshold)) for threshold in (-1, 0, 1, 2, 3))
    assert _inside_groups(pairs) == pytest.approx(ours + 0.093, abs=0.001)


@given(pairs=comparisons(CONTINUOUS))
def test_swapping_the_clips_changes_nothing(pairs: list[tuple[int, float]]) -> None:
    labels, margins = (np.array(column) for column in zip(*pairs, strict=True))
    np.testing.assert_allclose(TieCurve(labels, margins).accuracies(), TieCurve(-labels, -margins).accuracies())


@given(pairs=comparisons(DISCRETE), seed=st.integers(0, 9))
def test_weights_are_multiplicities(pairs: list[tuple[int, float]], seed: int) -> None:
    labels, margins = (np.array(column) for column in zip(*pairs, strict=True))
    weights = np.random.default_rng(seed).integers(0, 3, len(pairs))
    if weights.sum() == 0:
        weights[0] = 1
    weighted = TieCurve(labels, margins).best(weights.astype(float)).accuracy
    repeated = TieCurve(np.repeat(labels, weights), np.repeat(margins, weights)).best().accuracy
    assert weighted == pytest.approx(repeated, abs=1e-12)


def test_model_that_only_ties_is_best_served_by_the_threshold_inf() -> None:
    best = TieCurve([0, 0, 0, 1], [0.1, -0.2, 0.3, -0.4]).best()
    assert (best.threshold, best.accuracy) == (0.3, 0.75)
    assert TieCurve([0, 0, 0], [0.1, -0.2, 0.3]).best().threshold == math.inf


def test_model_without_human_ties_needs_no_threshold() -> None:
    best = TieCurve([1, -1, 1], [0.1, -0.2, 0.3]).best()
    assert (best.threshold, best.accuracy) == (-1.0, 1.0)


def test_counts_name_every_comparison_once() -> None:
    counts = agreement_counts([1, -1, 0, 1, 0, -1], [2.0, 2.0, 2.0, 0.5, -0.5, 0.0], threshold=1.0)
    assert (counts.concordant, counts.discordant, counts.human_ties) == (1, 1, 1)
    assert (counts.model_ties, counts.both_ties) == (2, 1)


def test_exact_tie_is_wrong_without_ties_and_a_coin_with_half_credit() -> None:
    labels, margins = [1, 1, -1, 0], [0.5, 0.0, 0.5, 3.0]
    assert credit_without_ties(labels, margins).tolist() == [1.0, 0.0, 0.0]
    assert credit_without_ties(labels, margins, tie_credit=0.5).tolist() == [1.0, 0.5, 0.0]
    assert agreement_counts(labels, margins).model_ties == 1


def _simulated(num_prompts: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """People tie where the true difference is below 0.6; the model sees it with noise."""
    rng = np.random.default_rng(seed)
    prompts = np.repeat(np.arange(num_prompts), 5)
    truth = rng.normal(size=prompts.size)
    labels = np.where(np.abs(truth) < 0.6, 0, np.sign(truth)).astype(int)
    return labels, truth + 0.3 * rng.normal(size=prompts.size), prompts


def test_calibrated_accuracy_stays_below_the_fitted_one_and_finds_the_same_threshold() -> None:
    labels, margins, prompts = _simulated(60)
    fitted = TieCurve(labels, margins).best()
    crossed = cross_fit_threshold(labels, margins, prompts)
    assert crossed.thresholds.shape == (50,)
    assert fitted.accuracy - 0.05 < crossed.correct.mean() <= fitted.accuracy
    assert np.median(crossed.thresholds) == pytest.approx(fitted.threshold, abs=0.15)


def test_best_threshold_flatters_noise_and_calibration_does_not() -> None:
    # Random margins: nothing beats the most frequent answer beforehand.
    gaps = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        labels, margins, prompts = rng.integers(-1, 2, 60), rng.normal(size=60), np.repeat(np.arange(20), 3)
        fitted = TieCurve(labels, margins).best().accuracy
        gaps.append(fitted - cross_fit_threshold(labels, margins, prompts, num_repeats=3).correct.mean())
    assert np.mean(gaps) > 0.03


def test_calibration_never_sees_the_prompt_it_is_tested_on() -> None:
    # Two prompts with contrary rules: a threshold of the other prompt is always wrong, one of the same always right.
    labels, margins = np.array([0] * 6 + [1] * 6), np.full(12, 1.0)
    crossed = cross_fit_threshold(labels, margins, ["a"] * 6 + ["b"] * 6, num_repeats=2)
    assert crossed.correct.tolist() == [0.0] * 12
    assert sorted(crossed.thresholds.tolist()) == [-1.0, -1.0, math.inf, math.inf]


def test_same_seed_gives_the_same_calibration() -> None:
    labels, margins, prompts = _simulated(12)
    one, two, other = (cross_fit_threshold(labels, margins, prompts, seed=seed).correct for seed in (1, 1, 2))
    assert one.tolist() == two.tolist() != other.tolist()


@pytest.mark.parametrize(
    ("labels", "margins", "message"),
    [
        ([], [], "no comparison to judge"),
        ([1, 0], [0.1], "must both be"),
        ([1, 2], [0.1, 0.2], r"got \[2.0\]: drop invalid labels first"),
        ([1, math.nan], [0.1, 0.2], r"got \[nan\]"),
        ([1, 0], [0.1, math.nan], "1 of 2 margins are not finite"),
        ([1, 0], [math.inf, 0.0], "1 of 2 margins are not finite"),
    ],
)
def test_input_that_has_no_accuracy_is_refused(labels: list[float], margins: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        agreement_counts(labels, margins)


@pytest.mark.parametrize(
    ("clusters", "folds", "message"),
    [(["a", "a"], 5, "one prompt"), (["a"], 5, "do not fit"), (["a", "b"], 1, "at least 2 folds")],
)
def test_calibration_that_cannot_be_split_is_refused(clusters: list[str], folds: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        cross_fit_threshold([1, 0], [0.1, 0.2], clusters, num_folds=folds)
