"""From votes to preference records: one record a vote, with the answer to the question that decides a pair.

A study's questions decide as they are. Two more are made of the dimensions, rater by rater:

    weighted   sum_d w_d a_d / sum_d w_d with a_d = 1 for A, 1/2 for a tie, 0 for B: a share of one vote for A
    pareto     A where no dimension says B and at least one says A; B likewise; a tie where all tie; a rater whose
               dimensions contradict one another gives half a vote to each side
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from app.database.tables import Pair, Study, System, Video
from app.voting.clean_votes import CleanVote
from rlhf_video.data.clip_facts import read_clip_facts
from rlhf_video.data.files import sha256_file
from rlhf_video.errors import DataError
from rlhf_video.preferences.listing import listed
from rlhf_video.preferences.pair import ClipRecord, Label, PreferencePair

WEIGHTED, PARETO = "weighted", "pareto"
SAME_FILE = "both clips are the same file"
TRIMMED = "raters saw only the beginning of a clip"
CLIPS_FOLDER = "clips"
_WORTH = {"A": 1.0, "tie": 0.5, "B": 0.0}
_LABELS: Mapping[str, Label] = {"A": "A", "tie": "tie", "B": "B"}


@dataclass(frozen=True)
class JudgedClips:
    """The clips that votes are about."""

    prompts: Mapping[str, str]
    """Id of a pair -> text."""
    files: Mapping[str, Path]
    """Id of a video -> the file that came in."""
    records: Mapping[str, ClipRecord]
    """Id of a video -> its record, at its place below the folder of an export."""
    trimmed: frozenset[str]
    """Ids of videos of which raters saw only the beginning."""


def read_judged_clips(session: Session, study: Study, votes: Sequence[CleanVote], data: Path) -> JudgedClips:
    """Return the clips of votes as training will know them: the originals, under names that tell nothing.

    Args:
        session: Only read from.
        study: Whose votes.
        votes: Any of them.
        data: The arena's data folder.

    Raises:
        DataError: Originals are missing or changed since they came in; all are listed.
    """
    judged = {vote.pair for vote in votes}
    pairs = session.scalars(
        select(Pair)
        .where(Pair.study_id == study.id, Pair.kind == "real")
        .options(joinedload(Pair.a), joinedload(Pair.b), joinedload(Pair.prompt))
    ).all()
    systems = session.scalars(select(System).where(System.study_id == study.id))
    origins = {system.id: system.origin for system in systems}
    videos = {video.id: video for pair in pairs if pair.id in judged for video in (pair.a, pair.b)}
    files, records, trimmed, problems = {}, {}, set(), []
    for key, video in videos.items():
        files[key] = data / video.source_path
        if not files[key].is_file():
            problems.append(f"{video.source_path} is missing")
        elif sha256_file(files[key]) != video.source_sha256:
            problems.append(f"{video.source_path} is not the file that came in (its sha256 differs)")
        else:
            records[key] = _record(video, files[key], origins.get(video.system_id or "", {}))
            if records[key].num_frames != video.num_frames:
                trimmed.add(key)
    if problems:
        raise DataError(
            f"{len(problems)} of {len(videos)} judged clips cannot be exported: {listed(problems)}. Restore them from "
            "a backup of the data folder."
        )
    return JudgedClips({pair.id: pair.prompt.text for pair in pairs}, files, records, frozenset(trimmed))


def record_of(
    vote: CleanVote, clips: JudgedClips, *, question: str, weights: Mapping[str, float], bad_counts: bool
) -> PreferencePair | str:
    """Return one vote as a record, or why it is none.

    Args:
        vote: What was answered.
        clips: What it was about.
        question: Which one decides: a study's question, WEIGHTED or PARETO.
        weights: Of the dimensions for the latter two; of PARETO only their names count.
        bad_counts: Whether "both unacceptable" is the answer to the deciding question, whatever else was answered.
    """
    a, b = (clips.records[video] for video in vote.videos)
    if a.sha256 == b.sha256:
        return SAME_FILE
    if clips.trimmed.intersection(vote.videos):
        return TRIMMED
    labels = {name: _LABELS[answer] for name, answer in vote.answers.items()}
    soft: dict[str, float] = {}
    if vote.both_bad and bad_counts:
        labels[question] = "both-bad"
    elif question == WEIGHTED and all(name in labels for name in weights):
        total = sum(weights.values())
        soft[WEIGHTED] = sum(weight * _WORTH[vote.answers[name]] for name, weight in weights.items()) / total
    elif question == PARETO and all(name in labels for name in weights):
        label = dominance([vote.answers[name] for name in weights])
        labels, soft = ({**labels, PARETO: label}, soft) if label else (labels, {PARETO: 0.5})
    if not (labels or soft):
        return f"no answer to '{question}'"
    return PreferencePair(prompt=clips.prompts[vote.pair], a=a, b=b, labels=labels, soft=soft, source="arena")


def dominance(answers: Sequence[str]) -> Label | None:
    """Return which clip is better somewhere and worse nowhere; None where the answers contradict one another."""
    sides = {answer for answer in answers if answer != "tie"}
    if len(sides) > 1:
        return None
    return _LABELS[sides.pop()] if sides else "tie"


def _record(video: Video, file: Path, origin: Mapping[str, object]) -> ClipRecord:
    sampler = origin.get("sampler")
    model, adapter = origin.get("model"), origin.get("adapter")
    facts = read_clip_facts(file, decode=False)  # the table holds the size of what raters see
    return ClipRecord(
        path=f"{CLIPS_FOLDER}/{video.source_sha256[:32]}{file.suffix}",
        sha256=video.source_sha256,
        seed=video.seed,
        model=model if isinstance(model, str) else None,
        adapter=adapter if isinstance(adapter, str) else None,
        sampler=dict(sampler) if isinstance(sampler, Mapping) else {},
        num_frames=facts.num_frames,
        height=facts.height,
        width=facts.width,
        fps=facts.fps,
    )
