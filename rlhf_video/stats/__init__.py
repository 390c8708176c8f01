"""Intervals and tests for clips grouped by prompt, agreement with people's choices: pure NumPy, no model."""

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
from rlhf_video.stats.permutation import cluster_permutation_test
from rlhf_video.stats.ranks import AreaUnderCurve, KendallTauB, SpearmanRho

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
    "cluster_permutation_test",
    "correct_at",
    "credit_without_ties",
    "cross_fit_threshold",
    "paired_bootstrap",
]
