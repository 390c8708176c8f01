"""A study of three systems with original clips, and votes as if raters had cast them."""

import hashlib
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("fastapi", reason="the arena needs its extra: pip install 'rlhf-video[arena]'")
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.arena_config import ArenaConfig
from app.arena_state import Arena, open_arena
from app.database.audit_log import append_entry
from app.database.tables import Assignment, Pair, Prompt, Rater, System, Video, Vote, utc_now
from app.studies.media import MediaPolicy
from app.studies.pairs import schedule_pairs
from app.studies.study import StudyPolicy, create_study, find_study
from rlhf_video.data.files import sha256_file
from rlhf_video.data.video import write_video

PROMPTS = tuple(f"a square number {number}" for number in range(12))


@dataclass
class Ballots:
    """Stores votes on the pairs of the study "loop"."""

    arena: Arena
    raters: dict[str, str] = field(default_factory=dict)

    def cast(self, prompt: str, winner: str, *, rater: str = "ann", other: str | None = None, **changes: Any) -> str:
        """Store one vote: `winner` is a system's name or "tie", `other` its opponent; return the vote's id."""

        def change(session: Session) -> str:
            pair = self._pair(session, prompt, {winner, other or "base"} if winner != "tie" else {"base", "tuned"})
            system_of_a = session.get_one(System, session.get_one(Video, pair.a_id).system_id).name
            answer = "tie" if winner == "tie" else "A" if system_of_a == winner else "B"
            answers = {"overall": answer}
            for name, word in changes.get("answers", {}).items():  # by system, as the winner is
                answers[name] = word if word == "tie" else "A" if system_of_a == word else "B"
            assignment = Assignment(
                study_id=pair.study_id,
                pair_id=pair.id,
                rater_id=self._rater(session, rater),
                a_is_left=True,
                probability=0.5,
                num_choices=2,
                policy="sampled",
                issued_at=utc_now(),
                expires_at=utc_now() + timedelta(minutes=5),
                state="voted",
            )
            session.add(assignment)
            session.flush()
            vote = Vote(
                id=uuid.uuid4().hex,
                assignment_id=assignment.id,
                revision=0,
                answers={} if changes.get("unanswered") else answers,
                both_bad=changes.get("both_bad", False),
                body_sha256="0" * 64,
                stored_at=utc_now(),
            )
            session.add(vote)
            session.flush()
            append_entry(session, actor=rater, action="vote.stored", subject=vote.id, details={})
            return vote.id

        return self.arena.writer.run(change)

    def _pair(self, session: Session, prompt: str, systems: set[str]) -> Pair:
        for pair in session.scalars(
            select(Pair).join(Prompt, Prompt.id == Pair.prompt_id).where(Prompt.text == prompt)
        ):
            if {session.get_one(System, video.system_id).name for video in (pair.a, pair.b)} == systems:
                return pair
        raise AssertionError(f"no pair of {systems} for {prompt}")

    def _rater(self, session: Session, name: str) -> str:
        if name not in self.raters:
            rater = Rater(pseudonym=name, consent_version="1")
            session.add(rater)
            session.flush()
            self.raters[name] = rater.id
        return self.raters[name]


@pytest.fixture(scope="session")
def loop_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the arena that every test gets a copy of."""
    folder = tmp_path_factory.mktemp("loop") / "arena"
    with open_arena(ArenaConfig(data=folder), create=True) as arena:
        arena.writer.run(lambda session: make_loop_study(session, folder))
    return folder


@pytest.fixture
def loop(tmp_path: Path, loop_folder: Path) -> Iterator[Arena]:
    """Return an open arena with the study "loop": 12 prompts, systems base, tuned and other, original clips."""
    folder = shutil.copytree(loop_folder, tmp_path / "arena")
    with open_arena(ArenaConfig(data=folder)) as arena:
        yield arena


@pytest.fixture
def ballots(loop: Arena) -> Ballots:
    """Return what stores votes."""
    return Ballots(loop)


def make_loop_study(session: Session, data: Path) -> None:
    """Store the study; every clip is a file of its own."""
    study = create_study(session, slug="loop", name="loop", policy=StudyPolicy(media=MediaPolicy(height=32, width=32)))
    origins: dict[str, Mapping[str, Any]] = {
        "base": {"model": "assets/sprite-wan", "adapter": None, "adapter_sha256": None, "sampler": {"num_steps": 10}},
        "tuned": {"model": "assets/sprite-wan", "adapter": "runs/a/adapter", "adapter_sha256": "a" * 64},
        "other": {"model": "elsewhere", "adapter": None, "adapter_sha256": None},
    }
    for number, (name, origin) in enumerate(origins.items()):
        system = System(study_id=study.id, name=name, origin=dict(origin))
        session.add(system)
        session.flush()
        for place, words in enumerate(PROMPTS):
            add_clip(session, data, system, words, shade=(place + 13 * number) / 64)
    schedule_pairs(session, find_study(session, "loop"))


def add_clip(session: Session, data: Path, system: System, words: str, *, shade: float) -> Video:
    """Store one clip of 8 frames of 16 x 16, shown to raters in 32 x 32."""
    prompt = session.scalar(select(Prompt).where(Prompt.study_id == system.study_id, Prompt.text == words))
    if prompt is None:
        digest = hashlib.sha256(words.encode()).hexdigest()
        prompt = Prompt(study_id=system.study_id, text=words, text_sha256=digest)
        session.add(prompt)
        session.flush()
    file = data / "original" / "new.mp4"
    write_video(file, torch.full((8, 3, 16, 16), shade), fps=8)
    digest = sha256_file(file)
    file.rename(file.with_name(f"{digest}.mp4"))
    video = Video(
        system_id=system.id,
        prompt_id=prompt.id,
        sample=0,
        seed=7,
        source_path=f"original/{digest}.mp4",
        source_sha256=digest,
        play_files={},
        fps=8.0,
        num_frames=8,
        height=32,
        width=32,
    )
    session.add(video)
    session.flush()
    return video
