"""What a study knows of each of its raters: plain rows for the admins' page."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.database.tables import Assignment, Rater, Refusal, Study
from app.quality.judgements import Judgement, read_judgements
from app.quality.risk import Risk, Signal, assess, comparisons_of, gold_counts
from app.quality.sweep import networks_of
from app.voting.clean_votes import active_exclusions
from rlhf_video.errors import DataError
from rlhf_video.stats import Interval, fit_crowd_bt, share_interval


@dataclass(frozen=True)
class RaterReport:
    """One rater of a study. Shares are in [0, 1], and None without a case."""

    rater: str
    """Id."""
    pseudonym: str
    excluded: str | None
    """Why the votes are left out; None where they count."""
    num_votes: int
    """Answers that stand: real, gold and repeated pairs."""
    last_vote_at: datetime
    gold_right: int
    gold_total: int
    gold: Interval | None
    """Share of gold pairs answered right, with a 95% interval."""
    repeats_same: int
    """Repeated pairs, with the sides swapped, that got the same overall answer."""
    repeats_total: int
    left_share: float | None
    """Of decided overall answers."""
    left_p_value: float
    """That fair ones lean so much to a side; not corrected for the number of raters."""
    median_decision_s: float | None
    tie_share: float | None
    """Of overall answers to real pairs."""
    num_skips: int
    num_reports: int
    agreement: float | None
    """Mean share of the other raters of a pair who gave the same overall answer."""
    accuracy: float | None
    """Chance that a vote says what the rater saw, by CrowdBT, from votes and gold pairs; its prior is 0.8."""
    evidence: float | None
    """Against voting as the others do; None with few votes, or while they are left out."""
    suspicion: str | None
    """What the evidence points to."""
    risk: float
    """Points; see risk.py."""
    signals: tuple[Signal, ...]


def rater_reports(session: Session, study: Study) -> tuple[RaterReport, ...]:
    """Return a report on each rater who voted, most risk first, then by pseudonym; test raters are left out.

    Args:
        session: Only read from.
        study: Whose raters.
    """
    judgements = read_judgements(session, study)
    excluded = active_exclusions(session)[1]
    risks = assess(judgements, networks=networks_of(session, study), excluded=frozenset(excluded))
    names = {rater.id: rater.pseudonym for rater in session.scalars(select(Rater).where(Rater.id.in_(risks)))}
    refusals = _refusals(session, study)
    accuracy = _accuracy(judgements)
    others = _answers_by_pair([each for each in judgements if each.rater not in excluded])
    of_rater: dict[str, list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        of_rater[judgement.rater].append(judgement)
    reports = [
        _report(
            mine,
            risks[rater],
            pseudonym=names[rater],
            excluded=excluded.get(rater),
            refusals=refusals[rater],
            accuracy=accuracy.get(rater),
            others=others,
        )
        for rater, mine in of_rater.items()
    ]
    return tuple(sorted(reports, key=lambda report: (-report.risk, report.pseudonym)))


def _report(
    mine: Sequence[Judgement],
    risk: Risk,
    *,
    pseudonym: str,
    excluded: str | None,
    refusals: Counter[str],
    accuracy: float | None,
    others: Mapping[str, Mapping[str, str]],
) -> RaterReport:
    right, total = gold_counts(mine)
    same, repeats = _repeats(mine)
    times = [each.decision_s for each in mine if math.isfinite(each.decision_s)]
    overall = [each.overall for each in mine if each.is_real and each.overall is not None]
    return RaterReport(
        rater=risk.rater,
        pseudonym=pseudonym,
        excluded=excluded,
        num_votes=len(mine),
        last_vote_at=max(each.stored_at for each in mine),
        gold_right=right,
        gold_total=total,
        gold=share_interval([1.0] * right + [0.0] * (total - right), np.arange(total)) if total else None,
        repeats_same=same,
        repeats_total=repeats,
        left_share=risk.sides.left_share if risk.sides.num_votes else None,
        left_p_value=risk.sides.p_value,
        median_decision_s=median(times) if times else None,
        tie_share=overall.count("tie") / len(overall) if overall else None,
        num_skips=refusals["skip"],
        num_reports=refusals["report"],
        agreement=_agreement(mine, others),
        accuracy=accuracy,
        evidence=risk.suspicion.evidence if risk.suspicion else None,
        suspicion=risk.suspicion.suspicion if risk.suspicion else None,
        risk=risk.score,
        signals=risk.signals,
    )


def _refusals(session: Session, study: Study) -> dict[str, Counter[str]]:
    rows = session.execute(
        select(Assignment.rater_id, Refusal.kind, func.count())
        .join(Assignment, Assignment.id == Refusal.assignment_id)
        .where(Assignment.study_id == study.id)
        .group_by(Assignment.rater_id, Refusal.kind)
    )
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for rater, kind, count in rows:
        counts[rater][kind] = count
    return counts


def _repeats(mine: Sequence[Judgement]) -> tuple[int, int]:
    """Return the repeated pairs that got the same overall answer, and all of them."""
    earlier = {each.assignment: each.overall for each in mine}
    again = [(earlier[each.repeats], each.overall) for each in mine if each.repeats in earlier]
    known = [(before, after) for before, after in again if before is not None and after is not None]
    return sum(before == after for before, after in known), len(known)


def _answers_by_pair(judgements: Sequence[Judgement]) -> dict[str, dict[str, str]]:
    """Return pair -> rater -> overall answer of real pairs; a rater's first one stands."""
    answers: dict[str, dict[str, str]] = defaultdict(dict)
    for each in judgements:
        if each.is_real and each.overall is not None:
            answers[each.pair].setdefault(each.rater, each.overall)
    return answers


def _agreement(mine: Sequence[Judgement], others: Mapping[str, Mapping[str, str]]) -> float | None:
    shares = []
    for each in mine:
        answers = [word for rater, word in others.get(each.pair, {}).items() if rater != each.rater]
        if each.is_real and each.overall is not None and answers:
            shares.append(answers.count(each.overall) / len(answers))
    return sum(shares) / len(shares) if shares else None


def _accuracy(judgements: Sequence[Judgement]) -> dict[str, float]:
    """Return each rater's accuracy by CrowdBT; nothing where systems are not connected by decided votes yet."""
    table = comparisons_of(judgements)
    if table is None:
        return {}
    assert table.rater is not None
    gold: dict[str, list[Judgement]] = defaultdict(list)
    for each in judgements:
        gold[each.rater].append(each)
    right, total = np.array([gold_counts(gold[str(rater)]) for rater in np.unique(table.rater)]).T
    try:
        crowd = fit_crowd_bt(table, gold_right=right, gold_total=total)
    except DataError:
        return {}
    return {str(rater): float(value) for rater, value in zip(crowd.raters, crowd.accuracy, strict=True)}
