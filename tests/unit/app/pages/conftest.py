"""An arena in which people have judged: three systems in a line, eight prompts, six raters, rewards, and a report."""

import hashlib
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("fastapi", reason="the arena needs its extra: pip install 'rlhf-video[arena]'")
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.admin_password import hash_password
from app.arena_config import ArenaConfig
from app.arena_state import Arena, open_arena
from app.database.audit_log import append_entry
from app.database.tables import Assignment, Pair, Prompt, Rater, Refusal, RewardScore, System, Video, Vote, utc_now
from app.studies.pairs import schedule_pairs
from app.studies.study import StudyPolicy, create_study
from rlhf_video.data.files import sha256_file
from rlhf_video.data.video import write_video

PASSWORD = "correct horse"
RATERS = ("amber-owl", "azure-hare", "coral-wren", "green-lynx", "ivory-newt", "teal-finch")
LINE = {"base": None, "tuned": "base", "overfit": "tuned"}
"""System -> what it was trained from: people like `tuned` best; the reward likes `overfit` best."""
_LIKED = {"base": 0.0, "tuned": 2.0, "overfit": 0.1}
_REWARDED = {"base": 0.2, "tuned": 0.4, "overfit": 0.9}
WORDS = ("a red ball", "two squares", "a <b>bold</b> star", "rain on a roof", "a paper boat", "fog", "a cat", "waves")


@pytest.fixture(scope="module")
def judged_config(tmp_path_factory: pytest.TempPathFactory) -> ArenaConfig:
    """Return where the arena is; clips to import lie below its import folder."""
    folder = tmp_path_factory.mktemp("judged")
    (folder / "incoming" / "model-x").mkdir(parents=True)
    (folder / "incoming" / "model-x" / "manifest.json").write_text("{}")
    return ArenaConfig(
        data=folder / "arena",
        admin_password=hash_password(PASSWORD),
        import_folder=folder / "incoming",
    )


@pytest.fixture(scope="module")
def judged(judged_config: ArenaConfig) -> Iterator[Arena]:
    """Return the open arena; tests that share it leave its votes alone."""
    with open_arena(judged_config, create=True) as arena:
        arena.writer.run(lambda session: judge_study(session, judged_config.data))
        yield arena


def judge_study(session: Session, data: Path) -> None:
    """Store the study "motion", its votes, scores and one report."""
    study = create_study(session, slug="motion", name="Which moves better?", policy=StudyPolicy(overlap=6))
    systems: dict[str, System] = {}
    for name, parent in LINE.items():
        systems[name] = System(study_id=study.id, name=name, parent_id=systems[parent].id if parent else None)
        session.add(systems[name])
        session.flush()
    for number, words in enumerate(WORDS):
        digest = hashlib.sha256(words.encode()).hexdigest()
        tags = ["shapes"] if number % 2 else []
        prompt = Prompt(study_id=study.id, text=words, text_sha256=digest, tags=tags)
        session.add(prompt)
        session.flush()
        for name, system in systems.items():
            video = _add_clip(session, data, system, prompt, number, list(LINE).index(name))
            value = _REWARDED[name] + 0.05 * number
            session.add(RewardScore(video_id=video.id, reward="hps_v2", version="1", dimension="score", value=value))
    schedule_pairs(session, study)
    raters = [Rater(pseudonym=name, consent_version="1") for name in RATERS]
    session.add_all(raters)
    session.flush()
    _vote(session, raters)


def _vote(session: Session, raters: list[Rater]) -> None:
    """Let every rater judge every pair; the first pair is reported by the last rater, one lease stays open."""
    rng, now = np.random.default_rng(0), utc_now() - timedelta(hours=2)
    names = {system.id: system.name for system in session.scalars(select(System))}

    def order(pair: Pair) -> tuple[str, list[str]]:  # ids and sides are drawn anew in every run
        return pair.prompt.text, sorted((names[pair.a.system_id], names[pair.b.system_id]))

    for number, pair in enumerate(sorted(session.scalars(select(Pair)), key=order)):
        better = _LIKED[names[pair.a.system_id]] - _LIKED[names[pair.b.system_id]]
        for rater in raters:
            feeling = better + rng.logistic() * (1 if names[pair.a.system_id] < names[pair.b.system_id] else -1)
            answer = "tie" if abs(feeling) < 0.4 else "A" if feeling > 0 else "B"
            is_last = rater is raters[-1]
            state = "reported" if is_last and number == 0 else "open" if is_last and number == 1 else "voted"
            now += timedelta(seconds=20)
            assignment = _assignment(pair, rater, state, now, a_is_left=bool(rng.random() < 0.5))
            session.add(assignment)
            session.flush()
            if state == "voted":
                answers = dict.fromkeys(("overall", "motion_quality", "visual_quality", "text_alignment"), answer)
                vote = Vote(
                    id=uuid.UUID(bytes=rng.bytes(16)).hex,
                    assignment_id=assignment.id,
                    revision=0,
                    answers=answers,
                    body_sha256="0" * 64,
                    telemetry={"decision_ms": 4000},
                    stored_at=now,
                )
                session.add(vote)
                append_entry(session, actor=rater.pseudonym, action="vote.stored", subject=vote.id, details={})
            elif state == "reported":
                note = "the left one <i>never</i> starts"
                session.add(Refusal(assignment_id=assignment.id, kind="report", reason="does not play", note=note))


def _assignment(pair: Pair, rater: Rater, state: str, now: datetime, *, a_is_left: bool) -> Assignment:
    return Assignment(
        study_id=pair.study_id,
        pair_id=pair.id,
        rater_id=rater.id,
        a_is_left=a_is_left,
        probability=0.1,
        num_choices=10,
        policy="sampled",
        issued_at=now - timedelta(seconds=8),
        expires_at=now + timedelta(minutes=10),
        state=state,
    )


def _add_clip(session: Session, data: Path, system: System, prompt: Prompt, number: int, shade: int) -> Video:
    """Store one clip of 12 frames, a bright square that moves; its file is both original and what raters see."""
    clip = torch.full((12, 3, 48, 80), 0.15 + 0.1 * shade)
    for frame in range(12):
        left = (4 + 5 * frame + 3 * number) % 64
        clip[frame, shade, 12:30, left : left + 14] = 0.9
    file = data / "original" / "new.mp4"
    write_video(file, clip, fps=8)
    digest = sha256_file(file)
    path = file.rename(file.with_name(f"{digest}.mp4")).relative_to(data)
    video = Video(
        system_id=system.id,
        prompt_id=prompt.id,
        sample=0,
        seed=number,
        source_path=str(path),
        source_sha256=digest,
        play_files={"video/mp4": str(path)},
        fps=8.0,
        num_frames=12,
        height=48,
        width=80,
    )
    session.add(video)
    session.flush()
    return video
