"""How votes stand between systems, remembered for a while: the sampler asks at every assignment, and may be late."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from app.database.tables import Study
from app.voting.clean_votes import clean_votes
from app.voting.pair_table import Systems
from rlhf_video.preferences.pair import OVERALL

AGE = timedelta(seconds=30)


class OutcomeTally:
    """Wins, ties and losses by study; used by the writer's thread alone."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[datetime, Mapping[Systems, tuple[int, int, int]]]] = {}

    def outcomes(self, session: Session, study: Study, now: datetime) -> Mapping[Systems, tuple[int, int, int]]:
        """Return wins, ties and losses of the overall question for each pair of systems, at most `AGE` old."""
        known = self._known.get(study.id)
        if known is None or now - known[0] > AGE:
            known = self._known[study.id] = (now, _count(session, study))
        return known[1]


def _count(session: Session, study: Study) -> dict[Systems, tuple[int, int, int]]:
    counts: dict[Systems, Counter[str]] = {}
    for vote in clean_votes(session, study):
        # Whoever of the two has the lower name is first; the variance does not depend on it.
        is_swapped = vote.systems[0] > vote.systems[1]
        answer = "tie" if vote.both_bad else vote.answers.get(OVERALL, "tie")
        word = {"A": "B", "B": "A"}.get(answer, answer) if is_swapped else answer
        counts.setdefault(frozenset(vote.system_ids), Counter())[word] += 1
    return {systems: (count["A"], count["tie"], count["B"]) for systems, count in counts.items()}
