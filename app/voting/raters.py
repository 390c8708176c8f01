"""Raters are pseudonyms: a cookie leads to one, and erasing it leaves the tally as it was."""

import hashlib
import json
import secrets
from collections.abc import Set

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.database.audit_log import append_entry
from app.database.tables import AuditEntry, Rater, RaterSession, utc_now

_COLOURS = ("amber", "azure", "coral", "green", "indigo", "ivory", "lilac", "olive", "pearl", "rose", "teal", "umber")
_ANIMALS = ("crane", "dormouse", "finch", "hare", "heron", "lynx", "marten", "newt", "otter", "owl", "plover", "wren")


def new_cookie() -> str:
    """Return a cookie's value that nobody can guess."""
    return secrets.token_urlsafe(32)


def cookie_hash(cookie: str) -> str:
    """Return what is stored of a cookie."""
    return hashlib.sha256(cookie.encode()).hexdigest()


def find_rater(session: Session, cookie: str | None) -> Rater | None:
    """Return whom a cookie belongs to; None where nobody consented with it."""
    if not cookie:
        return None
    return session.scalar(
        select(Rater)
        .join(RaterSession, RaterSession.rater_id == Rater.id)
        .where(RaterSession.cookie_sha256 == cookie_hash(cookie))
    )


def consent(
    session: Session,
    cookie: str,
    *,
    version: str,
    network_sha256: str | None = None,
    external_sha256: str | None = None,
    is_test: bool = False,
) -> Rater:
    """Store that somebody agreed to take part; a known rater agrees again to a new version.

    Args:
        session: Of the writer.
        cookie: The browser's.
        version: Of the text that was agreed to.
        network_sha256: Keyed hash of the network address and the day.
        external_sha256: Keyed hash of a panel's id; the same person on another machine is the same rater. Whoever
            agreed without one before gets it, or becomes the rater who has it already.
        is_test: Never counted.
    """
    rater = find_rater(session, cookie)
    if external_sha256 is not None:
        known = session.scalar(select(Rater).where(Rater.external_sha256 == external_sha256))
        if known is None and rater is not None:
            rater.external_sha256 = external_sha256
        elif known is not None and known is not rater:
            session.execute(delete(RaterSession).where(RaterSession.cookie_sha256 == cookie_hash(cookie)))
            session.add(
                RaterSession(rater_id=known.id, cookie_sha256=cookie_hash(cookie), network_sha256=network_sha256)
            )
            rater = known
    if rater is None:
        rater = Rater(pseudonym=_pseudonym(), external_sha256=external_sha256, consent_version=version, is_test=is_test)
        session.add(rater)
        session.flush()
        session.add(RaterSession(rater_id=rater.id, cookie_sha256=cookie_hash(cookie), network_sha256=network_sha256))
    rater.consent_version, rater.consented_at = version, utc_now()
    append_entry(
        session, actor=rater.pseudonym, action="rater.consented", subject=rater.id, details={"version": version}
    )
    return rater


def is_somebody_else(rater: Rater, external_sha256: str | None) -> bool:
    """Return whether a panel's id says that not this rater sits at their browser; without one nobody knows."""
    return external_sha256 is not None and rater.external_sha256 not in (None, external_sha256)


def agreed_versions(session: Session, rater: Rater, wanted: Set[str]) -> Set[str]:
    """Return which of some versions of the study information a rater has agreed to, the last one or an earlier one.

    Args:
        session: Only read from.
        rater: Who.
        wanted: Versions of the studies that are asked about.
    """
    if wanted <= {rater.consent_version}:
        return wanted  # the usual case: the audit log is long, and has no index for this
    entries = session.scalars(
        select(AuditEntry.details).where(AuditEntry.action == "rater.consented", AuditEntry.subject == rater.id)
    )
    return wanted & {rater.consent_version, *(json.loads(details)["version"] for details in entries)}


def erase(session: Session, rater: Rater) -> None:
    """Cut every link between a rater and a person: sessions, panel's id, pseudonym. Votes stay, of nobody."""
    session.execute(delete(RaterSession).where(RaterSession.rater_id == rater.id))
    rater.external_sha256 = None
    rater.pseudonym = f"erased-{secrets.token_hex(8)}"
    rater.status = "erased"
    append_entry(session, actor="rater", action="rater.erased", subject=rater.id, details={})


def _pseudonym() -> str:
    return f"{secrets.choice(_COLOURS)}-{secrets.choice(_ANIMALS)}-{secrets.token_hex(3)}"
