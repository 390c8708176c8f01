"""Outcome probabilities sum to one, do not care which clip is called A, and reach Bradley-Terry at their bound."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_video.algorithms.preference_loss import TieModel, free_number, from_free_number, outcome_log_probabilities
from rlhf_video.stats import bradley_terry, davidson, rao_kupper

GAPS = st.lists(st.floats(-40, 40), min_size=1, max_size=6)


@given(GAPS, st.floats(1, 50), st.floats(0, 50))
def test_probabilities_sum_to_one(gaps: list[float], k: float, v: float) -> None:
    for logs in (bradley_terry(gaps), rao_kupper(gaps, k), davidson(gaps, v)):
        np.testing.assert_allclose(sum(np.exp(log) for log in logs), 1, rtol=1e-9)


@given(GAPS, st.floats(1, 50), st.floats(0, 50))
def test_swapping_the_clips_swaps_the_outcomes(gaps: list[float], k: float, v: float) -> None:
    swapped = -np.array(gaps)
    for one, other in (
        (bradley_terry(gaps), bradley_terry(swapped)),
        (rao_kupper(gaps, k), rao_kupper(swapped, k)),
        (davidson(gaps, v), davidson(swapped, v)),
    ):
        for log, mirrored in zip(one, other[::-1], strict=True):
            np.testing.assert_allclose(log, mirrored, rtol=1e-12)


@given(GAPS)
def test_without_ties_both_models_are_bradley_terry(gaps: list[float]) -> None:
    for logs in (rao_kupper(gaps, 1.0), davidson(gaps, 0.0)):
        for log, expected in zip(logs, bradley_terry(gaps), strict=True):
            np.testing.assert_allclose(log, expected, rtol=1e-9, atol=1e-12)


@given(st.floats(0, 20), st.floats(0.01, 5), st.floats(1.01, 20), st.floats(0.01, 20))
def test_a_larger_gap_never_makes_the_better_clip_less_likely(gap: float, more: float, k: float, v: float) -> None:
    for model, parameter in ((rao_kupper, k), (davidson, v)):
        near, far = model(gap, parameter), model(gap + more, parameter)
        assert far[0] > near[0] and far[1] < near[1] and far[2] < near[2]


@given(GAPS, st.floats(1.01, 50), st.floats(0.01, 50))
def test_the_differentiable_losses_are_the_same_numbers(gaps: list[float], k: float, v: float) -> None:
    difference = torch.tensor(gaps, dtype=torch.float64)
    cases: tuple[tuple[TieModel, float, tuple[np.ndarray, ...]], ...] = (
        ("rao_kupper", k, rao_kupper(gaps, k)),
        ("davidson", v, davidson(gaps, v)),
    )
    for model, parameter, expected in cases:
        logs = outcome_log_probabilities(difference, model, torch.tensor(parameter, dtype=torch.float64))
        np.testing.assert_allclose(logs.numpy(), np.stack(expected, axis=-1), rtol=1e-9, atol=1e-12)
    logs = outcome_log_probabilities(difference, "bradley_terry", torch.tensor(0.0))
    log_a, _, log_b = bradley_terry(gaps)
    np.testing.assert_allclose(logs.numpy()[:, [0, 2]], np.stack((log_a, log_b), axis=-1), rtol=1e-9)


@given(st.floats(1.001, 100), st.floats(0.001, 100))
def test_a_learned_tie_parameter_starts_where_it_is_told(k: float, v: float) -> None:
    cases: tuple[tuple[TieModel, float], ...] = (("rao_kupper", k), ("davidson", v))
    for model, value in cases:
        number = torch.tensor(free_number(value, model), dtype=torch.float64)
        np.testing.assert_allclose(float(from_free_number(number, model)), value, rtol=1e-6)
