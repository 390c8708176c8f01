"""How well score differences agree with people's choices, with and without ties: pure NumPy.

A comparison has a label, +1 (A is better), -1 (B is better) or 0 (tie), and a margin, the score of A minus that of B.
A threshold eps turns a margin into a prediction: a tie where |margin| <= eps, else the margin's sign. Deutsch, Foster
and Freitag 2023 ("Ties Matter", arXiv:2305.14324) choose eps by calibration. Swapping A and B changes no number here.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf_video.errors import DataError

NO_TIES = -1.0
"""Threshold that never predicts a tie; an exact 0 is then no prediction at all, and wrong."""


@dataclass(frozen=True)
class AgreementCounts:
    """Comparisons by human label and prediction, in the letters of Ties Matter, section 3."""

    concordant: int
    discordant: int
    human_ties: int
    """People see a tie, the model does not."""
    model_ties: int
    """The model sees a tie, people do not."""
    both_ties: int


@dataclass(frozen=True)
class TieThreshold:
    """A threshold and the three-class accuracy it reaches on the comparisons it was fitted on."""

    threshold: float
    """-1: never a tie; inf: always a tie."""
    accuracy: float


@dataclass(frozen=True)
class CrossFit:
    """Accuracy with thresholds that were fitted on other prompts."""

    correct: NDArray[np.float64]
    """Share of the repeats in which a comparison was predicted right, shape (n,)."""
    thresholds: NDArray[np.float64]
    """Fitted threshold of every fold of every repeat, shape (repeats * folds,)."""


def check_comparisons(labels: ArrayLike, margins: ArrayLike) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Return labels and margins as arrays.

    Args:
        labels: +1, -1 or 0, shape (n,).
        margins: Finite score differences, shape (n,).

    Raises:
        DataError: Nothing is given, the shapes differ, a label is another number, or a margin is not finite.
    """
    raw, values = np.asarray(labels, dtype=np.float64), np.asarray(margins, dtype=np.float64)
    if raw.ndim != 1 or raw.shape != values.shape:
        raise DataError(f"Labels of shape {raw.shape} and margins of shape {values.shape} must both be (n,).")
    if raw.size == 0:
        raise DataError("There is no comparison to judge: every one was dropped or none was given.")
    if not np.isin(raw, (-1.0, 0.0, 1.0)).all():
        other = sorted(set(raw[~np.isin(raw, (-1.0, 0.0, 1.0))].tolist()), key=str)[:5]
        raise DataError(f"Labels must be 1 (A), -1 (B) or 0 (tie), got {other}: drop invalid labels first.")
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise DataError(f"{count} of {values.size} margins are not finite: drop comparisons with failed clips first.")
    return raw.astype(np.int8), values


def agreement_counts(labels: ArrayLike, margins: ArrayLike, *, threshold: float = 0.0) -> AgreementCounts:
    """Count comparisons by human label and prediction.

    Args:
        labels: Shape (n,).
        margins: Shape (n,).
        threshold: eps; with `NO_TIES` an exact 0 against a human choice counts as discordant.

    Raises:
        DataError: As `check_comparisons`.
    """
    human, margin = check_comparisons(labels, margins)
    tied, is_tie = np.abs(margin) <= threshold, human == 0
    right = human * np.sign(margin) > 0
    return AgreementCounts(
        concordant=int((right & ~tied).sum()),
        discordant=int((~right & ~tied & ~is_tie).sum()),
        human_ties=int((is_tie & ~tied).sum()),
        model_ties=int((~is_tie & tied).sum()),
        both_ties=int((is_tie & tied).sum()),
    )


def correct_at(labels: ArrayLike, margins: ArrayLike, threshold: float) -> NDArray[np.float64]:
    """Return 1 where the three-class prediction at a threshold is the label and 0 elsewhere, shape (n,).

    Raises:
        DataError: As `check_comparisons`.
    """
    human, margin = check_comparisons(labels, margins)
    tied = np.abs(margin) <= threshold
    return np.where(tied, human == 0, human * np.sign(margin) > 0).astype(np.float64)


def credit_without_ties(labels: ArrayLike, margins: ArrayLike, *, tie_credit: float = 0.0) -> NDArray[np.float64]:
    """Return what each comparison that people decided earns, shape (number decided,), in the order given.

    Its mean is C / (C + D + T): concordant over concordant, discordant and exact ties of the model (VideoAlign,
    calc_accuracy.py, has the same denominator).

    Args:
        labels: Shape (n,); ties are left out.
        margins: Shape (n,).
        tie_credit: What a margin of exactly 0 earns: 0, or 1/2 for what a coin would earn on average.

    Raises:
        DataError: As `check_comparisons`.
    """
    human, margin = check_comparisons(labels, margins)
    decided = human != 0
    agreement = human[decided] * np.sign(margin[decided])
    return np.where(agreement > 0, 1.0, np.where(agreement == 0, tie_credit, 0.0))


class TieCurve:
    """Three-class accuracy as a function of the threshold, for any weights of the comparisons.

    Accuracy is read only after whole groups of equal |margin|, at -1 (no tie) and at inf (all ties): these are all the
    values that any threshold can reach. Reading it inside a group, as VideoAlign's calc_accuracy.py does, reports what
    no threshold achieves once scores are discrete.
    """

    def __init__(self, labels: ArrayLike, margins: ArrayLike) -> None:
        """Sort the comparisons by |margin| once.

        Raises:
            DataError: As `check_comparisons`.
        """
        human, margin = check_comparisons(labels, margins)
        size = np.abs(margin)
        self._order = np.argsort(size, kind="stable")
        ordered = size[self._order]
        self._ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
        # The last group's threshold makes everything a tie, on any data: inf.
        self.thresholds = np.concatenate(([NO_TIES], ordered[self._ends[:-1]], [math.inf]))
        self._right = (human * np.sign(margin) > 0)[self._order].astype(np.float64)
        self._gain = (human == 0)[self._order] - self._right

    def accuracies(self, weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Return the accuracy at every threshold of `thresholds`, same shape.

        Args:
            weights: Weight of each comparison in the order given at first, >= 0, not all 0; None for 1 each.
        """
        ordered = np.ones(len(self._order)) if weights is None else weights[self._order]
        gained = np.cumsum(ordered * self._gain)[self._ends]
        start = float(ordered @ self._right)
        accuracies: NDArray[np.float64] = np.concatenate(([start], start + gained)) / ordered.sum()
        return accuracies

    def best(self, weights: NDArray[np.float64] | None = None) -> TieThreshold:
        """Return the threshold of the highest accuracy, the smallest one where several reach it."""
        accuracies = self.accuracies(weights)
        # Sums of weights round differently along the curve: equal accuracies may differ in the last digit.
        index = int(np.argmax(accuracies >= accuracies.max() - 1e-12))
        return TieThreshold(float(self.thresholds[index]), float(accuracies[index]))


def cross_fit_threshold(
    labels: ArrayLike,
    margins: ArrayLike,
    clusters: ArrayLike,
    *,
    num_folds: int = 5,
    num_repeats: int = 10,
    seed: int = 0,
) -> CrossFit:
    """Predict every comparison with a threshold fitted on other prompts (repeated K-fold over prompts).

    The best threshold on the data itself flatters the model; this is what a threshold chosen beforehand would reach.

    Args:
        labels: Shape (n,).
        margins: Shape (n,).
        clusters: Prompt label of each comparison, shape (n,).
        num_folds: K; with fewer prompts, one fold per prompt.
        num_repeats: How many random partitions of the prompts.
        seed: Seed of the partitions.

    Raises:
        DataError: As `check_comparisons`, fewer than 2 folds or 1 repeat, or a single prompt: nothing to calibrate on.
    """
    human, margin = check_comparisons(labels, margins)
    if num_folds < 2 or num_repeats < 1:
        raise DataError(f"num_folds={num_folds}, num_repeats={num_repeats}: use at least 2 folds and 1 repeat.")
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    if index.shape != human.shape:
        raise DataError(f"Clusters of shape {index.shape} do not fit labels of shape {human.shape}.")
    if len(names) < 2:
        raise DataError("A threshold cannot be calibrated with one prompt: its fit needs other prompts than its test.")
    rng = np.random.default_rng(seed)
    correct, thresholds = np.zeros(len(human)), []
    for _ in range(num_repeats):
        fold_of_prompt = rng.permutation(len(names)) % min(num_folds, len(names))
        fold = fold_of_prompt[index]
        for number in range(fold.max() + 1):
            held = fold == number
            threshold = TieCurve(human[~held], margin[~held]).best().threshold
            correct[held] += correct_at(human[held], margin[held], threshold)
            thresholds.append(threshold)
    return CrossFit(correct / num_repeats, np.array(thresholds))
