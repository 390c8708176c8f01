"""How likely it is that a rater does not judge: points for each thing that honest raters hardly do, added up.

TTS-Arena scores requests in this way, stores what looks wrong and leaves it out in silence ("shadow"), so that
whoever attacks learns nothing. Here no point is given for a browser's name. Another taste than the others' is not
enough: what taste, a quick hand and a shared network explain stays below the line together, or a board would only ever
hear its majority.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from app.quality.gold_results import is_right
from app.quality.judgements import Judgement
from app.quality.risk_policy import RiskPolicy
from app.voting.votes import CLOCK_SLACK
from rlhf_video.stats import Comparisons, RaterSuspicion, SideBias, find_outliers, holm, side_bias


@dataclass(frozen=True)
class Signal:
    """One thing that was seen."""

    name: str
    points: float
    told: str
    """For people."""


@dataclass(frozen=True)
class Risk:
    """What speaks against one rater."""

    rater: str
    """Id."""
    signals: tuple[Signal, ...]
    """Most points first."""
    sides: SideBias
    suspicion: RaterSuspicion | None
    """How the votes fit those of the others; None with few, or while they are left out."""

    @property
    def score(self) -> float:
        """All points."""
        return sum(signal.points for signal in self.signals)


def assess(
    judgements: Sequence[Judgement],
    *,
    networks: Mapping[str, frozenset[str]],
    excluded: frozenset[str] = frozenset(),
    policy: RiskPolicy | None = None,
) -> dict[str, Risk]:
    """Return the risk of every rater of a study.

    Args:
        judgements: In the order in which they were stored.
        networks: Keyed hash of a network and day -> ids of its raters.
        excluded: Raters who are left out already: others are not compared with them.
        policy: Limits and points; None for the defaults.
    """
    policy = policy or RiskPolicy()
    of_rater: dict[str, list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        of_rater[judgement.rater].append(judgement)
    raters = sorted(of_rater)
    sides = {rater: sides_of(of_rater[rater]) for rater in raters}
    adjusted = dict(zip(raters, holm([sides[rater].p_value for rater in raters]).tolist(), strict=True))
    gold = {rater: gold_counts(of_rater[rater]) for rater in raters}
    all_right, all_gold = (sum(counts[index] for counts in gold.values()) for index in (0, 1))
    own: dict[str, list[Signal]] = {}
    for rater in raters:
        right, total = gold[rater]
        others = (all_right - right + policy.gold_prior[0]) / (all_gold - total + sum(policy.gold_prior))
        found = [
            _pace(of_rater[rater], policy),
            *_haste(of_rater[rater], policy),
            _shared(rater, networks, policy),
            _gold(right, total, min(others, policy.gold_ceiling), policy),
            _side(sides[rater], adjusted[rater], policy),
        ]
        own[rater] = [signal for signal in found if signal]
    # Whoever is out by now must not make the others look odd, nor may a ring.
    out = excluded | {rater for rater in raters if sum(each.points for each in own[rater]) >= policy.shadow_at}
    rings = _rings([each for each in judgements if each.rater not in out], networks, policy)
    counted = [each for each in judgements if each.rater not in out and each.rater not in rings]
    suspicions = _outliers(counted, policy)
    risks = {}
    for rater in raters:
        signals = [*own[rater], rings.get(rater), _outlier(suspicions.get(rater), len(raters), policy)]
        ordered = sorted((each for each in signals if each), key=lambda signal: -signal.points)
        risks[rater] = Risk(rater, tuple(ordered), sides[rater], suspicions.get(rater))
    return risks


def gold_counts(judgements: Sequence[Judgement]) -> tuple[int, int]:
    """Return the gold pairs answered right, and in all; answers that say nothing are left out."""
    verdicts = [is_right(each.answers, each.expected) for each in judgements if each.expected is not None]
    marks = [verdict for verdict in verdicts if verdict is not None]
    return sum(marks), len(marks)


def sides_of(judgements: Sequence[Judgement]) -> SideBias:
    """Return how often the left clip was preferred overall."""
    counts = Counter(each.side for each in judgements)
    return side_bias(counts["left"], counts["right"])


def comparisons_of(judgements: Sequence[Judgement], *, least_pair_votes: int = 0) -> Comparisons | None:
    """Return the overall answers to real pairs as a table; None where there are none.

    Args:
        judgements: Of any kind.
        least_pair_votes: Votes on two systems, for these to be in it.
    """
    rows = [
        (*each.systems, each.overall, each.rater)
        for each in judgements
        if each.is_real and each.systems is not None and each.overall is not None
    ]
    count = Counter(frozenset(row[:2]) for row in rows)
    kept = [row for row in rows if count[frozenset(row[:2])] >= least_pair_votes]
    if not kept:
        return None
    first, second, words, raters = zip(*kept, strict=True)
    return Comparisons.from_labels(first, second, words, raters=np.array(raters))


def _outliers(judgements: Sequence[Judgement], policy: RiskPolicy) -> dict[str, RaterSuspicion]:
    table = comparisons_of(judgements, least_pair_votes=policy.least_pair_votes)
    return {} if table is None else {str(each.rater): each for each in find_outliers(table)}


def _rings(
    judgements: Sequence[Judgement], networks: Mapping[str, frozenset[str]], policy: RiskPolicy
) -> dict[str, Signal]:
    """Return a signal for each rater of a network whose raters together push one system."""
    there = {each.rater for each in judgements}
    groups: list[frozenset[str]] = []
    for raters in sorted((raters & there for raters in networks.values()), key=sorted):
        met = [group for group in groups if group & raters]  # somebody was in both: one group
        groups = [group for group in groups if group not in met] + [raters.union(*met)]
    groups = [group for group in groups if len(group) >= policy.shared_raters[0]]
    rings: dict[str, Signal] = {}
    while True:
        counted = [each for each in judgements if each.rater not in rings]
        pushes = [(group, *_push(counted, group, policy)) for group in groups if not group & rings.keys()]
        group, system, z, share = max(pushes, key=lambda push: push[2], default=(frozenset[str](), "", 0.0, 0.0))
        if z < policy.ring_z:
            return rings
        told = f"{len(group)} raters of one network give {system} {share:.0%} of the points (z = {z:.1f})"
        rings.update(dict.fromkeys(group, Signal("ring", policy.ring_points, told)))


def _push(judgements: Sequence[Judgement], group: frozenset[str], policy: RiskPolicy) -> tuple[str, float, float]:
    """Return the system that a group prefers most beyond the others, by how many standard errors, and its points.

    Per opponent the group's points are compared with the others' (two samples, as in Mantel and Haenszel's test), so a
    system that everybody prefers is no push.
    """
    # (system, opponent) -> [points and votes of the group, points and votes of the others]
    counts: dict[tuple[str, str], np.ndarray] = defaultdict(lambda: np.zeros((2, 2)))
    for each in judgements:
        if each.is_real and each.systems is not None and each.overall is not None:
            points = {"A": 1.0, "tie": 0.5, "B": 0.0}[each.overall]
            row = 0 if each.rater in group else 1
            counts[each.systems][row] += (points, 1.0)
            counts[each.systems[::-1]][row] += (1.0 - points, 1.0)
    found = []
    for system in {name for name, _ in counts}:
        table = np.array([cell for (name, _), cell in counts.items() if name == system and cell[:, 1].all()])
        if not len(table) or table[:, 0, 1].sum() < policy.ring_votes:
            continue
        (points, votes), (other_points, other_votes) = table[:, 0].T, table[:, 1].T
        usual = (other_points + 1.0) / (other_votes + 2.0)
        spread = math.sqrt(float((votes * usual * (1.0 - usual) * (1.0 + votes / other_votes)).sum()))
        share = float(points.sum() / votes.sum())
        if share >= policy.ring_share:
            found.append((system, float((points - votes * usual).sum()) / spread, share))
    return max(found, key=lambda push: push[1], default=("", 0.0, 0.0))


def _pace(judgements: Sequence[Judgement], policy: RiskPolicy) -> Signal | None:
    times = np.sort([each.stored_at.timestamp() for each in judgements])
    for name, windows, points in (
        ("hasty", policy.hasty_windows, policy.hasty_points),
        ("busy", policy.busy_windows, policy.busy_points),
    ):
        for seconds, limit in windows:
            most = int((np.searchsorted(times, times + seconds, side="left") - np.arange(len(times))).max())
            if most > limit:
                return Signal(name, points, f"{most} votes within {seconds:g} s")
    return None


def _haste(judgements: Sequence[Judgement], policy: RiskPolicy) -> list[Signal]:
    timed = [each for each in judgements if math.isfinite(each.decision_s)]
    if len(timed) < policy.least_timed:
        return []
    signals = []
    early = sum(each.decision_s < CLOCK_SLACK * each.least_s for each in timed) / len(timed)
    if early >= policy.early_share:
        signals.append(Signal("early", policy.early_points, f"{early:.0%} of votes before the clips had played"))
    snaps = sum(each.decision_s < max(policy.snap_s, each.least_s + policy.reaction_s) for each in timed) / len(timed)
    if snaps >= policy.snap_share:
        middle = median(each.decision_s for each in timed)
        signals.append(Signal("snap", policy.snap_points, f"{snaps:.0%} snap decisions, median {middle:.1f} s"))
    return signals


def _shared(rater: str, networks: Mapping[str, frozenset[str]], policy: RiskPolicy) -> Signal | None:
    most = max((len(raters) for raters in networks.values() if rater in raters), default=0)
    for limit, points in sorted(zip(policy.shared_raters, policy.shared_points, strict=True), reverse=True):
        if most >= limit:
            return Signal("shared network", points, f"{most} raters came from one network on one day")
    return None


def _gold(right: int, total: int, honest: float, policy: RiskPolicy) -> Signal | None:
    if total - right < policy.gold_fails:
        return None
    chance = sum(math.comb(total, k) * honest**k * (1 - honest) ** (total - k) for k in range(right + 1))
    for limit, points in (policy.gold_hard, policy.gold_soft):
        if chance < limit:
            told = f"{right} of {total} gold pairs right; {honest:.0%} is usual (p = {chance:.2g})"
            return Signal("gold", points, told)
    return None


def _outlier(suspicion: RaterSuspicion | None, num_raters: int, policy: RiskPolicy) -> Signal | None:
    if suspicion is None:
        return None
    limit, points = policy.outlier
    if suspicion.evidence < num_raters / limit:
        return None
    return Signal("outlier", points, f"votes {suspicion.suspicion} (evidence {suspicion.evidence:.3g})")


def _side(sides: SideBias, adjusted: float, policy: RiskPolicy) -> Signal | None:
    if adjusted >= policy.side_alpha:
        return None
    side, share = max((("left", sides.left_share), ("right", 1.0 - sides.left_share)), key=lambda each: each[1])
    points = policy.one_side_points if share >= policy.side_share else policy.side_points
    return Signal("side", points, f"{share:.0%} of {sides.num_votes} choices are the {side} clip (p = {adjusted:.2g})")
