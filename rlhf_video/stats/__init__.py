"""Intervals and tests for clips grouped by prompt, tie models, agreement with people's choices: pure NumPy."""

from rlhf_video.stats.agreement import (
    AgreementCounts,
    CrossFit,
    TieCurve,
    TieThreshold,
    agreement_counts,
    correct_at,
    credit_without_ties,
    cross_fit_threshold,
)
from rlhf_video.stats.bootstrap import Interval, bootstrap_mean, bootstrap_statistic, paired_bootstrap
from rlhf_video.stats.calibration import brier_score, calibration_error, fit_slope, win_probability
from rlhf_video.stats.permutation import cluster_permutation_test
from rlhf_video.stats.ranks import AreaUnderCurve, KendallTauB, SpearmanRho
from rlhf_video.stats.tie_models import bradley_terry, davidson, rao_kupper

__all__ = [
    "AgreementCounts",
    "AreaUnderCurve",
    "CrossFit",
    "Interval",
    "KendallTauB",
    "SpearmanRho",
    "TieCurve",
    "TieThreshold",
    "agreement_counts",
    "bootstrap_mean",
    "bootstrap_statistic",
    "bradley_terry",
    "brier_score",
    "calibration_error",
    "cluster_permutation_test",
    "correct_at",
    "credit_without_ties",
    "cross_fit_threshold",
    "davidson",
    "fit_slope",
    "paired_bootstrap",
    "rao_kupper",
    "win_probability",
]
