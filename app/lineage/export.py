"""Votes as training data: pairs with the original clips, split by prompt, and a manifest that accounts for every vote.

    data/exports/<study>-<hash of the query>/
        train.jsonl, validation.jsonl   canonical pairs; what train_dpo.py and train_reward_model.py read
        clips/<hash>.mp4                the files that came in, linked or copied
        manifest.json                   settings, counts of what was left out and why, hashes
        <layout>/train.*, validation.*  the same pairs as other programs read them; layouts.json: what these lack
        SHA256SUMS                      of every file: `sha256sum -c SHA256SUMS`

A soft label is the posterior mean (n_A + n_tie / 2 + 1) / (n + 2), not the plain share: the losses are linear in the
label, so the loss at the mean is the expected loss over what the true share may be, while a plain share calls one vote
of one certain. See docs/preference_pairs.md for the rule that decides.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.arena_state import Arena
from app.database.audit_log import START, Head, append_entry
from app.database.tables import Assignment, AuditEntry, Export, Study, Vote
from app.lineage.vote_records import PARETO, WEIGHTED, JudgedClips, read_judged_clips, record_of
from app.studies.study import find_study, policy_of
from app.voting.clean_votes import CleanVote, sort_votes
from rlhf_video.data.files import sha256_file, write_atomic
from rlhf_video.data.prompts import PromptSuite
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.preferences.layouts import LAYOUTS
from rlhf_video.preferences.pair import DIMENSIONS, PreferencePair, pair_to_json
from rlhf_video.preferences.pairing import Pairing, SplitConfig, VotesConfig, pairs_from_votes, write_pairs
from rlhf_video.preferences.store import PreferenceStore
from rlhf_video.settings import check_range, to_plain

CHECKSUMS = "SHA256SUMS"
MANIFEST = "manifest.json"
OTHER_SYSTEMS = "of systems that were not asked for"
_ENDINGS = {"videoalign": ".csv", "pickapic": ".parquet", "datasets": "", "trl": ".jsonl", "trl-unpaired": ".jsonl"}


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Which votes become pairs, and how."""

    votes: VotesConfig = field(default_factory=VotesConfig)
    """The rule. `votes.question` decides about a pair: a question of the study, "weighted" or "pareto", which are made
    of the dimensions; training then sets pairs.question to the same word."""
    weights: dict[str, float] = field(default_factory=lambda: dict.fromkeys(DIMENSIONS, 1.0))
    """Dimension -> weight for "weighted"; "pareto" takes the names alone. Ours: all alike."""
    bad_pairs: Literal["say so", "answer"] = "say so"
    """What a vote that calls both clips unacceptable says: "both-bad", or what else was answered, as of other votes."""
    systems: tuple[str, ...] = ()
    """Only votes between these systems; empty for all. A model learns most from clips of its own."""
    split: SplitConfig = field(default_factory=SplitConfig)
    """Validation share, seed, and what is done about evaluation prompts."""
    layouts: tuple[str, ...] = ()
    """Further layouts to write: videoalign, pickapic, datasets, trl, trl-unpaired."""

    def __post_init__(self) -> None:
        """Check names and weights."""
        unknown = [name for name in self.layouts if name not in LAYOUTS]
        if unknown:
            raise ConfigError(
                f"layouts={list(self.layouts)}: there are {', '.join(LAYOUTS)}; the canonical one is always there."
            )
        if self.votes.question in (WEIGHTED, PARETO):
            for name, weight in self.weights.items():
                check_range(f"weights.{name}", weight, above=0.0)
            if not self.weights:
                raise ConfigError(f"weights is empty: name the dimensions that '{self.votes.question}' is made of.")


@dataclass(frozen=True)
class WrittenExport:
    """What was exported."""

    id: str
    """Of the row."""
    folder: Path
    num_pairs: Mapping[str, int]
    """Part -> pairs."""
    left_out: Mapping[str, int]
    """Reason -> votes or comparisons that became no pair."""


def export_votes(
    arena: Arena,
    slug: str,
    config: ExportConfig,
    *,
    evaluation: Mapping[str, PromptSuite] | None = None,
    actor: str = "admin",
) -> WrittenExport:
    """Write the votes of a study as training data; the same votes and settings give the same bytes and the same row.

    Args:
        arena: Open for writing.
        slug: The study.
        config: Which votes, and how.
        evaluation: Prompt suites that results are measured on, by name: their prompts may not be trained on.
        actor: Who does it, for the audit log.

    Raises:
        DataError: No pair is left, a pair has an evaluation prompt, a part is empty, or originals are missing or
            changed.
        ConfigError: The study does not ask the question.
    """
    with arena.reading() as session:
        study = find_study(session, slug)
        _check_question(study, config)
        votes = sort_votes(session, study)
        head = last_vote_entry(session, study)
        clips = read_judged_clips(session, study, votes.clean, arena.config.data)
        study_id = study.id
    records, left_out = _records(votes.clean, clips, config)
    if not records:
        why = (
            "; ".join(f"{count}: {reason}" for reason, count in {**votes.left_out, **left_out}.items())
            or "nobody voted"
        )
        raise DataError(f"The study '{slug}' has no vote to export ({why}).")
    pairing = pairs_from_votes(records, config.votes)
    pairing = replace(pairing, unused=dict(sorted({**pairing.unused, **votes.left_out, **left_out}.items())))
    sources = {
        "votes": _sha256_of([pair_to_json(record) for record in records]),
        f"audit log up to entry {head.number}": head.sha256,
    }
    query = _sha256_of(
        [slug, to_plain(config), sources, {name: suite.sha256 for name, suite in (evaluation or {}).items()}]
    )
    path = f"exports/{slug}-{query[:12]}"
    folder = arena.config.data / path
    if not folder.is_dir():
        _write(folder, pairing, clips, config, sources, evaluation or {})
    if not (folder / CHECKSUMS).is_file():
        _finish(folder, config)
    return _stored(arena, study_id, slug, path, config, actor=actor)


def last_vote_entry(session: Session, study: Study) -> Head:
    """Return the newest entry of the audit log that says which votes of a study count: votes and exclusions."""
    of_study = (
        select(Vote.id).join(Assignment, Assignment.id == Vote.assignment_id).where(Assignment.study_id == study.id)
    )
    last = session.execute(
        select(AuditEntry.number, AuditEntry.sha256)
        .where(or_(AuditEntry.subject.in_(of_study), AuditEntry.action.like("exclusion.%")))
        .order_by(AuditEntry.number.desc())
        .limit(1)
    ).first()
    return Head(0, START) if last is None else Head(last.number, last.sha256)


def _check_question(study: Study, config: ExportConfig) -> None:
    asked = policy_of(study).questions
    question = config.votes.question
    wanted = set(config.weights) if question in (WEIGHTED, PARETO) else {question}
    unasked = sorted(wanted - set(asked))
    if unasked:
        raise ConfigError(f"The study '{study.slug}' asks {', '.join(asked)}, and not {', '.join(unasked)}.")


def _records(
    votes: Sequence[CleanVote], clips: JudgedClips, config: ExportConfig
) -> tuple[list[PreferencePair], Counter[str]]:
    """Return the votes as records, and why others are none."""
    records, left_out = [], Counter[str]()
    for vote in votes:
        if config.systems and not set(vote.systems) <= set(config.systems):
            left_out[OTHER_SYSTEMS] += 1
            continue
        made = record_of(
            vote,
            clips,
            question=config.votes.question,
            weights=config.weights,
            bad_counts=config.bad_pairs == "say so",
        )
        if isinstance(made, str):
            left_out[made] += 1
        else:
            records.append(made)
    return sorted(records, key=pair_to_json), left_out


def _write(
    folder: Path,
    pairing: Pairing,
    clips: JudgedClips,
    config: ExportConfig,
    sources: Mapping[str, str],
    evaluation: Mapping[str, PromptSuite],
) -> None:
    """Fill a folder beside its place, and move it there when it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder.parent) as work:
        unfinished = Path(work) / folder.name
        written = write_pairs(
            unfinished,
            pairing,
            rule="arena",
            settings=config,
            split=config.split,
            evaluation=evaluation,
            sources=sources,
        )
        files = {clips.records[key].path: file for key, file in clips.files.items()}
        for name in sorted({clip.path for pair in written.pairing.pairs for clip in pair.clips}):
            _link(files[name], unfinished / name)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():  # else somebody else finished the same export meanwhile
                raise


def _finish(folder: Path, config: ExportConfig) -> None:
    """Write the other layouts, at the final place since TRL's names files absolutely, and last the checksums."""
    parts = {part: PreferenceStore(folder / f"{part}.jsonl") for part in ("train", "validation")}
    counts = {
        layout: {
            part: _write_layout(layout, part, store, config.votes.question)
            for part, store in parts.items()
            if store.path.is_file()
        }
        for layout in config.layouts
    }
    if counts:
        write_atomic(folder / "layouts.json", (json.dumps(counts, indent=2) + "\n").encode())
    names = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{sha256_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in names]
    write_atomic(folder / CHECKSUMS, "".join(lines).encode())


def _write_layout(layout: str, part: str, store: PreferenceStore, question: str) -> dict[str, object]:
    """Write one part in another layout, its clips beside the canonical ones; return what was written and what not."""
    target = store.path.parent / layout / f"{part}{_ENDINGS[layout]}"
    target.parent.mkdir(parents=True, exist_ok=True)
    known = LAYOUTS[layout]
    asked = {"question": question} if known.asks_one_question else {}
    report = known.export_pairs(store.read(), store, target, copy_clips=known.must_copy, **asked)
    return {"rows": report.num_rows, "dropped": dict(report.dropped), "lost": dict(report.lost)}


def _link(source: Path, target: Path) -> None:
    """Give a file a second name where the disk can, else copy it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


def _stored(arena: Arena, study_id: str, slug: str, path: str, config: ExportConfig, *, actor: str) -> WrittenExport:
    """Note the export in the database, once."""
    folder = arena.config.data / path
    manifest = json.loads((folder / MANIFEST).read_text())
    digest = sha256_file(folder / MANIFEST)
    num_pairs = {name: part["num_pairs"] for name, part in manifest["parts"].items()}

    def change(session: Session) -> str:
        known = session.scalar(select(Export.id).where(Export.study_id == study_id, Export.path == path))
        if known is not None:
            return known
        row = Export(study_id=study_id, settings=to_plain(config), manifest_sha256=digest, path=path)
        session.add(row)
        session.flush()
        details = {"study": slug, "path": path, "manifest_sha256": digest, "pairs": num_pairs}
        append_entry(session, actor=actor, action="export.written", subject=row.id, details=details)
        return row.id

    left_out = Counter(manifest["comparisons"]["dropped"]) + Counter(manifest["unused_inputs"])
    return WrittenExport(arena.writer.run(change), folder, num_pairs, dict(sorted(left_out.items())))


def _sha256_of(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
