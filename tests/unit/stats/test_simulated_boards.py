"""Davidson boards of simulated votes with ties, prompts and raters of their own taste: truth recovered and covered."""

import math

import numpy as np

from rlhf_video.stats import Comparisons, clustered_covariance, davidson, difference_interval, fit_ranking

TRUTH, TIE = np.array([-0.6, 0.0, 0.6]), 0.8
NAMES = ("s0", "s1", "s2")
PROMPTS, RATERS, PER_PROMPT, EFFECT_SD = 40, 30, 20, 0.5


def davidson_votes(rng: np.random.Generator, *, effect_sd: float) -> Comparisons:
    """Draw 800 votes; every prompt and every rater suits each system by its own normal effect."""
    num = PROMPTS * PER_PROMPT
    prompt, rater = np.repeat(np.arange(PROMPTS), PER_PROMPT), rng.integers(RATERS, size=num)
    first = rng.integers(3, size=num)
    second = (first + rng.integers(1, 3, size=num)) % 3
    suits = TRUTH + rng.normal(0, effect_sd, (PROMPTS, 3))[prompt] + rng.normal(0, effect_sd, (RATERS, 3))[rater]
    rows = np.arange(num)
    win, tie, _ = np.exp(davidson(suits[rows, first] - suits[rows, second], TIE))
    draw = rng.random(num)
    outcome = np.where(draw < win, 1, np.where(draw < win + tie, 0, -1)).astype(np.int8)
    return Comparisons(
        systems=NAMES, first=first, second=second, outcome=outcome, weight=np.ones(num), prompt=prompt, rater=rater
    )


def population_gap(effect_sd: float) -> float:
    """Return s2 minus s0 as infinitely many prompts and raters are fitted: single effects shrink it a little."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(60)
    pairs = [(0, 1), (0, 2), (1, 2)]
    gaps = np.array([TRUTH[i] - TRUTH[j] for i, j in pairs])[:, None] + 2.0 * effect_sd * nodes  # sd of four effects
    shares = [np.exp(log) @ (mass / mass.sum()) for log in davidson(gaps, TIE)]
    a, b = ([NAMES[pair[side]] for pair in pairs] * 3 for side in (0, 1))
    labels = [label for label in ("A", "tie", "B") for _ in pairs]
    strengths = fit_ranking(Comparisons.from_labels(a, b, labels, weights=np.concatenate(shares)), model="davidson")
    return float(strengths.strengths[2] - strengths.strengths[0])


def test_strengths_and_tie_parameter_are_recovered_without_bias() -> None:
    rng = np.random.default_rng(0)
    fits = [fit_ranking(davidson_votes(rng, effect_sd=0.0), model="davidson") for _ in range(500)]
    strengths = np.array([fit.strengths for fit in fits])
    ties = np.array([fit.tie_parameter for fit in fits])
    assert np.abs(strengths.mean(axis=0) - TRUTH).max() < 0.015
    assert abs(np.exp(np.log(ties).mean()) - TIE) < 0.015
    assert strengths.std(axis=0).max() < 0.1


def test_two_way_clustered_intervals_cover_prompt_and_rater_effects_with_ties() -> None:
    rng, truth, held, estimates = np.random.default_rng(1), population_gap(EFFECT_SD), 0, []
    assert 0.8 * 1.2 < truth < 1.2
    for _ in range(500):
        ranking = fit_ranking(davidson_votes(rng, effect_sd=EFFECT_SD), model="davidson")
        interval = difference_interval(ranking, clustered_covariance(ranking, "prompt", "rater"), "s2", "s0")
        held += interval.low <= truth <= interval.high
        estimates.append(interval.mean)
    assert 0.92 <= held / 500 <= 0.98
    assert abs(np.mean(estimates) - truth) < 3 * np.std(estimates) / math.sqrt(500) + 0.03  # ratio bias of few clusters
