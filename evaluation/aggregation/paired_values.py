"""The values of one score in both systems, over pairs of clips."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from evaluation.clips.clip_pairs import ClipPairs
from evaluation.scores import Column, SystemScores


def paired_values(
    baseline: SystemScores, system: SystemScores, column: Column, pairs: ClipPairs
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both systems' values, each of shape (pairs,), NaN in both where either lacks one.

    Where a score counts the first clips of a prompt that pass (the static filter), the first pairs that pass in both
    systems count: the first clips of each could be other clips, so that pairs were lost that both systems have.

    Args:
        baseline: Scores.
        system: Scores.
        column: Of both.
        pairs: Their clips.
    """
    before, after = baseline.passed(column.name)[pairs.baseline], system.passed(column.name)[pairs.system]
    both = np.isfinite(before) & np.isfinite(after)
    if column.first_of_prompt is not None:
        samples = np.array([entry.sample for entry in baseline.entries])[pairs.baseline]
        taken = Counter[int]()
        for pair in np.argsort(samples, kind="stable"):
            taken[int(pairs.prompts[pair])] += bool(both[pair])
            both[pair] &= taken[int(pairs.prompts[pair])] <= column.first_of_prompt
    return np.where(both, before, np.nan), np.where(both, after, np.nan)
