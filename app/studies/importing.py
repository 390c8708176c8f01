"""Taking in the clips of a system: checked, copied as they are, and made playable in every browser.

data/original/<hash>.mp4   what training gets: the file that came in
data/play/<hash>.*         what raters get: one size, no metadata, names that say nothing
"""

import contextlib
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.arena_state import Arena
from app.database.audit_log import append_entry
from app.database.tables import Pair, Prompt, Study, System, Video
from app.studies.media import MediaPolicy, PlayFiles, common_size, transcode
from app.studies.pairs import schedule_pairs
from app.studies.probing import probe
from app.studies.study import find_study, policy_of
from app.studies.style_features import style_features
from evaluation.clips.clip_listing import read_manifest
from rlhf_video.data.files import MANIFEST, sha256_file, write_atomic
from rlhf_video.errors import DataError
from rlhf_video.preferences.listing import listed
from rlhf_video.settings import to_plain


@dataclass(frozen=True)
class IncomingClip:
    """One clip of a folder."""

    file: Path
    sha256: str
    prompt: str
    sample: int
    seed: int | None


@dataclass
class ImportReport:
    """What came in."""

    new_clips: int = 0
    known_clips: int = 0
    new_pairs: int = 0
    has_pairs: bool = False
    """Whether the study has pairs to judge; one with a single system has none."""
    problems: tuple[str, ...] = ()
    """One sentence for each clip that was left out."""


def read_folder(folder: Path) -> tuple[tuple[IncomingClip, ...], dict[str, object], list[str]]:
    """Read a folder of generate.py.

    Args:
        folder: With manifest.json and the clips that it names.

    Returns:
        The clips, how they were made, and one sentence for each that is missing, changed or there twice.

    Raises:
        DataError: There is no folder, or no manifest, or it is damaged.
    """
    if not (folder / MANIFEST).is_file():
        raise DataError(
            f"'{folder}' has no {MANIFEST}, which says which clip is of which prompt: import a folder that "
            "rlhf_video/generate.py wrote, or write one with file, prompt, seed and sha256 of each clip."
        )
    manifest = read_manifest(folder / MANIFEST)
    clips, problems = [], []
    first_of: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for record in manifest["clips"]:
        name, prompt = record["file"], " ".join(record["prompt"].split())
        file = folder / name
        if not file.resolve().is_relative_to(folder.resolve()):
            problems.append(f"'{name}' lies outside of the folder")
        elif not file.is_file():
            problems.append(f"'{name}' is missing")
        elif sha256_file(file) != record["sha256"]:
            problems.append(f"'{name}' is not the file of the manifest (its sha256 differs)")
        elif record["sha256"] in first_of:
            problems.append(f"'{name}' ({prompt}) is the same clip as that of '{first_of[record['sha256']]}'")
        else:
            first_of[record["sha256"]] = prompt
            sample = numbers.get(prompt, 0)
            clips.append(IncomingClip(file, record["sha256"], prompt, sample, record["seed"]))
        numbers[prompt] = numbers.get(prompt, 0) + 1
    origin = {name: value for name, value in manifest.items() if name != "clips"}
    return tuple(clips), origin, problems


def import_folder(
    arena: Arena,
    slug: str,
    system: str,
    folder: Path,
    *,
    tags: Mapping[str, Sequence[str]] | None = None,
    parent: str | None = None,
    skip_bad: bool = False,
    opponents: Collection[str] | None = None,
    actor: str = "admin",
) -> ImportReport:
    """Take in the clips of one system and schedule what they stand against; doing it again adds only what is new.

    Args:
        arena: Open for writing.
        slug: The study, which there is. Its first import decides in which size every clip is shown.
        system: Name of the competitor; made where there is none.
        folder: As `read_folder` takes it.
        tags: Prompt -> categories of the leaderboard.
        parent: Name of the system that it was trained from.
        skip_bad: Leave out clips that cannot be used, and report them.
        opponents: Names of the systems that it meets; None for everyone against everyone.
        actor: Who does it, for the audit log.

    Raises:
        DataError: A clip cannot be used (all are listed), or the study or the parent is not there. Nothing is stored.
    """
    clips, origin, problems = read_folder(folder)
    media = _media_policy(arena, slug, clips)
    ready: list[_ReadyClip] = []
    for clip in clips:
        try:
            play = transcode(clip.file, arena.config.data / "play", media)
            ready.append(_ReadyClip(clip, play, asdict(style_features(clip.file))))
        except DataError as error:
            problems.append(str(error))
    if problems and not skip_bad:
        raise DataError(
            f"{len(problems)} clips of '{folder}' cannot be shown: {listed(problems)} Mend them, or leave them out "
            "with --skip-bad. Nothing was stored."
        )
    if not ready:
        raise DataError(f"'{folder}' holds no clip that can be shown. {listed(problems)}")
    for item in ready:
        original = arena.config.data / _original_path(item.clip)
        if not original.is_file():
            write_atomic(original, item.clip.file.read_bytes())

    def change(session: Session) -> ImportReport:
        study = find_study(session, slug)
        _keep_media_policy(study, media)
        row = _find_or_add_system(session, study, system, parent, origin)
        report = ImportReport(problems=tuple(problems))
        for item in ready:
            prompt = _find_or_add_prompt(session, study, item.clip.prompt, (tags or {}).get(item.clip.prompt, ()))
            is_new = _add_video(session, arena.config.data, row, prompt, item)
            report.new_clips += is_new
            report.known_clips += not is_new
        among = None
        if opponents is not None:
            others = session.scalars(select(System.id).where(System.study_id == study.id, System.name.in_(opponents)))
            among = [frozenset((row.id, other)) for other in others if other != row.id]
        report.new_pairs = schedule_pairs(session, study, among=among, actor=actor)
        real = select(Pair.id).where(Pair.study_id == study.id, Pair.kind == "real")
        report.has_pairs = session.scalar(real.limit(1)) is not None
        details = {"study": slug, "system": system, "clips": report.new_clips, "pairs": report.new_pairs}
        append_entry(session, actor=actor, action="clips.imported", subject=row.id, details=details)
        return report

    return arena.writer.run(change)


@dataclass(frozen=True)
class _ReadyClip:
    clip: IncomingClip
    play: PlayFiles
    features: dict[str, float]


def _original_path(clip: IncomingClip) -> str:
    return f"original/{clip.sha256}{clip.file.suffix.lower()}"


def _media_policy(arena: Arena, slug: str, clips: Sequence[IncomingClip]) -> MediaPolicy:
    """Return how the study shows clips; a new study takes the size of what comes in first."""
    with arena.reading() as session:
        media = policy_of(find_study(session, slug)).media
    if media is not None:
        return media
    facts = []
    for clip in clips:
        with contextlib.suppress(DataError):  # told when it is transcoded
            facts.append(probe(clip.file))
    height, width = common_size(facts)
    return MediaPolicy(height=height, width=width)


def _keep_media_policy(study: Study, media: MediaPolicy) -> None:
    policy = policy_of(study)
    if policy.media is None:
        study.policy = to_plain(replace(policy, media=media))


def _find_or_add_system(
    session: Session, study: Study, name: str, parent: str | None, origin: dict[str, object]
) -> System:
    def find(name: str) -> System | None:
        return session.scalar(select(System).where(System.study_id == study.id, System.name == name))

    row = find(name)
    if row is None:
        ancestor = find(parent) if parent else None
        if parent and ancestor is None:
            raise DataError(f"The study '{study.slug}' has no system '{parent}' that '{name}' could come from.")
        row = System(study_id=study.id, name=name, parent_id=ancestor.id if ancestor else None, origin=origin)
        session.add(row)
        session.flush()
    return row


def _find_or_add_prompt(session: Session, study: Study, text: str, tags: Sequence[str]) -> Prompt:
    digest = hashlib.sha256(text.encode()).hexdigest()
    row = session.scalar(select(Prompt).where(Prompt.study_id == study.id, Prompt.text_sha256 == digest))
    if row is None:
        row = Prompt(study_id=study.id, text=text, text_sha256=digest, tags=list(tags))
        session.add(row)
        session.flush()
    return row


def _add_video(session: Session, data: Path, system: System, prompt: Prompt, item: _ReadyClip) -> bool:
    """Store one clip; return whether it is new.

    Raises:
        DataError: The system has another clip at its place: what people judged must not change under them.
    """
    clip, play = item.clip, item.play
    known = session.scalar(
        select(Video).where(Video.system_id == system.id, Video.prompt_id == prompt.id, Video.sample == clip.sample)
    )
    if known is not None:
        if known.source_sha256 != clip.sha256:
            raise DataError(
                f"The system '{system.name}' has another clip number {clip.sample} of '{prompt.text}' already: import "
                "these clips as a system of another name."
            )
        return False
    files = {"video/mp4": play.mp4, "video/webm": play.webm}
    session.add(
        Video(
            system_id=system.id,
            prompt_id=prompt.id,
            sample=clip.sample,
            seed=clip.seed,
            source_path=_original_path(clip),
            source_sha256=clip.sha256,
            play_files={kind: str(path.relative_to(data)) for kind, path in files.items() if path},
            fps=play.fps,
            num_frames=play.num_frames,
            height=play.height,
            width=play.width,
            features=item.features,
        )
    )
    session.flush()
    return True
