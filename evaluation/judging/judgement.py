"""Agreement of a reward's score differences with people's choices, with intervals over prompts."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.judging.bias import BiasResult, bias_controls
from evaluation.judging.matching import Matching
from evaluation.judging.records import LABEL_VALUES, Benchmark
from evaluation.judging.score_store import ClipScore
from evaluation.judging.scoring import ClipKey
from rewards.base import RewardSpec
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.stats import (
    AgreementCounts,
    AreaUnderCurve,
    Interval,
    KendallTauB,
    TieCurve,
    agreement_counts,
    bootstrap_mean,
    bootstrap_statistic,
    correct_at,
    credit_without_ties,
    cross_fit_threshold,
)


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How intervals and calibration splits are drawn."""

    num_resamples: int = 2000
    """Bootstrap draws of whole prompts; 1,000 or more for a percentile interval (Hesterberg 2015, section 3.5)."""
    seed: int = 0
    """Seed of draws and splits."""
    num_folds: int = 5
    """Folds of the calibration of the tie threshold, split by prompt."""
    num_repeats: int = 10
    """Random partitions that the calibration is averaged over."""

    def __post_init__(self) -> None:
        """Check before hours of scoring what would fail after them.

        Raises:
            ConfigError: There would be no draw, or a seed is negative.
        """
        if self.num_resamples < 1 or self.seed < 0:
            raise ConfigError(
                f"{self.num_resamples} bootstrap draws with seed {self.seed}: use 1,000 draws or more and a seed >= 0."
            )


@dataclass(frozen=True, kw_only=True)
class Joined:
    """The comparisons of one dimension that have a label and two scores."""

    labels: NDArray[np.int8]
    """1 (A), -1 (B), 0 (tie), shape (n,)."""
    margins: NDArray[np.float64]
    """Score of A minus score of B, turned so that higher means better, shape (n,)."""
    prompts: NDArray[np.int64]
    """Number of each one's prompt, shape (n,): the clusters."""
    words: NDArray[np.float64]
    """Words of each one's prompt, shape (n,)."""
    covariates: Mapping[str, NDArray[np.float64]]
    """Name -> value of A minus value of B, shape (n,)."""
    models: tuple[str, ...]
    """Such as "x vs y", generator names sorted, one per comparison."""
    num_unscored: int
    """Comparisons with a label that were left out because a clip has no score."""


@dataclass(frozen=True, kw_only=True)
class CalibratedTies:
    """Accuracy with ties when the threshold comes from other prompts."""

    accuracy: Interval
    threshold: float
    """Median over folds and repeats."""
    threshold_range: tuple[float, float]
    """Lowest and highest."""


@dataclass(frozen=True, kw_only=True)
class PairingResult:
    """One pair of generators."""

    models: str
    num_comparisons: int
    without_ties: Interval | None
    """None where people saw ties only."""
    with_ties: Interval
    """At the best threshold of the whole dimension, not refitted."""


@dataclass(frozen=True, kw_only=True)
class DimensionResult:
    """Everything about one label dimension; docs/judging.md defines each number. Accuracies and shares in [0, 1]."""

    dimension: str
    score: str
    """Dimension of the reward that judged it."""
    num_comparisons: int
    num_prompts: int
    num_unscored: int
    dropped_labels: Mapping[str, int]
    counts: AgreementCounts
    """At threshold 0."""
    human_tie_share: float
    """What always answering "tie" would reach with ties."""
    without_ties: Interval | None
    """None where people saw ties only; so are the two below."""
    half_credit: Interval | None
    with_ties: Interval
    """At the best threshold, refitted in every bootstrap draw."""
    threshold: float
    calibrated: CalibratedTies | None
    """None with a single prompt."""
    tau_b: Interval | None
    """None where all labels or all margins are ties."""
    tie_auc: Interval | None
    """None unless people both tied and decided."""
    pairings: tuple[PairingResult, ...]
    biases: tuple[BiasResult, ...]


def judge(
    benchmark: Benchmark,
    spec: RewardSpec,
    matching: Matching,
    scores: Mapping[ClipKey, ClipScore],
    resampling: Resampling,
) -> tuple[DimensionResult, ...]:
    """Judge every matched dimension.

    Args:
        benchmark: The comparisons.
        spec: Facts of the reward.
        matching: Label dimension -> dimension of the reward.
        scores: Score of each clip; clips that failed are absent.
        resampling: Draws and splits.

    Raises:
        DataError: A dimension has not one comparison with a label and two scores.
    """
    return tuple(
        judge_dimension(
            join_scores(benchmark, dimension, score, scores, higher_is_better=spec.higher_is_better),
            dimension=dimension,
            score=score,
            dropped_labels=benchmark.dropped.get(dimension, {}),
            resampling=resampling,
        )
        for dimension, score in matching.items()
    )


def join_scores(
    benchmark: Benchmark,
    dimension: str,
    score: str,
    scores: Mapping[ClipKey, ClipScore],
    *,
    higher_is_better: bool,
) -> Joined:
    """Join labels and scores of one dimension.

    Raises:
        DataError: Not one comparison has both.
    """
    labelled = [item for item in benchmark.comparisons if dimension in item.labels]
    pairs = [
        (item, scores[item.clip_a, item.prompt], scores[item.clip_b, item.prompt])
        for item in labelled
        if (item.clip_a, item.prompt) in scores and (item.clip_b, item.prompt) in scores
    ]
    if not pairs:
        raise DataError(
            f"Dimension {dimension!r}: none of the {len(labelled)} comparisons with a label has two scored clips. "
            f"Leave it out with --map {dimension}=none, or mend the clips that failed."
        )
    sign = 1.0 if higher_is_better else -1.0
    names = pairs[0][1].covariates
    number = {prompt: index for index, prompt in enumerate(dict.fromkeys(item.prompt for item, _, _ in pairs))}
    return Joined(
        labels=np.array([LABEL_VALUES[item.labels[dimension]] for item, _, _ in pairs], dtype=np.int8),
        margins=np.array([sign * (a.values[score] - b.values[score]) for _, a, b in pairs]),
        prompts=np.array([number[item.prompt] for item, _, _ in pairs], dtype=np.int64),
        words=np.array([len(item.prompt.split()) for item, _, _ in pairs], dtype=np.float64),
        covariates={name: np.array([a.covariates[name] - b.covariates[name] for _, a, b in pairs]) for name in names},
        models=tuple(" vs ".join(sorted((item.model_a, item.model_b))) for item, _, _ in pairs),
        num_unscored=len(labelled) - len(pairs),
    )


def judge_dimension(
    joined: Joined, *, dimension: str, score: str, dropped_labels: Mapping[str, int], resampling: Resampling
) -> DimensionResult:
    """Return every statistic of one dimension."""
    labels, margins, prompts = joined.labels, joined.margins, joined.prompts
    decided = labels != 0
    curve = TieCurve(labels, margins)
    best = curve.best()
    draw = _Draw(resampling)
    return DimensionResult(
        dimension=dimension,
        score=score,
        num_comparisons=len(labels),
        num_prompts=len(np.unique(prompts)),
        num_unscored=joined.num_unscored,
        dropped_labels=dropped_labels,
        counts=agreement_counts(labels, margins),
        human_tie_share=float((~decided).mean()),
        without_ties=draw.mean_of_any(credit_without_ties(labels, margins), prompts[decided]),
        half_credit=draw.mean_of_any(credit_without_ties(labels, margins, tie_credit=0.5), prompts[decided]),
        with_ties=draw.statistic(lambda weights: curve.best(weights).accuracy, prompts),
        threshold=best.threshold,
        calibrated=_calibrated(joined, resampling, draw),
        tau_b=draw.defined(KendallTauB(labels, margins, symmetric=True), prompts),
        tie_auc=draw.defined(AreaUnderCurve(decided, np.abs(margins)), prompts),
        pairings=_pairings(joined, best.threshold, draw),
        biases=bias_controls(
            labels,
            margins,
            prompts,
            joined.covariates,
            joined.words,
            num_resamples=resampling.num_resamples,
            seed=resampling.seed,
        ),
    )


class _Draw:
    """Intervals with the settings of one run."""

    def __init__(self, resampling: Resampling) -> None:
        self._resampling = resampling

    def mean(self, values: NDArray[np.float64], prompts: NDArray[np.int64]) -> Interval:
        settings = self._resampling
        return bootstrap_mean(values, prompts, num_resamples=settings.num_resamples, seed=settings.seed)

    def mean_of_any(self, values: NDArray[np.float64], prompts: NDArray[np.int64]) -> Interval | None:
        return self.mean(values, prompts) if len(values) else None

    def statistic(self, statistic: Callable[[NDArray[np.float64]], float], prompts: NDArray[np.int64]) -> Interval:
        settings = self._resampling
        return bootstrap_statistic(statistic, prompts, num_resamples=settings.num_resamples, seed=settings.seed)

    def defined(self, statistic: Callable[[NDArray[np.float64]], float], prompts: NDArray[np.int64]) -> Interval | None:
        is_defined = not math.isnan(statistic(np.ones(len(prompts))))
        return self.statistic(statistic, prompts) if is_defined else None


def _calibrated(joined: Joined, resampling: Resampling, draw: _Draw) -> CalibratedTies | None:
    if len(np.unique(joined.prompts)) < 2:
        return None
    fit = cross_fit_threshold(
        joined.labels,
        joined.margins,
        joined.prompts,
        num_folds=resampling.num_folds,
        num_repeats=resampling.num_repeats,
        seed=resampling.seed,
    )
    return CalibratedTies(
        accuracy=draw.mean(fit.correct, joined.prompts),
        # The middle of the sorted list, not a mean of two: a mean with inf or -1 would be no threshold of anything.
        threshold=float(np.sort(fit.thresholds)[len(fit.thresholds) // 2]),
        threshold_range=(float(fit.thresholds.min()), float(fit.thresholds.max())),
    )


def _pairings(joined: Joined, threshold: float, draw: _Draw) -> tuple[PairingResult, ...]:
    models = np.array(joined.models)
    results = []
    for name in sorted(set(joined.models)):
        here = models == name
        labels, margins, prompts = joined.labels[here], joined.margins[here], joined.prompts[here]
        correct = correct_at(labels, margins, threshold)
        results.append(
            PairingResult(
                models=name,
                num_comparisons=len(labels),
                without_ties=draw.mean_of_any(credit_without_ties(labels, margins), prompts[labels != 0]),
                with_ties=draw.mean(correct, prompts),
            )
        )
    return tuple(results)
