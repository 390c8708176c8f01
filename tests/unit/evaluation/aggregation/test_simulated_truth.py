"""Seeded simulations: what is known to be true is covered, and what is equal is not called different."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.aggregation.comparison import compare_systems
from evaluation.aggregation.summary import summarise
from evaluation.vbench_compat.totals import VBENCH_DIMENSIONS, total_formula

NUM_TRIALS = 500
NUM_PROMPTS, SAMPLES = 36, 3
TRUTH = {name: 0.5 + 0.02 * number for number, name in enumerate(VBENCH_DIMENSIONS)}
"""True mean of each dimension; dynamic_degree is the share of clips that move."""


FEW = ("motion_smoothness", "dynamic_degree", "imaging_quality", "color", "scene")
"""Dimensions of the comparisons: a partial total goes the way of a whole one, in a third of the time."""


def _asked() -> dict[str, NDArray[np.bool_]]:
    """Return which clips each dimension asks, as VBench does: each of some prompts, and prompts of several."""
    third = np.repeat(np.arange(NUM_PROMPTS), SAMPLES) % 3
    return {
        name: third == {"quality": number % 3, "semantic": (number + 1) % 3}[facts.group]
        for number, (name, facts) in enumerate(VBENCH_DIMENSIONS.items())
    }


ASKED = _asked()


def _draw(rng: np.random.Generator, prompts: NDArray[np.float64] | None = None) -> dict[str, NDArray[np.float64]]:
    """Return a table around TRUTH; prompts have skewed effects that their clips and dimensions share."""
    effects = _draw_prompts(rng) if prompts is None else prompts
    values = {}
    for number, (name, mean) in enumerate(TRUTH.items()):
        own = effects[:, number, None] + 0.08 * rng.normal(size=(NUM_PROMPTS, SAMPLES))
        clips = mean + own
        if name == "dynamic_degree":
            clips = (rng.random((NUM_PROMPTS, SAMPLES)) < np.clip(mean + effects[:, number, None], 0, 1)).astype(float)
        values[name] = np.where(ASKED[name], clips.ravel(), math.nan)
    return values


def _draw_prompts(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the effect of each prompt on each dimension, mean 0: skewed, half of it shared between dimensions."""
    return 0.07 * (rng.exponential(size=(NUM_PROMPTS, 1)) - 1.0 + rng.exponential(size=(NUM_PROMPTS, 16)) - 1.0)


def _few(values: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    return {name: values[name] for name in FEW}


def test_intervals_of_dimensions_and_totals_cover_the_truth(table: Any) -> None:
    rng = np.random.default_rng(0)
    truth = {**TRUTH, **{name: total_formula(name)(TRUTH) for name in ("quality", "semantic", "total")}}
    hits = dict.fromkeys(truth, 0)
    for trial in range(NUM_TRIALS):
        scores = table(_draw(rng), samples=SAMPLES, family="vbench-port", asked=ASKED)
        summary = summarise(scores, num_resamples=300, seed=trial)
        found = {line.column.name: line.interval for line in summary.dimensions}
        found |= {total.name: total.interval for total in summary.totals}
        for name, interval in found.items():
            hits[name] += interval.low <= truth[name] <= interval.high
    coverage = {name: count / NUM_TRIALS for name, count in hits.items()}
    # Twelve prompts of a skewed distribution each; three standard errors of 500 trials are 3.6 points.
    assert np.mean([coverage[name] for name in TRUTH]) >= 0.92
    assert min(coverage[name] for name in TRUTH) >= 0.92 - 0.036, coverage
    assert coverage["dynamic_degree"] >= 0.92
    assert min(coverage[name] for name in ("quality", "semantic", "total")) >= 0.92, coverage


def test_equal_systems_are_called_different_as_rarely_as_promised(table: Any) -> None:
    rng = np.random.default_rng(1)
    rejected, any_rejected, total_rejected, p_values = 0, 0, 0, 0
    covered = 0
    for trial in range(NUM_TRIALS):
        prompts = _draw_prompts(rng)  # both systems meet the same prompts
        base, mine = (
            table(_few(_draw(rng, prompts)), system=name, samples=SAMPLES, family="vbench-port", asked=ASKED)
            for name in ("base", "mine")
        )
        result = compare_systems(base, mine, partial=True, num_resamples=200, num_permutations=199, seed=trial)
        rejected += sum(change.p_value < 0.05 for change in result.changes)
        p_values += len(result.changes)
        any_rejected += any(change.is_significant for change in result.changes)
        total = result.totals[-1]
        total_rejected += total.p_value < 0.05
        assert total.difference is not None
        covered += total.difference.low <= 0.0 <= total.difference.high
    allowed = 0.05 + 3 * math.sqrt(0.05 * 0.95 / NUM_TRIALS)
    assert rejected / p_values <= allowed
    assert total_rejected / NUM_TRIALS <= allowed
    assert any_rejected / NUM_TRIALS <= allowed  # family-wise, after Holm's correction
    assert covered / NUM_TRIALS >= 0.92
    # The test is no mute one: uncorrected it errs about as often as it may.
    assert rejected / p_values > 0.03


@pytest.mark.parametrize("same_files", [True, False])
def test_two_identical_models_are_never_called_different(table: Any, same_files: bool) -> None:
    rng = np.random.default_rng(2)
    for trial in range(10):
        values = _draw(rng)
        base, mine = (
            table(values, system=name, samples=SAMPLES, family="vbench-port", asked=ASKED, same_files=same_files)
            for name in ("base", "mine")
        )
        result = compare_systems(base, mine, num_resamples=200, num_permutations=200, seed=trial)
        assert not any(change.is_significant for change in result.changes)
        assert {change.p_value for change in result.changes} == {1.0}
        assert all(change.difference.low <= 0.0 <= change.difference.high for change in result.changes)
        assert [total.p_value for total in result.totals] == [1.0, 1.0, 1.0]
