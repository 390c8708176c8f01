"""What reward models say of a study's clips, taken in from their score files.

Two kinds are read: the JSON of `rlhf-video rewards score --json`, and the lines that `evaluation` keeps of a judged
reward (evaluation/judging/score_store.py). A clip is found by its content and prompt, never by its name.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.arena_state import Arena
from app.database.audit_log import append_entry
from app.database.tables import Prompt, RewardScore, Video
from app.studies.study import find_study
from evaluation.option_hash import options_sha256
from rlhf_video.data.files import sha256_file
from rlhf_video.errors import DataError
from rlhf_video.preferences.store import prompt_key

_SHOWN = 12  # digits of the hash of a reward's options: other options are another version


@dataclass(frozen=True)
class ScoreImport:
    """What came in."""

    new: int
    known: int
    other_clips: int
    """Scored clips that the study does not have."""
    failed: int
    """Clips that the reward could not score."""


@dataclass(frozen=True)
class _Scored:
    clip_sha256: str
    prompt: str
    reward: str
    version: str
    values: dict[str, float]


def import_scores(arena: Arena, slug: str, file: Path, *, clips: Path | None = None) -> ScoreImport:
    """Store the scores of a study's clips; doing it again adds only what is new.

    Args:
        arena: Open for writing.
        slug: The study.
        file: .json of `rlhf-video rewards score`, or .jsonl of a judged reward.
        clips: For .json the folder that was scored, whose files it names.

    Raises:
        DataError: The file is neither, lower scores are better (nothing here turns signs), no clip of it is in the
            study, or a clip has another score of the same reward and version already.
    """
    scored, failed = _read(file, clips)

    def change(session: Session) -> ScoreImport:
        study = find_study(session, slug)
        rows = session.execute(
            select(Video.id, Video.source_sha256, Prompt.text)
            .join(Prompt, Prompt.id == Video.prompt_id)
            .where(Prompt.study_id == study.id, Video.system_id.is_not(None))
        )
        videos: dict[tuple[str, str], list[str]] = {}
        for video, digest, prompt in rows:
            videos.setdefault((digest, prompt_key(prompt)), []).append(video)
        new = known = others = 0
        for item in scored:
            found = videos.get((item.clip_sha256, prompt_key(item.prompt)), [])
            others += not found
            for video in found:
                added = sum(_add(session, video, item, name, value) for name, value in sorted(item.values.items()))
                new += added
                known += len(item.values) - added
        if others == len(scored):
            raise DataError(
                f"None of the {len(scored)} scored clips of '{file}' is a clip of the study '{slug}': score the "
                "originals, in the folder that was imported."
            )
        details = {"study": slug, "rewards": sorted({f"{item.reward}@{item.version}" for item in scored}), "new": new}
        append_entry(session, actor="admin", action="scores.imported", subject=study.id, details=details)
        return ScoreImport(new, known, others, failed)

    return arena.writer.run(change)


def _add(session: Session, video: str, item: _Scored, dimension: str, value: float) -> bool:
    """Store one number; return whether it is new."""
    key = {"video_id": video, "reward": item.reward, "version": item.version, "dimension": dimension}
    stored = session.scalar(select(RewardScore.value).filter_by(**key))
    if stored is None:
        session.add(RewardScore(**key, value=value))
        session.flush()
        return True
    if stored != value:
        raise DataError(
            f"A clip of '{item.prompt}' has the score {stored:g} of {item.reward}@{item.version}, {dimension} already, "
            f"not {value:g}: give what was changed another version."
        )
    return False


def _read(file: Path, clips: Path | None) -> tuple[list[_Scored], int]:
    if not file.is_file():
        raise DataError(f"There is no score file '{file}': correct the path.")
    try:
        if file.suffix == ".jsonl":
            return list(_of_store(file)), 0
        content = json.loads(file.read_text())
        if content["higher_is_better"] is not True:
            raise DataError(
                f"Of {content['reward']} in '{file}' lower scores are better: it cannot be held against votes."
            )
        if clips is None:
            raise DataError(f"'{file}' names files: give the folder of the clips that were scored, too.")
        scored = list(_of_command(content, clips))
        return scored, len(content["clips"]) - len(scored)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"'{file}' is no score file ({type(error).__name__}: {error}): give the .json of `rlhf-video rewards "
            "score` or the .jsonl that the evaluation keeps of a reward."
        ) from error


def _of_command(content: dict[str, Any], folder: Path) -> Iterator[_Scored]:
    version = f"{content['version']}+{options_sha256(content['options'])[:_SHOWN]}"
    for record in content["clips"]:
        if record["values"] is not None:
            path = folder / record["file"]
            if not path.is_file():
                raise DataError(f"The scored clip '{path}' is missing: give the folder that was scored.")
            yield _Scored(sha256_file(path), record["prompt"], content["reward"], version, record["values"])


def _of_store(file: Path) -> Iterator[_Scored]:
    for line in file.read_text().splitlines():
        record = json.loads(line)
        name, _, version = record["reward"].rpartition("@")
        version = f"{version}+{record['options_sha256'][:_SHOWN]}"
        yield _Scored(record["clip_sha256"], record["prompt"], name, version, record["values"])
