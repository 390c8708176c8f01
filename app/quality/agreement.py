"""How far raters agree on each question of a study: the ceiling for systems, rewards and the board's certainty."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from app.voting.clean_votes import CleanVote
from rlhf_video.errors import DataError
from rlhf_video.preferences.pair import OVERALL
from rlhf_video.stats import Interval, krippendorff_alpha, leave_one_rater_out, percent_agreement
from rlhf_video.stats.krippendorff_alpha import AlphaMetric

_VALUE = {"A": 1, "tie": 0, "B": -1}


@dataclass(frozen=True)
class QuestionAgreement:
    """One question; a number is None where no pair has two raters, or everyone said the same."""

    question: str
    num_votes: int
    num_pairs: int
    """Pairs with two raters or more."""
    num_raters: int
    alpha_ordinal: Interval | None
    """Krippendorff's alpha; a tie lies between A and B, so it disagrees half."""
    alpha_nominal: Interval | None
    """The same; a tie is an answer as any other."""
    percent: float | None
    """Share of pairs of answers that agree, in [0, 1]; chance included."""
    ceiling: Interval | None
    """How often one rater says what most others say: what a model that imitates people can reach at best."""
    ceiling_without_ties: Interval | None
    """The same among decided answers."""


def question_agreement(votes: Sequence[CleanVote]) -> tuple[QuestionAgreement, ...]:
    """Return the agreement on every question that was answered, sorted by name, overall first.

    Args:
        votes: Those that count, in the order in which they came; a rater's first answer to a pair stands.
    """
    names = sorted({name for vote in votes for name in vote.answers}, key=lambda name: (name != OVERALL, name))
    return tuple(_agreement(votes, name) for name in names)


def _agreement(votes: Sequence[CleanVote], question: str) -> QuestionAgreement:
    first: dict[tuple[str, str], tuple[int, str]] = {}
    for vote in votes:
        answer = "tie" if vote.both_bad and question == OVERALL else vote.answers.get(question)
        if answer is not None:
            first.setdefault((vote.pair, vote.rater), (_VALUE[answer], vote.prompt))
    rows = [(pair, rater, value, prompt) for (pair, rater), (value, prompt) in first.items()]
    return QuestionAgreement(
        question=question,
        num_votes=len(rows),
        num_pairs=sum(count > 1 for count in Counter(row[0] for row in rows).values()),
        num_raters=len({row[1] for row in rows}),
        alpha_ordinal=_alpha(rows, "ordinal"),
        alpha_nominal=_alpha(rows, "nominal"),
        percent=_percent(rows),
        ceiling=_ceiling(rows),
        ceiling_without_ties=_ceiling([row for row in rows if row[2] != 0]),
    )


_Rows = Sequence[tuple[str, str, int, str]]  # pair, rater, answer, prompt


def _alpha(rows: _Rows, metric: AlphaMetric) -> Interval | None:
    pairs, raters, answers, _ = zip(*rows, strict=True)
    try:
        return krippendorff_alpha(pairs, raters, answers, metric=metric)
    except DataError:
        return None


def _percent(rows: _Rows) -> float | None:
    pairs, raters, answers, _ = zip(*rows, strict=True)
    try:
        return percent_agreement(pairs, raters, answers)
    except DataError:
        return None


def _ceiling(rows: _Rows) -> Interval | None:
    if not rows:
        return None
    pairs, raters, answers, prompts = zip(*rows, strict=True)
    try:
        return leave_one_rater_out(pairs, raters, answers, prompts, num_resamples=2_000)
    except DataError:
        return None
