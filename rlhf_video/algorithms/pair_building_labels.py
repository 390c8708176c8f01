"""From scores to labels where no rule of `preferences.pairing` applies: noisy voters, aligned copies, real clips."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from rlhf_video.algorithms.pair_building_clips import Batch
from rlhf_video.algorithms.pair_building_config import RaterConfig, RenoisingConfig
from rlhf_video.algorithms.pair_building_scores import ClipScores, Span
from rlhf_video.preferences import OVERALL, Label, PreferencePair, SegmentLabel
from rlhf_video.preferences.pairing import Pairing, ScoredClip, VotesConfig, pairs_from_votes
from rlhf_video.preferences.pairing.scored import SAME_FILE, make_pair, pairing_of
from rlhf_video.preferences.simulated_votes import simulated_votes
from rlhf_video.runtime import generator_for

RATED, ALIGNED, REAL = "synthetic", "partial-renoising", "real-vs-generated"
"""Sources of the labels, in the words of `PreferencePair.source`."""
TIED_EVERYWHERE = "a tie as a whole and in every segment"


def rated(pairing: Pairing, scores: Mapping[str, ClipScores], rater: RaterConfig, *, seed: int) -> Pairing:
    """Return the same pairs with the answers of noisy voters in place of the labels; the margin goes with the labels.

    Args:
        pairing: Pairs of generated clips.
        scores: Clip's path -> its scores.
        rater: What the voters see, and how noisy they are.
        seed: Of the votes; those of a pair depend on nothing but its prompt and clips.
    """
    dropped, pairs = Counter(pairing.dropped), []
    for pair in pairing.pairs:
        a, b = (scores[clip.path].values.get(rater.score) for clip in pair.clips)
        if a is None or b is None:
            dropped[_no_score(rater.score)] += 1
            continue
        (share,) = votes(pair, [a - b], rater, seed=seed)
        answer, soft = {OVERALL: _majority(share)}, {OVERALL: share}
        pairs.append(replace(pair, labels=answer, soft=soft, margin=None, num_votes=rater.voters, source=RATED))
    return pairing_of(pairs, dropped, pairing.unused)


def counted(pairing: Pairing, config: VotesConfig) -> Pairing:
    """Return the pairs that their votes decide; what the rule left out stays counted."""
    # A weight of a rule is not a number of voters.
    decided = pairs_from_votes([replace(pair, weight=1.0) for pair in pairing.pairs], config)
    weights = {_key(pair): pair.weight for pair in pairing.pairs}
    pairs = [replace(pair, weight=weights[_key(pair)]) for pair in decided.pairs]
    return pairing_of(pairs, Counter(pairing.dropped) + Counter(decided.dropped), pairing.unused)


def votes(pair: PreferencePair, gaps: Sequence[float], rater: RaterConfig, *, seed: int) -> list[float]:
    """Return the share of voters who prefer A, for several questions about one pair."""
    rng = np.random.default_rng(generator_for(seed, "votes", pair.prompt, pair.a.path, pair.b.path).initial_seed())
    shares = simulated_votes(gaps, rng, voters=rater.voters, sharpness=rater.sharpness, flips=rater.flips)
    return [float(share) for share in shares]


def aligned_pairs(
    batches: Sequence[Batch],
    tables: Sequence[Sequence[Sequence[ClipScores]]],
    spans: Sequence[Span],
    *,
    config: RenoisingConfig,
    rater: RaterConfig | None,
    seed: int,
) -> Pairing:
    """Pair the two copies of every clip and label whole clips and segments (DenseDPO, arXiv:2506.03517).

    A segment that cannot be scored is left without a label; a pair whose whole clips cannot is dropped.

    Args:
        batches: Copies, each clip's two one after the other.
        tables: Per batch, clip and span the scores.
        spans: The whole clip, then the segments.
        config: Score, and least gap.
        rater: Noisy voters in place of the scores' verdict.
        seed: Of the votes.
    """
    dropped: Counter[str] = Counter()
    pairs: list[PreferencePair] = []
    name = config.score if rater is None else rater.score
    assert name is not None
    for batch, table in zip(batches, tables, strict=True):
        for first in range(0, len(batch), 2):
            sides = sorted(zip(batch[first : first + 2], table[first : first + 2], strict=True), key=_by_hash)
            (a, a_scores), (b, b_scores) = sides
            gaps = [_gap(one, other, name) for one, other in zip(a_scores, b_scores, strict=True)]
            if a.clip.sha256 == b.clip.sha256:
                dropped[SAME_FILE] += 1
            elif gaps[0] is None:
                dropped[_no_score(name)] += 1
            else:
                pair = PreferencePair(
                    prompt=a.prompt, a=a.clip, b=b.clip, labels={OVERALL: "tie"}, margin=abs(gaps[0]), source=ALIGNED
                )
                pair = _labelled(pair, gaps, spans, config.least_gap, rater, seed)
                if all(label == "tie" for label in _labels(pair)):
                    dropped[TIED_EVERYWHERE] += 1
                else:
                    pairs.append(pair)
    return pairing_of(pairs, dropped, {})


def real_pairs(real: Sequence[Batch], generated: Sequence[Batch]) -> Pairing:
    """Prefer each real clip to every clip that was generated for its prompt (GT-Pair of Reg-DPO)."""
    pairs: list[PreferencePair] = []
    by_prompt: dict[str, list[ScoredClip]] = {}
    for item in (item for batch in generated for item in batch):
        by_prompt.setdefault(item.prompt, []).append(ScoredClip(item.prompt, item.clip, {}))
    for item in (item for batch in real for item in batch):
        best = ScoredClip(item.prompt, item.clip, {})
        made = (make_pair(best, worst, margin=0.0, source=REAL) for worst in by_prompt[item.prompt])
        pairs += [replace(pair, margin=None) for pair in made]
    return pairing_of(pairs, {}, {})


def _labelled(
    pair: PreferencePair,
    gaps: Sequence[float | None],
    spans: Sequence[Span],
    least_gap: float,
    rater: RaterConfig | None,
    seed: int,
) -> PreferencePair:
    """Return the pair with the label of the whole clips and those of the segments that have scores."""
    asked = [(span, gap) for span, gap in zip(spans, gaps, strict=True) if gap is not None]
    if rater is None:
        answers = [_opinion(gap, least_gap) for _, gap in asked]
    else:
        shares = votes(pair, [gap for _, gap in asked], rater, seed=seed)
        answers = [_majority(share) for share in shares]
        pair = replace(pair, soft={OVERALL: shares[0]}, margin=None, num_votes=rater.voters)
    segments = tuple(
        SegmentLabel(start=start, stop=stop, label=label)
        for ((start, stop), _), label in zip(asked[1:], answers[1:], strict=True)
    )
    return replace(pair, labels={OVERALL: answers[0]}, segments=segments)


def _key(pair: PreferencePair) -> tuple[str, str, str]:
    return pair.prompt, pair.a.sha256, pair.b.sha256


def _labels(pair: PreferencePair) -> list[Label]:
    return [*pair.labels.values(), *(segment.label for segment in pair.segments)]


def _by_hash(side: tuple) -> str:
    return str(side[0].clip.sha256)


def _gap(a: ClipScores, b: ClipScores, name: str) -> float | None:
    if name not in a.values or name not in b.values:
        return None
    return a.values[name] - b.values[name]


def _opinion(gap: float, least: float) -> Label:
    return "tie" if abs(gap) <= least else ("A" if gap > 0 else "B")


def _majority(share: float) -> Label:
    return "tie" if share == 0.5 else ("A" if share > 0.5 else "B")


def _no_score(name: str) -> str:
    return f"a clip has no score '{name}'"
