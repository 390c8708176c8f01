"""Preference pairs for training: read, checked, dealt by prompt, the preferred clip first."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_video.algorithms.dpo_config import DpoConfig, DpoPairsConfig
from rlhf_video.errors import DataError
from rlhf_video.preferences import (
    ClipRecord,
    Label,
    PreferencePair,
    PreferenceStore,
    audit_pairs,
    refuse_shared_prompts,
    split_by_prompt,
)

logger = logging.getLogger(__name__)

NOBODY = float("nan")
"""Preference where nobody said."""


@dataclass(frozen=True)
class LabelledPair:
    """A pair whose preferred clip stands first."""

    prompt: str
    chosen: ClipRecord
    rejected: ClipRecord
    preference: tuple[float, ...]
    """Of each segment: probability that `chosen` is better; 0.5 a tie, NaN where nobody said."""
    stretches: tuple[tuple[int, int], ...]
    """Pixel frames [start, stop) of each segment; empty where the whole clips are compared."""
    weight: float
    """How often it counts, above 0."""
    both_bad: tuple[int, ...] = ()
    """Numbers of segments in which both clips are bad, whose preference is NaN; kto alone asks for them."""

    @property
    def clips(self) -> tuple[ClipRecord, ClipRecord]:
        """Both clips, the preferred one first."""
        return self.chosen, self.rejected

    @property
    def key(self) -> str:
        """Name of its noise: whoever is preferred, prompt and clips give the same."""
        return _digest([self.prompt, *sorted((self.chosen.sha256, self.rejected.sha256))])


@dataclass(frozen=True)
class LabelledPairs:
    """The pairs of one file that say something, and where their clips lie."""

    pairs: tuple[LabelledPair, ...]
    store: PreferenceStore
    field: str
    """Config field that names the file, for messages."""
    dropped: Counter[str]
    """Why others were left out -> how many."""

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pairs)

    @property
    def prompts(self) -> list[str]:
        """Return the prompt of each pair."""
        return [pair.prompt for pair in self.pairs]

    @property
    def sha256(self) -> str:
        """Return a hash of all that training reads of the pairs."""
        facts = [[p.key, p.chosen.sha256, repr(p.preference), p.stretches, p.weight, *p.both_bad] for p in self.pairs]
        return _digest(facts)

    def file(self, clip: ClipRecord) -> Path:
        """Return where a clip lies."""
        return self.store.clip_path(clip)


@dataclass(frozen=True)
class PairParts:
    """What is trained on, and what is only measured."""

    train: LabelledPairs
    validation: LabelledPairs | None


def load_parts(config: DpoConfig) -> PairParts:
    """Read, check, deal and order all pairs, before a model is loaded.

    Raises:
        DataError: A file or a clip is missing or broken, nothing in a part says which clip is better, or a held-out
            prompt is trained on.
    """
    settings = config.pairs
    store = PreferenceStore(settings.train)
    held = 0.0 if settings.validation is not None else settings.validation_share
    dealt = split_by_prompt(_audited(store, settings), {"validation": held, "train": 1 - held}, seed=config.seed)
    stores, fields = dict.fromkeys(dealt, store), dict.fromkeys(dealt, "pairs.train")
    if settings.validation is not None:
        stores["validation"], fields["validation"] = PreferenceStore(settings.validation), "pairs.validation"
        dealt["validation"] = _audited(stores["validation"], settings)
    elif held == 0:
        del dealt["validation"]
    refuse_shared_prompts(dealt)
    parts = {}
    for name, pairs in dealt.items():
        reads_bad = config.loss.kind == "kto" and name == "train"  # held-out pairs measure which clip is better
        parts[name] = label_pairs(pairs, stores[name], settings, field=fields[name], reads_bad=reads_bad)
        _check_says_something(parts[name], name, len(pairs), settings)
        logger.info("%s: %d of %d pairs; left out: %s", name, len(parts[name]), len(pairs), dict(parts[name].dropped))
    return PairParts(parts["train"], parts.get("validation"))


def _audited(store: PreferenceStore, settings: DpoPairsConfig) -> tuple[PreferencePair, ...]:
    """Return the pairs of a file, with its warnings logged.

    Raises:
        DataError: Names every defect of the file and its clips.
    """
    pairs = store.read()
    audit = audit_pairs(pairs, store, questions=(settings.question,), decode=False, hashes=settings.check_hashes)
    audit.refuse_errors()
    if audit.warnings:
        logger.warning("%s", audit.message(only="warning"))
    return pairs


def label_pairs(
    pairs: Sequence[PreferencePair],
    store: PreferenceStore,
    settings: DpoPairsConfig,
    *,
    field: str,
    reads_bad: bool = False,
) -> LabelledPairs:
    """Put the preferred clip of each pair first, and leave out what teaches nothing.

    Args:
        pairs: Pairs of `store`.
        store: Where their clips lie.
        settings: Whose answers count, and what a tie is.
        field: Config field that names the file.
        reads_bad: Whether two bad clips teach something: two thumbs down for kto, nothing for a loss of pairs.
    """
    labelled, dropped = [], Counter[str]()
    for pair in pairs:
        result = _label(pair, settings, reads_bad=reads_bad)
        if isinstance(result, str):
            dropped[result] += 1
        else:
            labelled.append(result)
    return LabelledPairs(tuple(labelled), store, field, dropped)


def _label(pair: PreferencePair, settings: DpoPairsConfig, *, reads_bad: bool) -> LabelledPair | str:
    """Return the pair as training reads it, or why it is left out."""
    if pair.weight == 0:
        return "weight 0"
    share = _share_of_a(pair, settings.question)
    is_bad = share is None and pair.labels.get(settings.question) == "both-bad"
    both_bad: tuple[int, ...] = ()
    if settings.use_segments and pair.segments:
        swaps = share is not None and share < 0.5
        shares = [_of_chosen(_share_of_label(segment.label), swaps) for segment in pair.segments]
        stretches = tuple((segment.start, segment.stop) for segment in pair.segments)
        both_bad = tuple(number for number, segment in enumerate(pair.segments) if segment.label == "both-bad")
    elif share is not None:
        swaps, shares, stretches = share < 0.5, [max(share, 1 - share)], ()
    elif is_bad:
        swaps, shares, stretches, both_bad = False, [NOBODY], (), (0,)
    else:
        return "no answer to the question"
    if settings.ties == "drop":
        shares = [NOBODY if share == 0.5 else share for share in shares]
    both_bad = both_bad if reads_bad else ()
    if all(share != share for share in shares) and not both_bad:
        return "both bad" if is_bad else "tie"
    chosen, rejected = reversed(pair.clips) if swaps else pair.clips
    return LabelledPair(pair.prompt, chosen, rejected, tuple(shares), stretches, pair.weight, both_bad)


def _share_of_a(pair: PreferencePair, question: str) -> float | None:
    """Return the probability that A is the better clip; None where nobody said so or both are bad."""
    if question in pair.soft:
        return pair.soft[question]
    if question not in pair.labels:
        return None
    share = _share_of_label(pair.labels[question])
    return None if share != share else share


def _share_of_label(label: Label) -> float:
    return {"A": 1.0, "B": 0.0, "tie": 0.5, "both-bad": NOBODY}[label]


def _of_chosen(share_of_a: float, swaps: bool) -> float:
    return 1 - share_of_a if swaps else share_of_a


def _check_says_something(part: LabelledPairs, name: str, count: int, settings: DpoPairsConfig) -> None:
    """Refuse a part without a winner.

    Raises:
        DataError: Says what the pairs hold instead.
    """
    decided = sum(any(share != 0.5 and share == share for share in p.preference) for p in part.pairs)
    if decided:
        return
    reasons = ", ".join(f"{number} {reason}" for reason, number in part.dropped.most_common()) or "none"
    raise DataError(
        f"The {name} part of '{part.store.path}' holds no winner of '{settings.question}': {count} pairs, left out: "
        f"{reasons}. Add pairs of more prompts with a winner, or change pairs.question, pairs.validation_share or seed."
    )


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
