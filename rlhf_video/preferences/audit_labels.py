"""Defects that show in the answers alone: none, twice, contradictory, or always the same."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from rlhf_video.preferences.finding import Finding, pair_name
from rlhf_video.preferences.pair import ClipRecord, PreferencePair
from rlhf_video.preferences.store import prompt_key

ONE_SIDED_LEAST = 12
"""Decided pairs from which one-sidedness is reported: by chance one side wins all of 12 once in 2048 sets."""


def label_findings(pairs: Sequence[PreferencePair], questions: Sequence[str]) -> list[Finding]:
    """Return the defects of a set of answers.

    Args:
        pairs: Pairs in file order.
        questions: Questions that are to be trained on.
    """
    if not pairs:
        return [Finding("empty", "error", "there are no pairs", "Build or import some.")]
    findings = []
    answers = count_answers(pairs, questions)
    if not answers["decided"]:
        findings.append(
            Finding(
                "undecided",
                "error",
                f"no pair has a winner of {' or '.join(questions)} ({answers['undecided']} ties or both-bad, "
                f"{answers['unanswered']} unanswered)",
                f"Ask another question (answered: {', '.join(_asked(pairs)) or 'none'}), or get votes that decide.",
            )
        )
    if not any(pair.weight for pair in pairs):
        findings.append(Finding("weights", "error", "every weight is 0", "Give at least one pair a weight above 0."))
    return [*findings, *_repeats(pairs, questions), *_one_sided(pairs, questions)]


def count_answers(pairs: Sequence[PreferencePair], questions: Sequence[str]) -> dict[str, int]:
    """Count pairs by answer: decided, undecided, unanswered."""
    counts = {"decided": 0, "undecided": 0, "unanswered": 0}
    for pair in pairs:
        if any(pair.winner(question) for question in questions) or any(s.label in ("A", "B") for s in pair.segments):
            counts["decided"] += 1
        elif pair.segments or any(question in pair.labels or question in pair.soft for question in questions):
            counts["undecided"] += 1
        else:
            counts["unanswered"] += 1
    return counts


def _asked(pairs: Sequence[PreferencePair]) -> list[str]:
    return sorted({question for pair in pairs for question in (*pair.labels, *pair.soft)})


def _repeats(pairs: Sequence[PreferencePair], questions: Sequence[str]) -> Iterator[Finding]:
    """Find comparisons of the same two clips for the same prompt, in either order, and those that contradict."""
    seen: dict[tuple[str, frozenset[str]], list[int]] = defaultdict(list)
    for index, pair in enumerate(pairs):
        seen[prompt_key(pair.prompt), frozenset((pair.a.sha256, pair.b.sha256))].append(index)
    repeated = [group for group in seen.values() if len(group) > 1]
    opposite = [(group, q) for group in repeated for q in questions if len(_winners(pairs, group, q)) > 1]
    broken = {group[0] for group, _ in opposite}
    if opposite:
        yield Finding(
            "contradictions",
            "error",
            f"{len(opposite)} comparisons have opposite answers",
            "Merge each into one pair with a soft label (the share of A) and num_votes.",
            tuple(f"{_names(group)} about {question}" for group, question in opposite),
        )
    plain = [group for group in repeated if group[0] not in broken]
    if plain:
        surplus = sum(len(group) - 1 for group in plain)
        yield Finding(
            "duplicates",
            "warning",
            f"{surplus} pairs repeat another one (same prompt and clips, sides swapped or not)",
            "Keep one of each: a pair that is to count twice has the field `weight`.",
            tuple(_names(group) for group in plain),
        )


def _winners(pairs: Sequence[PreferencePair], group: Sequence[int], question: str) -> set[str]:
    """Return the hashes of the clips that won one question in any pair of a group."""
    winners = (_winner(pairs[index], question) for index in group)
    return {clip.sha256 for clip in winners if clip is not None}


def _winner(pair: PreferencePair, question: str) -> ClipRecord | None:
    side = pair.winner(question)
    return None if side is None else (pair.a if side == "A" else pair.b)


def _names(group: Sequence[int]) -> str:
    return ", ".join(pair_name(index) for index in group)


def _one_sided(pairs: Sequence[PreferencePair], questions: Sequence[str]) -> Iterator[Finding]:
    """Find questions whose winner is always on one side, or always of one maker while the loser never is."""
    for question in questions:
        decided = [pair for pair in pairs if pair.winner(question)]
        if len(decided) < ONE_SIDED_LEAST:
            continue
        sides = {pair.winner(question) for pair in decided}
        if len(sides) == 1:
            yield Finding(
                "one-sided",
                "warning",
                f"clip {sides.pop()} wins {question} in all {len(decided)} decided pairs",
                "Check that the label column was read rightly; a judge that sees A first would learn the side.",
            )
        winners = {_maker(pair.a if pair.winner(question) == "A" else pair.b) for pair in decided}
        losers = {_maker(pair.b if pair.winner(question) == "A" else pair.a) for pair in decided}
        if len(winners) == 1 and None not in winners and not winners & losers:
            yield Finding(
                "one-model",
                "warning",
                f"the winner of {question} is always of {winners.pop()}, the loser never",
                "Fine where that is meant (real against generated clips); else the model's look is learnt instead of "
                "quality: add pairs within one model.",
            )


def _maker(clip: ClipRecord) -> str | None:
    """Return what made a clip; None where the record does not say."""
    if clip.model is None:
        return None
    return clip.model if clip.adapter is None else f"{clip.model} with {clip.adapter}"
