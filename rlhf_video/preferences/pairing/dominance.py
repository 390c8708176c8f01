"""Pairs on which no score disagrees: Pareto dominance over several dimensions."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_video.errors import ConfigError
from rlhf_video.preferences.pair import Label, PreferencePair
from rlhf_video.preferences.pairing.normalisation import normalised_scores
from rlhf_video.preferences.pairing.scored import (
    OVER_CAP,
    Pairing,
    ScoredClip,
    cap_per_prompt,
    make_pair,
    pairing_of,
    swapped,
    usable_by_prompt,
)
from rlhf_video.preferences.pairing.weighted_set import label_of
from rlhf_video.settings import check_range

CONTRADICTION = "the scores contradict one another"
WITHIN = "every score is within its tolerance"


@dataclass(frozen=True, kw_only=True)
class ParetoConfig:
    """Two clips of a prompt of which one is better on some score and worse on none."""

    tolerances: dict[str, float]
    """Score -> difference up to which two clips count as equal on it, >= 0, in the unit of the score; the noise of the
    score is a good value. With 0 everywhere this is plain Pareto dominance."""
    max_pairs_per_prompt: int | None = None
    """The pairs of largest margin that a prompt keeps, None for all (ours; see AllPairsConfig)."""

    @property
    def score_names(self) -> tuple[str, ...]:
        """Return the scores that every clip needs."""
        return tuple(sorted(self.tolerances))

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.tolerances:
            raise ConfigError("tolerances is empty: name the scores that must not disagree, for example motion: 0.05.")
        for name, tolerance in self.tolerances.items():
            check_range(f"tolerances.{name}", tolerance, least=0.0)
        if self.max_pairs_per_prompt is not None:
            check_range("max_pairs_per_prompt", self.max_pairs_per_prompt, least=1)


def pareto(clips: Sequence[ScoredClip], config: ParetoConfig, *, source: str = "reward") -> Pairing:
    """Pair every two clips of a prompt of which one dominates the other.

    With s_d the score of dimension d and t_d its tolerance, A is better on d where s_d(A) - s_d(B) > t_d and worse
    where s_d(B) - s_d(A) > t_d. A dominates B if it is better on at least one dimension and worse on none.
    N (N - 1) / 2 comparisons a prompt with N usable clips. `labels` hold the verdict of each score. `margin` is the
    mean difference over the dimensions on which the pair differs, each in units of its range over all clips: in (0, 1].

    Args:
        clips: In any order; a clip needs every score.
        config: Tolerances and cap.
        source: Where the labels are from, written into the pairs.

    Raises:
        DataError: There is no clip.
        ConfigError: No clip has one of the scores.
    """
    names = config.score_names
    groups, unused = usable_by_prompt(clips, names)
    scales = normalised_scores(groups, names, "min_max")
    dropped: Counter[str] = Counter()
    pairs: list[PreferencePair] = []
    for prompt, group in groups.items():
        rows = zip(group, scales[prompt], strict=True)
        for (first, first_row), (second, second_row) in itertools.combinations(rows, 2):
            labels: dict[str, Label] = {
                name: label_of(first.scores[name] - second.scores[name], config.tolerances[name]) for name in names
            }
            sides = set(labels.values()) - {"tie"}
            if len(sides) != 1:
                dropped[CONTRADICTION if sides else WITHIN] += 1
                continue
            deciding = [name for name in names if labels[name] != "tie"]
            margin = sum(abs(first_row[name] - second_row[name]) for name in deciding) / len(deciding)
            if sides == {"A"}:
                pairs.append(make_pair(first, second, margin=margin, source=source, labels=labels))
            else:
                turned = {name: swapped(label) for name, label in labels.items()}
                pairs.append(make_pair(second, first, margin=margin, source=source, labels=turned))
    pairs, dropped[OVER_CAP] = cap_per_prompt(pairs, config.max_pairs_per_prompt)
    return pairing_of(pairs, dropped, unused)
