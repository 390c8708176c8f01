"""What a study asks, of whom it asks how much, and when it stops."""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.audit_log import append_entry
from app.database.tables import Pair, Study
from app.studies.media import MediaPolicy
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.preferences.pair import DIMENSIONS, OVERALL
from rlhf_video.settings import check_range, to_plain
from rlhf_video.settings.building import build_config

StudyStatus = Literal["open", "paused", "closed"]


@dataclass(frozen=True)
class Question:
    """One question of the duel."""

    name: str
    title: str
    hint: str


QUESTIONS = {
    question.name: question
    for question in (
        Question("visual_quality", "Visual quality", "Which looks sharper and cleaner, frame by frame?"),
        Question("motion_quality", "Motion quality", "Which moves more smoothly and more naturally?"),
        Question("text_alignment", "Match to the text", "Which shows better what the text asks for?"),
        Question(OVERALL, "Overall", "Which one would you rather keep?"),
    )
}
"""The standard questions (VideoAlign, arXiv:2501.13918), in the order in which they are asked."""


@dataclass(frozen=True, kw_only=True)
class StudyPolicy:
    """Settings of a study."""

    questions: tuple[str, ...] = (*DIMENSIONS, OVERALL)
    """Names of QUESTIONS that are asked; overall is always among them."""
    overlap: int = 3
    """Votes wanted for each pair; leases that are still open count as votes, so a pair is not served too often."""
    min_watch_s: float = 2.0
    """Both clips must have played this long, or once where they are shorter, before a vote counts."""
    lease_s: float = 600.0
    """How long a rater has for one pair."""
    grace_s: float = 3600.0
    """How long after its lease an answer is still taken (and marked late)."""
    undo_s: float = 30.0
    """How long a vote can be taken back."""
    gold_rate: float = 0.08
    """Share of assignments with a known answer, which check attention and never count for systems."""
    repeat_rate: float = 0.04
    """Share of assignments that show a rater an earlier pair again with the sides swapped."""
    practice: int = 3
    """Practice pairs with feedback before the first vote."""
    uniform_share: float = 0.2
    """Share of votes drawn uniformly from all pairs, however uninteresting: every pair keeps a probability (> 0)."""
    error_rate: float = 0.05
    """Of the stopping rule: the chance to ever call equal systems different, over all pairs of systems."""
    tie_model: Literal["davidson", "rao_kupper", "bradley_terry", "bradley_terry_without_ties"] = "davidson"
    """Of the leaderboard that is shown first."""
    consent_version: str = "1"
    """Raters consent again when it changes."""
    completion_url: str | None = None
    """Where a panel's raters are sent when nothing is left (https), for example
    https://app.prolific.com/submissions/complete?cc=CODE."""
    public_board: bool = False
    """Whether raters see the leaderboard; knowing who leads may sway them."""
    media: MediaPolicy | None = None
    """How clips are shown; None takes the size of the first clips that come in."""
    category_tags: tuple[str, ...] = ()
    """Tags of prompts that get a leaderboard of their own; empty for every tag that occurs."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: A number out of its range, an unknown question, no overall question, or no https.
        """
        unknown = [name for name in self.questions if name not in QUESTIONS]
        if unknown or OVERALL not in self.questions or len(set(self.questions)) != len(self.questions):
            raise ConfigError(
                f"questions={list(self.questions)} must be different ones of {', '.join(QUESTIONS)}, with 'overall'."
            )
        if self.completion_url is not None and not self.completion_url.startswith("https://"):
            raise ConfigError(f"completion_url='{self.completion_url}' must begin with https://.")
        if not 1 <= len(self.consent_version) <= 32:
            raise ConfigError(f"consent_version='{self.consent_version}' must have 1 to 32 characters.")
        check_range("overlap", self.overlap, least=1)
        check_range("practice", self.practice, least=0)
        for name in ("min_watch_s", "grace_s", "undo_s"):
            check_range(name, getattr(self, name), least=0.0)
        check_range("lease_s", self.lease_s, above=0.0)
        for name in ("gold_rate", "repeat_rate"):
            check_range(name, getattr(self, name), least=0.0, below=0.5)
        if not 0.0 < self.uniform_share <= 1.0:
            raise ConfigError(f"uniform_share={self.uniform_share} must be above 0 and at most 1.")
        check_range("error_rate", self.error_rate, above=0.0, below=1.0)

    def asked(self, answers: Mapping[str, str]) -> dict[str, str]:
        """Return the answers, by question, to what this study asks."""
        return {question: answer for question, answer in answers.items() if question in self.questions}


def policy_of(study: Study) -> StudyPolicy:
    """Return the settings of a stored study."""
    return _parsed(json.dumps(study.policy))


@functools.lru_cache(maxsize=256)  # asked for several times by every request
def _parsed(policy: str) -> StudyPolicy:
    return build_config(StudyPolicy, json.loads(policy))


def create_study(session: Session, *, slug: str, name: str, policy: StudyPolicy, actor: str = "admin") -> Study:
    """Store a new study; it opens when it has two systems (importing.py).

    Args:
        session: Of the writer.
        slug: Short name in addresses and commands: lower-case letters, digits and -.
        name: For people.
        policy: Its settings.
        actor: Who does it, for the audit log.

    Raises:
        DataError: The slug is taken or no slug.
    """
    if not slug or set(slug) - set("abcdefghijklmnopqrstuvwxyz0123456789-") or len(slug) > 64:
        raise DataError(f"The study's short name '{slug}' must be 1 to 64 lower-case letters, digits and '-'.")
    if session.scalar(select(Study.id).where(Study.slug == slug)):
        raise DataError(f"There is a study '{slug}' already: import into it, or choose another name.")
    study = Study(slug=slug, name=name or slug, policy=to_plain(policy), status="paused")
    session.add(study)
    session.flush()
    append_entry(session, actor=actor, action="study.created", subject=study.id, details={"slug": slug})
    return study


def set_status(session: Session, study: Study, status: StudyStatus, *, actor: str) -> None:
    """Open, pause or close a study.

    Args:
        session: Of the writer.
        study: Which.
        status: What it shall be.
        actor: Who says so.

    Raises:
        DataError: It is that already, or has nothing to ask.
    """
    if study.status == status:
        raise DataError(f"The study '{study.slug}' is {status} already.")
    has_pairs = session.scalar(select(Pair.id).where(Pair.study_id == study.id, Pair.kind == "real").limit(1))
    if status == "open" and has_pairs is None:
        raise DataError(f"The study '{study.slug}' has no pairs to ask about: import two systems first.")
    details = {"from": study.status, "to": status}
    study.status = status
    append_entry(session, actor=actor, action="study.status", subject=study.id, details=details)


def find_study(session: Session, slug: str) -> Study:
    """Return a study by its short name.

    Raises:
        DataError: There is none; the message lists those that there are.
    """
    study = session.scalar(select(Study).where(Study.slug == slug))
    if study is None:
        known: Sequence[str] = session.scalars(select(Study.slug).order_by(Study.slug)).all()
        raise DataError(f"There is no study '{slug}'. There are: {', '.join(known) or 'none yet'}.")
    return study
