"""Looking over all studies for raters who do not judge, every minute while the server runs."""

import contextlib
import logging
import threading
from collections import defaultdict
from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.arena_state import Arena
from app.database.audit_log import read_head
from app.database.tables import Assignment, Exclusion, Rater, RaterSession, Study
from app.database.writer import DatabaseUnavailableError
from app.quality.exclusions import exclude
from app.quality.judgements import read_judgements
from app.quality.risk import Risk, assess
from app.quality.risk_policy import RiskPolicy
from app.voting.clean_votes import active_exclusions

logger = logging.getLogger(__name__)
ACTOR = "sweep"
REASON = "risk"


def networks_of(session: Session, study: Study) -> dict[str, frozenset[str]]:
    """Return keyed hash of a network and day -> ids of the raters of a study who came from it, without test raters."""
    rows = session.execute(
        select(RaterSession.network_sha256, RaterSession.rater_id)
        .join(Rater, Rater.id == RaterSession.rater_id)
        .where(RaterSession.network_sha256.is_not(None), Rater.is_test.is_(False))
        .where(RaterSession.rater_id.in_(select(Assignment.rater_id).where(Assignment.study_id == study.id)))
    )
    networks: dict[str, set[str]] = defaultdict(set)
    for network, rater in rows:
        assert network is not None
        networks[network].add(rater)
    return {network: frozenset(raters) for network, raters in networks.items()}


def study_risks(session: Session, study: Study, *, policy: RiskPolicy | None = None) -> dict[str, Risk]:
    """Return the risk of every rater of a study, by id."""
    return assess(
        read_judgements(session, study),
        networks=networks_of(session, study),
        excluded=frozenset(active_exclusions(session)[1]),
        policy=policy,
    )


def sweep(arena: Arena, *, policy: RiskPolicy | None = None) -> list[str]:
    """Leave out the votes of raters above the line; one whom an admin took in again is left to people.

    Args:
        arena: Open for writing.
        policy: Limits and points; None for the defaults.

    Returns:
        Ids of the raters that are newly excluded.

    Raises:
        DatabaseUnavailableError: It takes no write.
    """
    policy = policy or RiskPolicy()
    risky: dict[str, Risk] = {}
    with arena.reading() as session:
        for study in session.scalars(select(Study).where(Study.status != "closed")):
            for rater, risk in study_risks(session, study, policy=policy).items():
                if risk.score >= policy.shadow_at:
                    risky[rater] = max(risk, risky.get(rater, risk), key=lambda each: each.score)

    def change(session: Session) -> list[str]:
        active = select(Exclusion.rater_id).where(Exclusion.rater_id.is_not(None), Exclusion.lifted_at.is_(None))
        reviewed = select(Exclusion.rater_id).where(Exclusion.actor == ACTOR, Exclusion.lifted_at.is_not(None))
        known = {*session.scalars(active), *session.scalars(reviewed)}
        new = [risky[rater] for rater in sorted(risky) if rater not in known]
        for risk in new:
            signals = [{"name": each.name, "points": each.points, "told": each.told} for each in risk.signals]
            exclude(
                session,
                actor=ACTOR,
                reason=REASON,
                rater_id=risk.rater,
                score=risk.score,
                details={"signals": signals},
            )
        return [risk.rater for risk in new]

    return arena.writer.run(change) if risky else []


@contextlib.contextmanager
def sweeping(arena: Arena, *, every_s: float) -> Iterator[None]:
    """Sweep in a thread of its own for as long as the server runs, whenever something was stored since.

    Args:
        arena: Open for writing.
        every_s: Seconds between two looks; 0 for none at all.
    """
    stopped = threading.Event()

    def work() -> None:
        seen = -1
        while not stopped.wait(every_s):
            try:
                with arena.reading() as session:
                    head = read_head(session).number
                if head != seen:
                    excluded = sweep(arena)
                    seen = head
                    if excluded:
                        logger.info("Left out the votes of %d raters; the admin page has the reasons", len(excluded))
            except (SQLAlchemyError, DatabaseUnavailableError):
                logger.warning("The database could not be swept; the next look is in %g s", every_s, exc_info=True)

    thread = threading.Thread(target=work, name="arena-sweep", daemon=True)
    if every_s > 0:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        if every_s > 0:
            thread.join()
