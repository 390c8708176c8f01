"""The arena's tables. Votes and the audit log are only ever appended to; what changes is a new row.

Which side a clip was shown on belongs to the assignment; answers are stored as A, tie or B of the pair, so no
analysis can mix up sides. Times are UTC. Ids are 32 hexadecimal digits; those of votes may have dashes.
"""

import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class UtcTime(TypeDecorator[datetime]):
    """A time with its zone, which SQLite would forget."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse times without a zone; store UTC."""
        if value is None:
            return None
        assert value.tzinfo is not None, "times need a zone"
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the zone back."""
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of every table; constraints are named, so migrations can change them on both databases."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcTime, dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012 SQLAlchemy's name


def new_id() -> str:
    """Return a random id."""
    return uuid.uuid4().hex


def utc_now() -> datetime:
    """Return the time with its zone."""
    return datetime.now(UTC)


Id = String(32)
VoteId = String(36)  # browsers write a UUID with its dashes


class Study(Base):
    """One question to people: which of these systems is better."""

    __tablename__ = "study"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    slug: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    policy: Mapped[dict[str, Any]]  # StudyPolicy
    status: Mapped[str] = mapped_column(String(8), CheckConstraint("status IN ('open', 'paused', 'closed')", "status"))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class System(Base):
    """One competitor: a model, an adapter, a setting. Its name is never sent to a rater before the vote."""

    __tablename__ = "system"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    study_id: Mapped[str] = mapped_column(ForeignKey("study.id"), index=True)
    name: Mapped[str] = mapped_column(String(200))
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("system.id"))  # what its training started from
    export_id: Mapped[str | None] = mapped_column(ForeignKey("export.id"))  # the votes that it was trained on
    origin: Mapped[dict[str, Any]] = mapped_column(default=dict)  # model, adapter, sampler, as the manifest has them
    is_active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    __table_args__ = (UniqueConstraint("study_id", "name"),)


class Prompt(Base):
    """One prompt of a study."""

    __tablename__ = "prompt"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    study_id: Mapped[str] = mapped_column(ForeignKey("study.id"))
    text: Mapped[str] = mapped_column(Text)
    text_sha256: Mapped[str] = mapped_column(String(64))
    tags: Mapped[list[Any]] = mapped_column(default=list)  # categories of the leaderboard
    __table_args__ = (UniqueConstraint("study_id", "text_sha256"),)


class Video(Base):
    """One clip. The file that came in stays as it was; raters see `play_files`."""

    __tablename__ = "video"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    system_id: Mapped[str | None] = mapped_column(ForeignKey("system.id"), index=True)  # None: made for a gold pair
    prompt_id: Mapped[str] = mapped_column(ForeignKey("prompt.id"), index=True)
    sample: Mapped[int] = mapped_column(Integer)  # of the clips of one system for one prompt
    seed: Mapped[int | None] = mapped_column(BigInteger)
    source_path: Mapped[str] = mapped_column(Text)  # below the data folder
    source_sha256: Mapped[str] = mapped_column(String(64), index=True)
    play_files: Mapped[dict[str, Any]]  # media type -> path below the data folder
    fps: Mapped[float]
    num_frames: Mapped[int]
    height: Mapped[int]
    width: Mapped[int]
    features: Mapped[dict[str, Any]] = mapped_column(default=dict)  # motion, brightness, ...: for style control
    __table_args__ = (UniqueConstraint("system_id", "prompt_id", "sample"),)


class Pair(Base):
    """Two clips that raters compare. A has the lower id where both are real."""

    __tablename__ = "pair"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    study_id: Mapped[str] = mapped_column(ForeignKey("study.id"))
    prompt_id: Mapped[str] = mapped_column(ForeignKey("prompt.id"), index=True)
    a_id: Mapped[str] = mapped_column(ForeignKey("video.id"))
    b_id: Mapped[str] = mapped_column(ForeignKey("video.id"))
    kind: Mapped[str] = mapped_column(String(8), CheckConstraint("kind IN ('real', 'gold', 'practice')", "kind"))
    gold: Mapped[str | None] = mapped_column(String(16))  # identical, degraded, prompt-swap
    expected: Mapped[dict[str, Any] | None]  # question -> A, tie or B; None for real pairs
    __table_args__ = (
        UniqueConstraint("prompt_id", "a_id", "b_id", "kind"),
        Index("ix_pair_study_id_kind", "study_id", "kind"),
    )

    a: Mapped[Video] = relationship(foreign_keys=a_id)
    b: Mapped[Video] = relationship(foreign_keys=b_id)
    prompt: Mapped[Prompt] = relationship()


class Rater(Base):
    """A person, by pseudonym alone."""

    __tablename__ = "rater"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    pseudonym: Mapped[str] = mapped_column(String(64), unique=True)
    external_sha256: Mapped[str | None] = mapped_column(String(64), index=True)  # keyed hash of a panel's own id
    consent_version: Mapped[str] = mapped_column(String(32))
    consented_at: Mapped[datetime] = mapped_column(default=utc_now)
    status: Mapped[str] = mapped_column(
        String(8), CheckConstraint("status IN ('active', 'blocked', 'erased')", "status"), default="active"
    )
    is_test: Mapped[bool] = mapped_column(default=False, index=True)  # load tests and browsers' tests: never counted


class RaterSession(Base):
    """A browser of a rater; the cookie itself is not stored."""

    __tablename__ = "rater_session"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    rater_id: Mapped[str] = mapped_column(ForeignKey("rater.id"), index=True)
    cookie_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    network_sha256: Mapped[str | None] = mapped_column(String(64), index=True)  # keyed by the day: not an address
    started_at: Mapped[datetime] = mapped_column(default=utc_now)


class Assignment(Base):
    """One pair shown to one rater, sides and probability included; a lease until it is answered."""

    __tablename__ = "assignment"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    study_id: Mapped[str] = mapped_column(ForeignKey("study.id"))
    pair_id: Mapped[str] = mapped_column(ForeignKey("pair.id"), index=True)
    rater_id: Mapped[str] = mapped_column(ForeignKey("rater.id"), index=True)
    attempt: Mapped[int] = mapped_column(default=0)  # 1 and more: repeats, and pairs whose lease ran out
    repeats: Mapped[str | None] = mapped_column(ForeignKey("assignment.id"))  # the one whose answers it checks
    a_is_left: Mapped[bool]
    probability: Mapped[float] = mapped_column(
        Float, CheckConstraint("probability > 0 AND probability <= 1", "probability")
    )
    num_choices: Mapped[int]  # pairs that could have been drawn; with the probability it undoes the sampling
    policy: Mapped[str] = mapped_column(String(32))  # how it was drawn: sampled, gold, repeat, practice
    issued_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(
        String(8), CheckConstraint("state IN ('open', 'voted', 'skipped', 'reported', 'expired')", "state")
    )
    __table_args__ = (
        UniqueConstraint("pair_id", "rater_id", "attempt"),
        # Covers the count of places that are taken, which every new assignment asks for.
        Index("ix_assignment_places", "study_id", "state", "policy", "pair_id", "rater_id"),
    )

    pair: Mapped[Pair] = relationship()


class Vote(Base):
    """One answer, appended. The vote of an assignment is its highest revision, and none where that is withdrawn."""

    __tablename__ = "vote"
    id: Mapped[str] = mapped_column(VoteId, primary_key=True)  # made by the client, so that a retry is the same vote
    assignment_id: Mapped[str] = mapped_column(ForeignKey("assignment.id"))
    revision: Mapped[int]
    withdrawn: Mapped[bool] = mapped_column(default=False)
    answers: Mapped[dict[str, Any]]  # question -> A, tie or B
    both_bad: Mapped[bool] = mapped_column(default=False)
    moments: Mapped[list[Any]] = mapped_column(default=list)  # {clip: A or B, frame, tag}
    comment: Mapped[str | None] = mapped_column(Text)
    telemetry: Mapped[dict[str, Any]] = mapped_column(default=dict)  # watched, plays, steps, decision time, ...
    body_sha256: Mapped[str] = mapped_column(String(64))  # of what was sent, to tell a retry from another vote
    is_late: Mapped[bool] = mapped_column(default=False)  # after the lease, within the grace
    stored_at: Mapped[datetime]
    __table_args__ = (UniqueConstraint("assignment_id", "revision"),)


class Refusal(Base):
    """Why a rater did not answer: skipped, or reported as broken or unfit."""

    __tablename__ = "refusal"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    assignment_id: Mapped[str] = mapped_column(ForeignKey("assignment.id"), index=True)
    kind: Mapped[str] = mapped_column(String(8), CheckConstraint("kind IN ('skip', 'report')", "kind"))
    reason: Mapped[str] = mapped_column(String(64))
    note: Mapped[str | None] = mapped_column(Text)
    stored_at: Mapped[datetime] = mapped_column(default=utc_now)


class Exclusion(Base):
    """A vote or a rater that analyses leave out, why, and by whom; lifting it is possible and stays visible."""

    __tablename__ = "exclusion"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    vote_id: Mapped[str | None] = mapped_column(ForeignKey("vote.id"), index=True)
    rater_id: Mapped[str | None] = mapped_column(ForeignKey("rater.id"), index=True)
    reason: Mapped[str] = mapped_column(String(64))
    score: Mapped[float | None]
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
    actor: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    lifted_at: Mapped[datetime | None]
    lifted_by: Mapped[str | None] = mapped_column(String(64))
    __table_args__ = (CheckConstraint("(vote_id IS NULL) <> (rater_id IS NULL)", "one_target"),)


class AuditEntry(Base):
    """One line of the audit log; each hashes the one before, see audit_log.py."""

    __tablename__ = "audit_entry"
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    at: Mapped[str] = mapped_column(String(40))  # as text: what is hashed is what is stored
    actor: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(64))
    details: Mapped[str] = mapped_column(Text)  # JSON as it was hashed
    previous_sha256: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64))


class Snapshot(Base):
    """A leaderboard that can be computed again: its settings, the votes it saw and what came out."""

    __tablename__ = "snapshot"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    study_id: Mapped[str] = mapped_column(ForeignKey("study.id"), index=True)
    settings: Mapped[dict[str, Any]]
    last_audit_number: Mapped[int]  # it saw everything up to here
    last_audit_sha256: Mapped[str] = mapped_column(String(64))
    code_version: Mapped[str] = mapped_column(String(64))
    result: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Export(Base):
    """Votes written for training, with the hash of their manifest."""

    __tablename__ = "export"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    study_id: Mapped[str] = mapped_column(ForeignKey("study.id"), index=True)
    settings: Mapped[dict[str, Any]]
    manifest_sha256: Mapped[str] = mapped_column(String(64))
    path: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class RewardScore(Base):
    """What a reward model says of a clip, to compare with what people say."""

    __tablename__ = "reward_score"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    video_id: Mapped[str] = mapped_column(ForeignKey("video.id"))
    reward: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    dimension: Mapped[str] = mapped_column(String(64))
    value: Mapped[float]
    __table_args__ = (UniqueConstraint("video_id", "reward", "version", "dimension"),)
