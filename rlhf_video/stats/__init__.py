"""Intervals and tests for clips grouped by prompt: pure NumPy, no model."""

from rlhf_video.stats.bootstrap import Interval, bootstrap_mean, paired_bootstrap
from rlhf_video.stats.permutation import cluster_permutation_test

__all__ = ["Interval", "bootstrap_mean", "cluster_permutation_test", "paired_bootstrap"]
