"""From scored clips or votes to preference pairs: pure rules, their split by prompt and their manifest."""

from rlhf_video.preferences.pairing.manifest import WrittenPairs, write_pairs
from rlhf_video.preferences.pairing.one_score import AllPairsConfig, BestWorstConfig, all_pairs, best_worst
from rlhf_video.preferences.pairing.scored import Pairing, ScoredClip
from rlhf_video.preferences.pairing.split import SplitConfig, remove_leaks, split_pairs

__all__ = [
    "AllPairsConfig",
    "BestWorstConfig",
    "Pairing",
    "ScoredClip",
    "SplitConfig",
    "WrittenPairs",
    "all_pairs",
    "best_worst",
    "remove_leaks",
    "split_pairs",
    "write_pairs",
]
