"""VBench's sixteen dimensions, and how its Quality, Semantic and Total scores follow from them.

VBench (arXiv:2311.17982), scripts/constant.py and scripts/cal_final_score.py of its repository: each dimension is
scaled by (raw - least) / (most - least) without clipping, Quality and Semantic are weighted means of seven and nine of
them, and Total = (4 Quality + Semantic) / 5. VBench counts a missing dimension as raw 0, which is below `least` for
some; here a total without all of its dimensions is refused, or called partial.

What is averaged within a dimension: we take the mean over clips, as VBench does on several GPUs. On one GPU it pools
frames of all clips in `POOLED_FRAMES`, which is the same where all clips are equally long; `pooled_mean` has its
number for others. It leaves out clips of "color" where no coloured object is found, and
clips of "temporal_flickering" that move (here: skipped).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rlhf_video.errors import DataError

TotalName = Literal["quality", "semantic", "total"]
TOTALS: tuple[TotalName, ...] = ("quality", "semantic", "total")
QUALITY_SHARE = 0.8
"""Of the total: 4 of 5."""


@dataclass(frozen=True)
class VbenchDimension:
    """How one dimension enters the totals."""

    group: Literal["quality", "semantic"]
    least: float = 0.0
    """Raw score that becomes 0."""
    most: float = 1.0
    """Raw score that becomes 1."""
    weight: float = 1.0
    """In the mean of its group."""
    may_skip: bool = False
    """Whether VBench itself leaves out clips: those that it cannot judge, or that its static filter drops."""


VBENCH_DIMENSIONS: Mapping[str, VbenchDimension] = {
    "subject_consistency": VbenchDimension("quality", least=0.1462),
    "background_consistency": VbenchDimension("quality", least=0.2615),
    "temporal_flickering": VbenchDimension("quality", least=0.6293, may_skip=True),
    "motion_smoothness": VbenchDimension("quality", least=0.706, most=0.9975),
    "dynamic_degree": VbenchDimension("quality", weight=0.5),
    "aesthetic_quality": VbenchDimension("quality"),
    "imaging_quality": VbenchDimension("quality"),
    "object_class": VbenchDimension("semantic"),
    "multiple_objects": VbenchDimension("semantic"),
    "human_action": VbenchDimension("semantic"),
    "color": VbenchDimension("semantic", may_skip=True),
    "spatial_relationship": VbenchDimension("semantic"),
    "scene": VbenchDimension("semantic", most=0.8222),
    "appearance_style": VbenchDimension("semantic", least=0.0009, most=0.2855),
    "temporal_style": VbenchDimension("semantic", most=0.364),
    "overall_consistency": VbenchDimension("semantic", most=0.364),
}
"""Constants of VBench's scripts/constant.py, in its order of the leaderboard."""

POOLED_FRAMES: Mapping[str, int] = {"subject_consistency": 1, "background_consistency": 1, "appearance_style": 0}
"""Dimensions that VBench pools over frames on one GPU -> how many frames of a clip have no value of their own."""


@dataclass(frozen=True)
class TotalFormula:
    """A total as offset + sum of weights * raw scores."""

    weights: Mapping[str, float]
    """Dimension -> weight of its raw score."""
    offset: float

    def __call__(self, raw: Mapping[str, float]) -> float:
        """Return the total of raw scores by dimension."""
        return self.offset + sum(weight * raw[name] for name, weight in self.weights.items())


def needed_dimensions(total: TotalName) -> tuple[str, ...]:
    """Return the dimensions that a total is made of."""
    return tuple(name for name, facts in VBENCH_DIMENSIONS.items() if total in ("total", facts.group))


def normalise(dimension: str, raw: float) -> float:
    """Return a raw score on VBench's common scale: mostly in [0, 1], never clipped.

    Raises:
        DataError: No dimension of VBench.
    """
    facts = _facts(dimension)
    return (raw - facts.least) / (facts.most - facts.least)


def total_formula(total: TotalName, dimensions: Collection[str] | None = None) -> TotalFormula:
    """Return how a total follows from raw scores.

    Args:
        total: Which.
        dimensions: Those at hand, for a partial total: the weights of its groups are shared out among them. None: all.

    Raises:
        DataError: An unknown dimension, or none of a group.
    """
    if total == "total":
        quality, semantic = total_formula("quality", dimensions), total_formula("semantic", dimensions)
        weights = {name: QUALITY_SHARE * weight for name, weight in quality.weights.items()}
        weights |= {name: (1.0 - QUALITY_SHARE) * weight for name, weight in semantic.weights.items()}
        return TotalFormula(weights, QUALITY_SHARE * quality.offset + (1.0 - QUALITY_SHARE) * semantic.offset)
    known = {name: _facts(name) for name in (VBENCH_DIMENSIONS if dimensions is None else dimensions)}
    group = {name: facts for name, facts in known.items() if facts.group == total}
    if not group:
        raise DataError(f"There is no {total} dimension among {', '.join(sorted(known)) or 'nothing'}.")
    whole = sum(facts.weight for facts in group.values())
    weights = {name: facts.weight / whole / (facts.most - facts.least) for name, facts in group.items()}
    return TotalFormula(weights, -sum(weights[name] * facts.least for name, facts in group.items()))


def pooled_mean(dimension: str, values: ArrayLike, num_frames: ArrayLike) -> float:
    """Return a dimension's score as VBench computes it on one GPU, also where clips differ in length.

    Args:
        dimension: Any of VBench's.
        values: Score of each clip, shape (clips,).
        num_frames: Frames of each clip, shape (clips,).

    Raises:
        DataError: No dimension of VBench, the shapes differ, or no clip is long enough to count.
    """
    _facts(dimension)
    scores, frames = np.asarray(values, dtype=np.float64), np.asarray(num_frames, dtype=np.float64)
    counts = frames - POOLED_FRAMES[dimension] if dimension in POOLED_FRAMES else np.ones_like(scores)
    if scores.ndim != 1 or frames.shape != scores.shape or not counts.sum() > 0 or (counts < 0).any():
        raise DataError(f"{dimension} needs one score and a frame count of 2 or more for each clip.")
    return float(scores @ counts / counts.sum())


def _facts(dimension: str) -> VbenchDimension:
    if dimension not in VBENCH_DIMENSIONS:
        raise DataError(f"VBench has no dimension '{dimension}'. It has: {', '.join(VBENCH_DIMENSIONS)}.")
    return VBENCH_DIMENSIONS[dimension]
