"""Pairs whose answer is known: for practice, and hidden among the others to see who pays attention.

Identical clips (the answer is "same"), a clip against a spoiled copy of itself, and a clip against one that was made
for another prompt. None of them ever counts for a system. What is known is kept of the questions that the study asks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Literal

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.arena_state import Arena
from app.database.audit_log import append_entry
from app.database.tables import Pair, System, Video
from app.studies.degrading import DEGRADATIONS, Degradation, degrade
from app.studies.media import transcode
from app.studies.study import find_study, policy_of
from rlhf_video.data.files import sha256_file
from rlhf_video.errors import DataError
from rlhf_video.preferences.pair import MOTION_QUALITY, OVERALL, TEXT_ALIGNMENT, VISUAL_QUALITY

Kind = Literal["gold", "practice"]
_SHOWS: dict[Degradation, str] = {
    "blur": VISUAL_QUALITY,
    "noise": VISUAL_QUALITY,
    "low_bitrate": VISUAL_QUALITY,
    "frozen": MOTION_QUALITY,
    "shuffled": MOTION_QUALITY,
}
"""Degradation -> the question, beside the overall one, that it decides."""


@dataclass(frozen=True)
class _Spoiled:
    video_id: str
    kind: Degradation
    file: Path
    source_sha256: str
    play_files: dict[str, str]


def make_gold_pairs(
    arena: Arena, slug: str, *, count: int, kind: Kind = "gold", seed: int = 0, actor: str = "admin"
) -> int:
    """Make pairs with a known answer out of a study's clips.

    Args:
        arena: Open for writing.
        slug: The study; it has clips.
        count: How many: half of them spoiled, a quarter identical, a quarter of another prompt; practice shows spoiled
            ones alone, which explain themselves. There are none of another prompt, and so fewer in all, where the
            study does not ask which clip matches the text.
        kind: What they are for.
        seed: Draws the clips.
        actor: Who does it, for the audit log.

    Returns:
        How many are new.

    Raises:
        DataError: There is no such study, or it has no clips.
    """
    with arena.reading() as session:
        study = find_study(session, slug)
        policy = policy_of(study)
        media = policy.media
        videos = session.scalars(
            select(Video)
            .join(System, System.id == Video.system_id)
            .where(System.study_id == study.id)
            .order_by(Video.source_sha256)
        ).all()
    if not videos or media is None:
        raise DataError(f"The study '{slug}' has no clips to make gold pairs of: import two systems first.")
    rng = np.random.default_rng([seed, kind == "practice"])
    drawn = [videos[index] for index in rng.permutation(len(videos))]
    num_spoiled = count if kind == "practice" else -(-count // 2)
    spoiled: list[_Spoiled] = []
    for video, how in zip(drawn, cycle(DEGRADATIONS), strict=False):
        if len(spoiled) == num_spoiled:
            break
        try:
            copy = degrade(arena.config.data / video.source_path, arena.config.data / "original", how, seed)
        except DataError:
            continue  # a clip that hardly moves is not worse when it is frozen: the next one
        play = transcode(copy, arena.config.data / "play", media)
        files = {"video/mp4": play.mp4, "video/webm": play.webm}
        paths = {name: str(path.relative_to(arena.config.data)) for name, path in files.items() if path}
        spoiled.append(_Spoiled(video.id, how, copy, sha256_file(copy), paths))

    def change(session: Session) -> int:
        study = find_study(session, slug)
        pairs = [_spoiled_pair(session, study.id, item, arena.config.data) for item in spoiled]
        if kind == "gold":
            rest = drawn[num_spoiled:] or drawn
            pairs += [_identical_pair(study.id, video) for video in rest[: count // 4]]
            pairs += _swapped_pairs(study.id, drawn, count - len(pairs))
        for pair in pairs:
            pair.expected = policy.asked(pair.expected or {})
        known = set(session.execute(select(Pair.prompt_id, Pair.a_id, Pair.b_id).where(Pair.kind == kind)))
        new = [pair for pair in pairs if pair.expected and (pair.prompt_id, pair.a_id, pair.b_id) not in known]
        for pair in new:
            pair.kind = kind
        session.add_all(new)
        details = {"study": slug, "kind": kind, "pairs": len(new)}
        append_entry(session, actor=actor, action="gold.made", subject=study.id, details=details)
        return len(new)

    return arena.writer.run(change)


def _spoiled_pair(session: Session, study_id: str, item: _Spoiled, data: Path) -> Pair:
    video = session.get_one(Video, item.video_id)
    copy = session.scalar(
        select(Video).where(Video.source_sha256 == item.source_sha256, Video.prompt_id == video.prompt_id)
    )
    if copy is None:
        copy = Video(
            system_id=None,
            prompt_id=video.prompt_id,
            sample=video.sample,
            seed=None,
            source_path=str(item.file.relative_to(data)),
            source_sha256=item.source_sha256,
            play_files=item.play_files,
            fps=video.fps,
            num_frames=video.num_frames,
            height=video.height,
            width=video.width,
        )
        session.add(copy)
        session.flush()
    expected = {OVERALL: "A", _SHOWS[item.kind]: "A"}
    return Pair(
        study_id=study_id, prompt_id=video.prompt_id, a_id=video.id, b_id=copy.id, gold=item.kind, expected=expected
    )


def _identical_pair(study_id: str, video: Video) -> Pair:
    expected = {OVERALL: "tie", VISUAL_QUALITY: "tie", MOTION_QUALITY: "tie", TEXT_ALIGNMENT: "tie"}
    return Pair(
        study_id=study_id, prompt_id=video.prompt_id, a_id=video.id, b_id=video.id, gold="identical", expected=expected
    )


def _swapped_pairs(study_id: str, videos: Sequence[Video], count: int) -> list[Pair]:
    """Pair clips with clips of the same system that were made for another prompt."""
    pairs: list[Pair] = []
    for video in videos:
        others = [clip for clip in videos if clip.system_id == video.system_id and clip.prompt_id != video.prompt_id]
        if len(pairs) >= count or not others:
            break
        other = others[len(pairs) % len(others)]  # not always the same one
        pairs.append(
            Pair(
                study_id=study_id,
                prompt_id=video.prompt_id,
                a_id=video.id,
                b_id=other.id,
                gold="prompt-swap",
                expected={TEXT_ALIGNMENT: "A"},
            )
        )
    return pairs
