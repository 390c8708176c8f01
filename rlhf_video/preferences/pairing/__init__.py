"""From scored clips or votes to preference pairs: pure rules, their split by prompt and their manifest."""

from rlhf_video.preferences.pairing.dominance import ParetoConfig, pareto
from rlhf_video.preferences.pairing.manifest import WrittenPairs, write_pairs
from rlhf_video.preferences.pairing.one_score import AllPairsConfig, BestWorstConfig, all_pairs, best_worst
from rlhf_video.preferences.pairing.reweighting import ReweightingConfig
from rlhf_video.preferences.pairing.scored import Pairing, ScoredClip
from rlhf_video.preferences.pairing.split import SplitConfig, remove_leaks, split_pairs
from rlhf_video.preferences.pairing.votes import VotesConfig, pairs_from_votes
from rlhf_video.preferences.pairing.weighted_set import OmniScoreConfig, omniscore

__all__ = [
    "AllPairsConfig",
    "BestWorstConfig",
    "OmniScoreConfig",
    "Pairing",
    "ParetoConfig",
    "ReweightingConfig",
    "ScoredClip",
    "SplitConfig",
    "VotesConfig",
    "WrittenPairs",
    "all_pairs",
    "best_worst",
    "omniscore",
    "pairs_from_votes",
    "pareto",
    "remove_leaks",
    "split_pairs",
    "write_pairs",
]
