"""Intervals and tests for clips grouped by prompt, tie models, rankings, agreement with people: pure NumPy."""

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
from rlhf_video.stats.comparison_graph import connected_parts
from rlhf_video.stats.comparisons import ClusterBy, Comparisons
from rlhf_video.stats.detectable import clustered_standard_error, minimum_detectable_difference
from rlhf_video.stats.holm import holm
from rlhf_video.stats.joint_means import JointMeans
from rlhf_video.stats.permutation import cluster_permutation_test
from rlhf_video.stats.ranking import Ranking, RankingModel, elo, fit_ranking
from rlhf_video.stats.ranking_covariance import (
    RankingCovariance,
    clustered_covariance,
    difference_interval,
    expected_points_interval,
    model_covariance,
    strength_intervals,
    tie_interval,
)
from rlhf_video.stats.ranking_draws import (
    RankedSystem,
    StrengthDraws,
    bootstrap_draws,
    normal_draws,
    percentile_intervals,
    rank_systems,
    simultaneous_critical,
)
from rlhf_video.stats.ranks import AreaUnderCurve, KendallTauB, SpearmanRho
from rlhf_video.stats.rater_agreement import leave_one_rater_out
from rlhf_video.stats.shares import share_difference_error, share_difference_interval, share_interval
from rlhf_video.stats.tie_models import bradley_terry, davidson, rao_kupper

__all__ = [
    "AgreementCounts",
    "AreaUnderCurve",
    "ClusterBy",
    "Comparisons",
    "CrossFit",
    "Interval",
    "JointMeans",
    "KendallTauB",
    "RankedSystem",
    "Ranking",
    "RankingCovariance",
    "RankingModel",
    "SpearmanRho",
    "StrengthDraws",
    "TieCurve",
    "TieThreshold",
    "agreement_counts",
    "bootstrap_draws",
    "bootstrap_mean",
    "bootstrap_statistic",
    "bradley_terry",
    "brier_score",
    "calibration_error",
    "cluster_permutation_test",
    "clustered_covariance",
    "clustered_standard_error",
    "connected_parts",
    "correct_at",
    "credit_without_ties",
    "cross_fit_threshold",
    "davidson",
    "difference_interval",
    "elo",
    "expected_points_interval",
    "fit_ranking",
    "fit_slope",
    "holm",
    "leave_one_rater_out",
    "minimum_detectable_difference",
    "model_covariance",
    "normal_draws",
    "paired_bootstrap",
    "percentile_intervals",
    "rank_systems",
    "rao_kupper",
    "share_difference_error",
    "share_difference_interval",
    "share_interval",
    "simultaneous_critical",
    "strength_intervals",
    "tie_interval",
    "win_probability",
]
