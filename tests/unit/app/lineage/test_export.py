"""Votes become training data: what is kept, what is counted out, and the same bytes every time."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from app.arena_state import Arena
from app.database.audit_log import first_broken_entry
from app.database.tables import AuditEntry, Exclusion, Export, Prompt, Video
from app.lineage.export import ExportConfig, WrittenExport, export_votes
from rlhf_video.data.prompts import PromptSuite
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.preferences import PreferencePair, PreferenceStore, audit_pairs
from rlhf_video.preferences.pairing import SplitConfig, VotesConfig

PROMPTS = tuple(f"a square number {number}" for number in range(12))
ALL = SplitConfig(validation_share=0.0)


def export(arena: Arena, **changes: Any) -> WrittenExport:
    """Export the study without a validation part, unless asked for."""
    return export_votes(arena, "loop", ExportConfig(**{"split": ALL, **changes}))


def pairs_of(written: WrittenExport, part: str = "train") -> tuple[PreferencePair, ...]:
    """Read one part."""
    return PreferenceStore(written.folder / f"{part}.jsonl").read()


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def winner_model(pair: PreferencePair, question: str = "overall") -> tuple[str | None, str | None]:
    """Return model and adapter of the preferred clip."""
    clip = pair.a if pair.winner(question) == "A" else pair.b
    return clip.model, clip.adapter


def test_votes_become_pairs_of_original_clips(loop: Arena, ballots: Any) -> None:
    for rater in ("ann", "bob"):
        ballots.cast(PROMPTS[0], "tuned", rater=rater)
    ballots.cast(PROMPTS[1], "tuned")  # one vote decides nothing
    ballots.cast(PROMPTS[2], "tie")
    written = export(loop)
    (pair,) = pairs_of(written)
    assert winner_model(pair) == ("assets/sprite-wan", "runs/a/adapter")
    assert pair.prompt == PROMPTS[0]
    assert (pair.num_votes, pair.confidence) == (2, pytest.approx(0.875))
    assert {clip.sampler.get("num_steps") for clip in pair.clips} == {10, None}
    for clip in pair.clips:
        assert (clip.num_frames, clip.height, clip.width, clip.fps) == (8, 16, 16, 8.0)  # of the file, not the player
    store = PreferenceStore(written.folder / "train.jsonl")
    audit_pairs([pair], store, questions=("overall",), decode=True, hashes=True).refuse_errors()
    assert written.left_out == {"the votes decide nothing": 1, "tie": 1}
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=written.folder, check=True)


def test_the_same_votes_give_the_same_bytes_and_one_row(loop: Arena, ballots: Any, tmp_path: Path) -> None:
    for prompt in PROMPTS:
        for rater in ("ann", "bob"):
            ballots.cast(prompt, "tuned", rater=rater)
    options: dict[str, Any] = {"layouts": ("videoalign", "trl"), "split": SplitConfig(validation_share=0.3)}
    first = export(loop, **options)
    before = contents(first.folder)
    assert export(loop, **options) == first
    first.folder.rename(tmp_path / "away")
    again = export(loop, **options)
    assert contents(again.folder) == before
    with loop.reading() as session:
        assert len(session.scalars(select(Export)).all()) == 1
        actions = session.scalars(select(AuditEntry.action)).all()
        assert actions.count("export.written") == 1
        assert first_broken_entry(session) is None
    ballots.cast(PROMPTS[0], "base", rater="cid", other="tuned")
    assert export(loop, **options).folder != first.folder


def test_prompts_are_split_and_every_layout_is_written(loop: Arena, ballots: Any) -> None:
    pytest.importorskip("pyarrow")
    for prompt in PROMPTS:
        for rater in ("ann", "bob"):
            ballots.cast(prompt, "tuned", rater=rater)
    names = ("videoalign", "pickapic", "datasets", "trl", "trl-unpaired")
    written = export(loop, layouts=names, split=SplitConfig(validation_share=0.3))
    train, held_out = pairs_of(written), pairs_of(written, "validation")
    assert len(train) + len(held_out) == len(PROMPTS) and held_out
    assert not {pair.prompt for pair in train} & {pair.prompt for pair in held_out}
    counts = json.loads((written.folder / "layouts.json").read_text())
    assert set(counts) == set(names)
    for name in ("videoalign", "pickapic", "trl"):
        assert counts[name]["train"]["rows"] == len(train)
    assert counts["trl-unpaired"]["train"]["rows"] == 2 * len(train)
    rows = [json.loads(line) for line in (written.folder / "trl" / "train.jsonl").read_text().splitlines()]
    assert len(rows) == len(train)


def test_what_does_not_count_is_counted_by_reason(loop: Arena, ballots: Any) -> None:
    for rater in ("ann", "bob"):
        ballots.cast(PROMPTS[0], "tuned", rater=rater)
        ballots.cast(PROMPTS[1], "other", rater=rater)
    excluded = ballots.cast(PROMPTS[2], "tuned")
    loop.writer.run(lambda session: session.add(Exclusion(vote_id=excluded, reason="too fast", actor="admin")))
    written = export(loop, systems=("base", "tuned"))
    manifest = json.loads((written.folder / "manifest.json").read_text())
    assert manifest["unused_inputs"] == {"of systems that were not asked for": 2, "vote excluded: too fast": 1}
    assert manifest["settings"]["systems"] == ["base", "tuned"]
    assert sorted(name.rstrip("0123456789") for name in manifest["sources"]) == ["audit log up to entry ", "votes"]


@pytest.mark.parametrize(("policy", "label"), [("say so", "both-bad"), ("answer", None)])
def test_two_bad_clips_say_so_or_count_as_they_were_answered(
    loop: Arena, ballots: Any, policy: str, label: str | None
) -> None:
    for rater in ("ann", "bob"):
        ballots.cast(PROMPTS[0], "tuned", rater=rater, both_bad=True)
    (pair,) = pairs_of(export(loop, bad_pairs=policy, votes=VotesConfig(both_bad="unpaired")))
    if label:
        assert pair.labels["overall"] == label
    else:
        assert winner_model(pair)[1] == "runs/a/adapter"


def test_soft_labels_are_posterior_means_and_ties_one_half(loop: Arena, ballots: Any) -> None:
    for rater in ("ann", "bob"):
        ballots.cast(PROMPTS[0], "tuned", rater=rater)
        ballots.cast(PROMPTS[1], "tie", rater=rater)
    decided, tied = pairs_of(export(loop, votes=VotesConfig(soft_labels=True, ties="soft")))
    assert max(decided.soft["overall"], 1 - decided.soft["overall"]) == pytest.approx((2 + 1) / (2 + 2))
    assert tied.soft["overall"] == 0.5


def test_dimensions_decide_by_weights_and_by_dominance(loop: Arena, ballots: Any) -> None:
    agreeing = {"visual_quality": "tuned", "motion_quality": "tuned", "text_alignment": "tie"}
    contrary = {"visual_quality": "tuned", "motion_quality": "tuned", "text_alignment": "base"}
    for rater in ("ann", "bob", "cid", "dan"):
        ballots.cast(PROMPTS[0], "base", other="tuned", rater=rater, answers=agreeing)
        ballots.cast(PROMPTS[1], "base", other="tuned", rater=rater, answers=contrary)
    pareto = export(loop, votes=VotesConfig(question="pareto"))
    (pair,) = pairs_of(pareto)
    assert pair.prompt == PROMPTS[0]
    assert winner_model(pair, "pareto")[1] == "runs/a/adapter"
    assert winner_model(pair, "overall")[1] is None  # the raters' own answer stays what it was
    assert pareto.left_out == {"tie": 1}
    heavy = {"visual_quality": 1.0, "motion_quality": 1.0, "text_alignment": 8.0}
    weighted = pairs_of(export(loop, votes=VotesConfig(question="weighted", threshold=0.7), weights=heavy))
    assert [winner_model(pair, "weighted")[1] for pair in weighted] == [None]
    assert [pair.prompt for pair in weighted] == [PROMPTS[1]]


def test_evaluation_prompts_are_refused(loop: Arena, ballots: Any) -> None:
    for rater in ("ann", "bob"):
        ballots.cast(PROMPTS[0], "tuned", rater=rater)
    suite = PromptSuite("test", "1", (PROMPTS[0].upper(),), "0" * 64)
    with pytest.raises(DataError, match="evaluation suite"):
        export_votes(loop, "loop", ExportConfig(split=ALL), evaluation={"test": suite})
    assert not list((loop.config.data / "exports").glob("*"))


def test_changed_and_missing_originals_are_named(loop: Arena, ballots: Any) -> None:
    for rater in ("ann", "bob"):
        ballots.cast(PROMPTS[0], "tuned", rater=rater)
    with loop.reading() as session:
        judged = session.scalars(select(Video).where(Video.system_id.is_not(None))).all()
    changed, missing = (loop.config.data / judged[index].source_path for index in (0, len(PROMPTS)))
    changed.write_bytes(b"x")
    missing.unlink()
    with pytest.raises(DataError, match="2 of 2 judged clips") as error:
        export(loop)
    assert changed.name in str(error.value) and missing.name in str(error.value)


def test_clip_of_which_raters_saw_a_part_is_left_out(loop: Arena, ballots: Any) -> None:
    for rater in ("ann", "bob"):
        ballots.cast(PROMPTS[0], "tuned", rater=rater)
        ballots.cast(PROMPTS[1], "tuned", rater=rater)
    first = select(Prompt.id).where(Prompt.text == PROMPTS[0]).scalar_subquery()
    loop.writer.run(
        lambda session: session.execute(update(Video).where(Video.prompt_id == first).values(num_frames=4)) and None
    )
    written = export(loop)
    assert [pair.prompt for pair in pairs_of(written)] == [PROMPTS[1]]
    assert written.left_out == {"raters saw only the beginning of a clip": 2}


def test_nothing_to_export_and_unknown_questions_are_said(loop: Arena) -> None:
    with pytest.raises(DataError, match="no vote to export"):
        export(loop)
    with pytest.raises(ConfigError, match="asks"):
        export(loop, votes=VotesConfig(question="beauty"))
    with pytest.raises(ConfigError, match="videoalign"):
        ExportConfig(layouts=("csv",))
