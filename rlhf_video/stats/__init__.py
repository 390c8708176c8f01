"""Intervals and tests for clips grouped by prompt, rankings, votes and raters, agreement with people: pure NumPy."""

from rlhf_video.stats.active_sampling import inverse_propensity_weights, outcome_variances, sampling_probabilities
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
from rlhf_video.stats.confidence_sequence import deciding_lead, log_wealth, prompt_values, sequence_interval
from rlhf_video.stats.crowd_bt import CrowdRanking, fit_crowd_bt, reliability_weights
from rlhf_video.stats.detectable import clustered_standard_error, minimum_detectable_difference
from rlhf_video.stats.fragility import Fragility, fewest_votes_to_flip
from rlhf_video.stats.holm import holm
from rlhf_video.stats.joint_means import JointMeans
from rlhf_video.stats.krippendorff_alpha import krippendorff_alpha, percent_agreement
from rlhf_video.stats.permutation import MAX_EXACT_CLUSTERS, cluster_permutation_test, smallest_p_value
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
from rlhf_video.stats.rater_outliers import RaterSuspicion, find_outliers
from rlhf_video.stats.shares import share_difference_error, share_difference_interval, share_interval
from rlhf_video.stats.side_bias import SideBias, side_bias
from rlhf_video.stats.stopping import PairDecision, decided
from rlhf_video.stats.tie_models import bradley_terry, davidson, rao_kupper
from rlhf_video.stats.votes_needed import VotesNeeded, fixed_votes_needed, votes_needed

__all__ = [
    "MAX_EXACT_CLUSTERS",
    "AgreementCounts",
    "AreaUnderCurve",
    "ClusterBy",
    "Comparisons",
    "CrossFit",
    "CrowdRanking",
    "Fragility",
    "Interval",
    "JointMeans",
    "KendallTauB",
    "PairDecision",
    "RankedSystem",
    "Ranking",
    "RankingCovariance",
    "RankingModel",
    "RaterSuspicion",
    "SideBias",
    "SpearmanRho",
    "StrengthDraws",
    "TieCurve",
    "TieThreshold",
    "VotesNeeded",
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
    "decided",
    "deciding_lead",
    "difference_interval",
    "elo",
    "expected_points_interval",
    "fewest_votes_to_flip",
    "find_outliers",
    "fit_crowd_bt",
    "fit_ranking",
    "fit_slope",
    "fixed_votes_needed",
    "holm",
    "inverse_propensity_weights",
    "krippendorff_alpha",
    "leave_one_rater_out",
    "log_wealth",
    "minimum_detectable_difference",
    "model_covariance",
    "normal_draws",
    "outcome_variances",
    "paired_bootstrap",
    "percent_agreement",
    "percentile_intervals",
    "prompt_values",
    "rank_systems",
    "rao_kupper",
    "reliability_weights",
    "sampling_probabilities",
    "sequence_interval",
    "share_difference_error",
    "share_difference_interval",
    "share_interval",
    "side_bias",
    "simultaneous_critical",
    "smallest_p_value",
    "strength_intervals",
    "tie_interval",
    "votes_needed",
    "win_probability",
]
