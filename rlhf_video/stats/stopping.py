"""Which pairs of systems are decided, and which need more votes: a confidence sequence for each pair."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rlhf_video.stats.bootstrap import Interval, check_level
from rlhf_video.stats.comparisons import Comparisons
from rlhf_video.stats.confidence_sequence import prompt_values, sequence_interval


@dataclass(frozen=True)
class PairDecision:
    """Where the comparison of two systems stands."""

    first: str
    second: str
    winner: str | None
    """The better one; None while the sequence does not exclude that they are equal."""
    interval: Interval
    """Net win rate of `first`, P(it wins) - P(it loses), in [-1, 1]; [-1, 1] without a complete prompt."""
    num_votes: int
    """Votes given to the pair, counted or not."""


def decided(
    comparisons: Comparisons, *, votes_per_prompt: int | None, level: float = 0.95, num_systems: int | None = None
) -> list[PairDecision]:
    """Return where every pair of systems stands, at any time and as often as one likes.

    Bonferroni over the pairs: the chance of ever calling any pair wrongly is at most 1 - level, for all looks and pairs
    together. With S systems each sequence has level 1 - (1 - level) / (S (S - 1) / 2); fix S before voting starts.

    What a sequence takes for one value must be independent of the values before. Raters are not accounted for: where
    their tastes differ, votes of one rater resemble each other, and the fewer the raters, the more calls are wrong.

    Args:
        comparisons: Votes in the order in which they came; weights are not used, leave out what shall not count.
        votes_per_prompt: Votes that complete a prompt (`prompt_values`): the sequences run over prompts, and hold for
            all prompts like these. None: they run over votes, and hold for these prompts only, if each vote's prompt is
            drawn at random whatever was drawn before.
        level: Chance that no pair is ever decided wrongly.
        num_systems: S, systems without a vote included; None for those of the table.

    Raises:
        ConfigError: Fewer than 1 vote per prompt.
        DataError: A prompt column is needed and missing, or the level is not in (0, 1).
    """
    check_level(level)
    names = comparisons.systems
    pairs = list(combinations(range(len(names)), 2))
    count = max(len(names), num_systems or 0)
    pair_level = 1.0 - (1.0 - level) / (count * (count - 1) // 2)
    prompts = None if votes_per_prompt is None else comparisons.cluster_index("prompt")
    low = np.minimum(comparisons.first, comparisons.second)
    high = np.maximum(comparisons.first, comparisons.second)
    signed = np.where(comparisons.first == low, comparisons.outcome, -comparisons.outcome).astype(np.float64)
    decisions = []
    for first, second in pairs:
        rows = (low == first) & (high == second)
        values = signed[rows]
        if prompts is not None and votes_per_prompt is not None:
            values = prompt_values(values, prompts[rows], votes_per_prompt=votes_per_prompt)
        interval = sequence_interval(values, level=pair_level) if len(values) else Interval(0.0, -1.0, 1.0, 0, 0)
        winner = names[first] if interval.is_above_zero else names[second] if interval.is_below_zero else None
        decisions.append(PairDecision(names[first], names[second], winner, interval, int(rows.sum())))
    return decisions
