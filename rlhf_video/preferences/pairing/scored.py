"""What every rule takes and gives: scored clips in, preference pairs out, and a count of everything left behind."""

import difflib
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rlhf_video.errors import ConfigError, DataError
from rlhf_video.preferences.pair import OVERALL, ClipRecord, Label, PreferencePair

TIED = "the scores are equal"
SMALL_MARGIN = "the margin is below min_margin"
OVER_CAP = "over the cap of its prompt"
ALONE = "no second clip of its prompt"
SAME_FILE = "same file as another clip of its prompt"


@dataclass(frozen=True)
class ScoredClip:
    """One generated clip with its scores."""

    prompt: str
    """What it was generated from; only clips of the same prompt, letter by letter, are compared."""
    clip: ClipRecord
    """The file, relative to the folder that the pairs will be written to."""
    scores: Mapping[str, float]
    """Score by name, HIGHER IS BETTER: whoever fills it in negates a reward whose spec says that lower is better.
    A masked sample is left out or NaN; a rule that needs the score then leaves the clip out, counted."""


@dataclass(frozen=True)
class Pairing:
    """The pairs that a rule made, and what became of everything else.

    A comparison is two clips that the rule looked at; each became one pair or one count in `dropped`. An input (a
    clip, or a vote) took part in some comparison or is one count in `unused`.
    """

    pairs: tuple[PreferencePair, ...]
    """In the order of (prompt, SHA-256 of A, SHA-256 of B), A being the clip with the smaller SHA-256: which side a
    clip is on says nothing about it, and the order of the inputs changes nothing."""
    dropped: Mapping[str, int]
    """Reason -> number of comparisons that gave no pair."""
    unused: Mapping[str, int] = field(default_factory=dict)
    """Reason -> number of inputs that were compared with nothing."""

    @property
    def num_comparisons(self) -> int:
        """Return how many comparisons the rule looked at."""
        return len(self.pairs) + sum(self.dropped.values())


def pairing_of(pairs: Iterable[PreferencePair], dropped: Mapping[str, int], unused: Mapping[str, int]) -> Pairing:
    """Return the pairing in its order, reasons sorted, those that never happened left out."""
    ordered = sorted(pairs, key=lambda pair: (pair.prompt, pair.a.sha256, pair.b.sha256))
    return Pairing(tuple(ordered), _happened(dropped), _happened(unused))


def usable_by_prompt(
    clips: Sequence[ScoredClip], names: Sequence[str]
) -> tuple[dict[str, list[ScoredClip]], Counter[str]]:
    """Return the clips that can be compared, by prompt, and how many cannot, by reason.

    Args:
        clips: In any order.
        names: Scores that the rule reads; a clip needs all of them, finite.

    Returns:
        Prompts in sorted order, each with at least two clips in the order of their SHA-256; and the counts.

    Raises:
        DataError: There is no clip.
        ConfigError: No clip has one of the scores.
    """
    if not clips:
        raise DataError("There are no scored clips to build pairs from: generate and score some first.")
    _refuse_unknown(clips, names)
    groups: dict[str, dict[str, ScoredClip]] = {}
    unused: Counter[str] = Counter()
    for scored in sorted(clips, key=lambda scored: (scored.prompt, scored.clip.sha256, scored.clip.path)):
        missing = next((name for name in names if not math.isfinite(scored.scores.get(name, math.nan))), None)
        group = groups.setdefault(scored.prompt, {})
        if missing is not None:
            unused[f"no score '{missing}'"] += 1
        elif scored.clip.sha256 in group:
            unused[SAME_FILE] += 1
        else:
            group[scored.clip.sha256] = scored
    unused[ALONE] = sum(len(group) == 1 for group in groups.values())
    return {prompt: list(group.values()) for prompt, group in groups.items() if len(group) > 1}, unused


def make_pair(
    best: ScoredClip, worst: ScoredClip, *, margin: float, source: str, labels: Mapping[str, Label] | None = None
) -> PreferencePair:
    """Return the pair of a preferred and another clip of one prompt.

    Args:
        best: Preferred clip.
        worst: The other one.
        margin: How much better, >= 0, in the unit of the rule.
        source: Where the label is from.
        labels: Further questions; "A" stands for `best` and is turned where `best` becomes B.
    """
    turned = best.clip.sha256 > worst.clip.sha256
    asked: dict[str, Label] = {**(labels or {}), OVERALL: "A"}
    return PreferencePair(
        prompt=best.prompt,
        a=worst.clip if turned else best.clip,
        b=best.clip if turned else worst.clip,
        labels={name: swapped(label) if turned else label for name, label in asked.items()},
        margin=margin,
        source=source,
    )


def swapped(label: Label) -> Label:
    """Return the label after A and B changed places."""
    if label == "A":
        return "B"
    return "A" if label == "B" else label


def refused_margin(margin: float, least: float) -> str | None:
    """Return why a margin is too small, None where it is not; a margin of exactly 0 prefers nobody."""
    if margin <= 0.0:
        return TIED
    return SMALL_MARGIN if margin < least else None


def cap_per_prompt(pairs: Iterable[PreferencePair], most: int | None) -> tuple[list[PreferencePair], int]:
    """Keep the first `most` pairs of every prompt, largest margin first, then by the hashes of the clips.

    Returns:
        The pairs kept, and how many were not.
    """
    ordered = sorted(pairs, key=lambda pair: (pair.prompt, -(pair.margin or 0.0), pair.a.sha256, pair.b.sha256))
    grouped = itertools.groupby(ordered, key=lambda pair: pair.prompt)
    kept = [pair for _, group in grouped for pair in itertools.islice(group, most)]
    return kept, len(ordered) - len(kept)


def _happened(counts: Mapping[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in sorted(counts.items()) if count}


def _refuse_unknown(clips: Sequence[ScoredClip], names: Sequence[str]) -> None:
    known = sorted({name for scored in clips for name in scored.scores})
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise ConfigError(f"No clip has a score '{name}'.{hint} Known: {', '.join(known) or 'none'}.")
