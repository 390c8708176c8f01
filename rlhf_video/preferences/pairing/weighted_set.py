"""Pairs by a weighted set of scores with veto: VideoDPO's OmniScore (arXiv:2412.14167), defined here in full.

With normalised scores n_d over all compared clips (normalisation.py) and weights w_d >= 0,

    omniscore(clip) = sum_d w_d n_d(clip) / sum_d w_d
    margin          = omniscore(best) - omniscore(worst)          best and worst of the N clips of a prompt

A pair is dropped where the margin is below `min_margin`, or where a dimension d of `veto` contradicts it:
n_d(worst) - n_d(best) > veto[d]. The paper sums quality within frames, quality between frames and text alignment
with equal weights and has no veto; its scoring code is not public.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rlhf_video.errors import ConfigError
from rlhf_video.preferences.pair import Label, PreferencePair
from rlhf_video.preferences.pairing.normalisation import Normalisation, normalised_scores
from rlhf_video.preferences.pairing.one_score import NEITHER, extremes
from rlhf_video.preferences.pairing.reweighting import ReweightingConfig, pair_weights
from rlhf_video.preferences.pairing.scored import (
    Pairing,
    ScoredClip,
    make_pair,
    pairing_of,
    refused_margin,
    usable_by_prompt,
)
from rlhf_video.settings import check_range


@dataclass(frozen=True, kw_only=True)
class OmniScoreConfig:
    """Best against worst clip of every prompt by a weighted sum of normalised scores."""

    weights: dict[str, float]
    """Score -> weight, >= 0, at least one above 0; only their ratios count. VideoDPO: equal weights."""
    normalisation: Normalisation = "min_max"
    """Scale of each score over all clips, before they are added: min_max, z_score, rank, none. min_max is ours:
    thresholds are then shares of the range seen."""
    min_margin: float = 0.0
    """Least difference of the weighted means, >= 0, in normalised units. 0 (ours): only equal ones are dropped."""
    veto: dict[str, float] = field(default_factory=dict)
    """Score -> tolerance, >= 0, in normalised units: a pair is dropped where its worst clip is better by more than
    this. A score may have a veto and no weight, for example motion. Empty (VideoDPO): nothing vetoes."""
    reweighting: ReweightingConfig | None = None
    """How much more rare pairs count; None (VideoDPO's released setting): every pair has weight 1."""

    @property
    def score_names(self) -> tuple[str, ...]:
        """Return the scores that every clip needs."""
        return tuple(sorted({*self.weights, *self.veto}))

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, weight in self.weights.items():
            check_range(f"weights.{name}", weight, least=0.0)
        if not any(self.weights.values()):
            raise ConfigError(f"weights={self.weights} has no score with a weight above 0: nothing would decide.")
        for name, tolerance in self.veto.items():
            check_range(f"veto.{name}", tolerance, least=0.0)
        check_range("min_margin", self.min_margin, least=0.0)


def omniscore(clips: Sequence[ScoredClip], config: OmniScoreConfig, *, source: str = "reward") -> Pairing:
    """Pair the best with the worst clip of every prompt by the weighted set; formulas on top of this file.

    One comparison a prompt with at least two usable clips; a clip needs every score of `weights` and `veto`. `labels`
    hold the verdict of each score too ("tie" within its veto tolerance), `margin` is in normalised units, `weight` is
    that of the re-weighting.

    Args:
        clips: In any order.
        config: Weights, scale, veto, least margin, re-weighting.
        source: Where the labels are from, written into the pairs.

    Raises:
        DataError: There is no clip.
        ConfigError: No clip has one of the scores.
    """
    names = config.score_names
    groups, unused = usable_by_prompt(clips, names)
    scales = normalised_scores(groups, names, config.normalisation)
    dropped: Counter[str] = Counter()
    kept: list[tuple[PreferencePair, float, float]] = []
    population: list[float] = []
    for prompt, group in groups.items():
        scale = {scored.clip.sha256: row for scored, row in zip(group, scales[prompt], strict=True)}
        total = {sha: _weighted_mean(row, config.weights) for sha, row in scale.items()}
        population += total.values()
        best, worst = extremes(group, total)
        unused[NEITHER] += len(group) - 2
        high, low = total[best.clip.sha256], total[worst.clip.sha256]
        gaps = {name: scale[best.clip.sha256][name] - scale[worst.clip.sha256][name] for name in names}
        reason = refused_margin(high - low, config.min_margin) or _vetoed(gaps, config.veto)
        if reason:
            dropped[reason] += 1
        else:
            labels = {name: label_of(gap, config.veto.get(name, 0.0)) for name, gap in gaps.items()}
            kept.append((make_pair(best, worst, margin=high - low, source=source, labels=labels), high, low))
    pairs = [pair for pair, _, _ in kept]
    if config.reweighting is not None and kept:
        chosen, rejected = (np.array([row[side] for row in kept], dtype=np.float64) for side in (1, 2))
        weights = pair_weights(chosen, rejected, np.array(population), config.reweighting)
        pairs = [replace(pair, weight=float(weight)) for pair, weight in zip(pairs, weights, strict=True)]
    return pairing_of(pairs, dropped, unused)


def label_of(gap: float, tolerance: float) -> Label:
    """Return what a score says of two clips whose scores differ by `gap`: a tie up to the tolerance."""
    if abs(gap) <= tolerance:
        return "tie"
    return "A" if gap > 0 else "B"


def _weighted_mean(row: dict[str, float], weights: dict[str, float]) -> float:
    return sum(weight * row[name] for name, weight in weights.items()) / sum(weights.values())


def _vetoed(gaps: dict[str, float], veto: dict[str, float]) -> str | None:
    against = [name for name in sorted(veto) if -gaps[name] > veto[name]]
    return f"vetoed by '{against[0]}'" if against else None
