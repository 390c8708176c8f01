"""Bring scores of different units to one scale before they are added."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rlhf_video.preferences.pairing.scored import ScoredClip

Normalisation = Literal["min_max", "z_score", "rank", "none"]


def normalised(values: NDArray[np.float64], kind: Normalisation) -> NDArray[np.float64]:
    """Return one score of all clips on its common scale; a score that is the same everywhere becomes 0.

    "min_max": (s - min) / (max - min), in [0, 1]. "z_score": (s - mean) / population standard deviation.
    "rank": (mean rank - 1) / (n - 1), in [0, 1], equal scores sharing their mean rank. "none": the score itself.

    Args:
        values: Finite scores, shape (n,).
        kind: Which scale.
    """
    if kind == "none":
        return values
    if len(values) == 0 or np.ptp(values) == 0.0:
        return np.zeros_like(values)
    if kind == "min_max":
        return (values - values.min()) / np.ptp(values)
    if kind == "z_score":
        return (values - values.mean()) / values.std()
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2.0
    return (mean_rank[index] - 1.0) / (len(values) - 1.0)


def normalised_scores(
    groups: Mapping[str, Sequence[ScoredClip]], names: Sequence[str], kind: Normalisation
) -> dict[str, list[dict[str, float]]]:
    """Return each clip's normalised scores, in the layout of the groups; the scale is that of all clips together."""
    clips = [scored for group in groups.values() for scored in group]
    columns = {name: normalised(np.array([c.scores[name] for c in clips], dtype=np.float64), kind) for name in names}
    rows = iter([{name: float(columns[name][row]) for name in names} for row in range(len(clips))])
    return {prompt: [next(rows) for _ in group] for prompt, group in groups.items()}
