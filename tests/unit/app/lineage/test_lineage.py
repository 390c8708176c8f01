"""A trained adapter comes back as a child system, and the tree says whether people saw a difference."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import select

from app.arena_state import Arena
from app.command_line import parse_request
from app.commands import execute
from app.database.tables import AuditEntry, Pair, System, Video, utc_now
from app.lineage.export import ExportConfig, WrittenExport, export_votes
from app.lineage.head_to_head import head_to_head
from app.lineage.lineage import lineage_of
from app.lineage.systems import register_trained
from app.studies.study import find_study
from app.voting.clean_votes import clean_votes
from app.voting.outcome_tally import OutcomeTally
from rlhf_video.data.files import sha256_file
from rlhf_video.data.video import write_video
from rlhf_video.errors import DataError
from rlhf_video.preferences.pairing import SplitConfig

PROMPTS = tuple(f"a square number {number}" for number in range(12))


def exported(loop: Arena, ballots: Any) -> WrittenExport:
    """Export votes on the first four prompts, of which one is held out."""
    for prompt in PROMPTS[:4]:
        for rater in ("ann", "bob"):
            ballots.cast(prompt, "tuned", rater=rater)
    return export_votes(loop, "loop", ExportConfig(split=SplitConfig(validation_share=0.0)))


def make_run(folder: Path, pairs: Path, *, start: Path | None = None) -> Path:
    """Leave what a finished run of train_dpo.py leaves, as far as it is read."""
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "pytorch_lora_weights.safetensors").write_bytes(folder.name.encode())
    (folder / "card.json").write_text(json.dumps({"pairs": {"file_sha256": sha256_file(pairs)}}))
    lines = ["backbone: assets/sprite-wan", f"reference: {{kind: adapter_off, start_adapter: {start or 'null'}}}"]
    (folder / "config.yaml").write_text("\n".join(lines) + "\n")
    return folder


def make_clips(folder: Path, run: Path, prompts: tuple[str, ...], *, shade: float = 0.5) -> Path:
    """Leave what generate.py leaves."""
    weights = (run / "adapter" / "pytorch_lora_weights.safetensors").read_bytes()
    clips = []
    for number, prompt in enumerate(prompts):
        file = folder / f"{number}.mp4"
        folder.mkdir(exist_ok=True)
        write_video(file, torch.full((8, 3, 16, 16), shade + number / 64), fps=8)
        clips.append({"file": file.name, "prompt": prompt, "seed": 7, "sha256": sha256_file(file)})
    facts = {"model": "assets/sprite-wan", "adapter": "x", "adapter_sha256": hashlib.sha256(weights).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps({**facts, "clips": clips}))
    return folder


def test_trained_adapter_meets_its_parent_and_the_first_ancestor_only(
    loop: Arena, ballots: Any, tmp_path: Path
) -> None:
    written = exported(loop, ballots)
    first = make_run(tmp_path / "first", written.folder / "train.jsonl")
    clips = make_clips(tmp_path / "clips-1", first, PROMPTS[2:6])
    child = register_trained(loop, "loop", "dpo-1", run=first, clips=clips)
    assert (child.parent, child.export, child.trained_prompts) == ("base", written.id, 2)
    assert (child.new_clips, child.new_pairs) == (4, 4)  # the base alone, not tuned and other
    assert register_trained(loop, "loop", "dpo-1", run=first, clips=clips).new_clips == 0

    for rater in ("ann", "bob"):
        ballots.cast(PROMPTS[5], "other", rater=rater)
    again = export_votes(loop, "loop", ExportConfig(split=SplitConfig(validation_share=0.0), systems=("base", "other")))
    second = make_run(tmp_path / "second", again.folder / "train.jsonl", start=first / "adapter")
    clips = make_clips(tmp_path / "clips-2", second, PROMPTS[2:6], shade=0.7)
    grandchild = register_trained(loop, "loop", "dpo-2", run=second, clips=clips)
    assert (grandchild.parent, grandchild.new_pairs, grandchild.export) == ("dpo-1", 8, again.id)
    assert grandchild.trained_prompts == 3  # 5 by itself, 2 and 3 by its parent
    with loop.reading() as session:
        names = {row.id: row.name for row in session.scalars(select(System))}
        met = set()
        for pair in session.scalars(select(Pair)):
            systems = {names[session.get_one(Video, video).system_id] for video in (pair.a_id, pair.b_id)}
            met |= {frozenset(systems)} if "dpo-2" in systems else set()
        assert met == {frozenset(("dpo-2", "dpo-1")), frozenset(("dpo-2", "base"))}
        assert session.scalars(select(AuditEntry.action)).all().count("system.registered") == 2


def test_tree_counts_votes_on_unseen_prompts_alone(loop: Arena, ballots: Any, tmp_path: Path) -> None:
    written = exported(loop, ballots)
    run = make_run(tmp_path / "run", written.folder / "train.jsonl")
    register_trained(loop, "loop", "dpo", run=run, clips=make_clips(tmp_path / "clips", run, PROMPTS[2:]))
    for number, prompt in enumerate(PROMPTS[2:]):
        for rater in ("ann", "bob"):
            wins = number not in (5, 6)
            ballots.cast(prompt, "dpo" if wins else "base", other="base" if wins else "dpo", rater=rater)
    with loop.reading() as session:
        nodes = lineage_of(session, find_study(session, "loop"), loop.config.data)
    assert [(node.name, node.parent, node.depth) for node in nodes] == [
        ("base", None, 0),
        ("dpo", "base", 1),
        ("tuned", None, 0),
        ("other", None, 0),
    ]
    base, child = nodes[0], nodes[1]
    assert (base.against_parent, base.num_votes, child.num_votes) == (None, 8 + 20, 20)
    assert child.trained_on is not None and child.trained_on.num_pairs == {"train": 4}
    fight = child.against_parent
    assert fight is not None and fight.rating is not None
    assert (fight.wins, fight.ties, fight.losses) == (12, 0, 4)  # prompts 4 to 11: 2 and 3 were trained on
    assert fight.win_rate.mean == pytest.approx(0.75)
    assert fight.win_rate.low < 0.75 < fight.win_rate.high
    assert fight.rating.mean == pytest.approx(1.0986, abs=1e-3)  # ln 3
    assert child.against_first is None


def test_foreign_runs_foreign_clips_and_unclear_parents_are_refused(loop: Arena, ballots: Any, tmp_path: Path) -> None:
    written = exported(loop, ballots)
    run = make_run(tmp_path / "run", written.folder / "train.jsonl")
    clips = make_clips(tmp_path / "clips", run, PROMPTS[:1])
    other = make_run(tmp_path / "other", written.folder / "manifest.json")
    with pytest.raises(DataError, match="not made with the adapter"):
        register_trained(loop, "loop", "dpo", run=other, clips=clips)
    with pytest.raises(DataError, match="None of the 1 exports"):
        register_trained(loop, "loop", "dpo", run=other, clips=make_clips(tmp_path / "theirs", other, PROMPTS[:1]))
    with pytest.raises(DataError, match=r"no card\.json"):
        register_trained(loop, "loop", "dpo", run=tmp_path, clips=clips)
    with pytest.raises(DataError, match="no system 'bass'"):
        register_trained(loop, "loop", "dpo", run=run, clips=clips, parent="bass")
    loop.writer.run(_second_base)
    with pytest.raises(DataError, match="2 systems of this study are the base"):
        register_trained(loop, "loop", "dpo", run=run, clips=clips)
    assert register_trained(loop, "loop", "dpo", run=run, clips=clips, parent="base").parent == "base"


def _second_base(session: Any) -> None:
    base = session.scalar(select(System).where(System.name == "base"))
    session.add(System(study_id=base.study_id, name="base-again", origin=base.origin))


def test_commands_export_and_print_the_tree(
    loop: Arena, ballots: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for prompt in PROMPTS[:4]:
        ballots.cast(prompt, "tuned")
    data = ["--data", str(loop.config.data)]
    settings = ["--with", "votes.threshold=0.7", "--with", "split.validation_share=0"]
    assert execute(*parse_request(["export", "loop", *data, *settings])) == 0
    told = capsys.readouterr().out
    assert told.startswith("4 pairs: ")
    run = make_run(tmp_path / "run", Path(told.removeprefix("4 pairs: ").splitlines()[0]))
    clips = make_clips(tmp_path / "clips", run, PROMPTS[3:6])
    assert execute(*parse_request(["register", "loop", "dpo", str(run), str(clips), *data])) == 0
    told = capsys.readouterr().out
    assert "'dpo' comes from 'base': 3 new clips, 3 new pairs" in told
    assert "trained on 1 of its prompts" in told
    ballots.cast(PROMPTS[4], "dpo", other="base")
    assert execute(*parse_request(["lineage", "loop", *data])) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "dpo" in line]
    assert len(rows) == 1 and "1:0:0" in rows[0]
    suite = tmp_path / "test.txt"
    suite.write_text(f"{PROMPTS[0]}\n")
    with pytest.raises(DataError, match="evaluation suite"):
        execute(*parse_request(["export", "loop", *data, *settings, "--evaluation", str(suite)]))


def test_two_bad_clips_are_a_tie_as_on_the_leaderboard(loop: Arena, ballots: Any) -> None:
    for number, prompt in enumerate(PROMPTS):
        ballots.cast(prompt, "tuned", both_bad=number < 9)
    with loop.reading() as session:
        study = find_study(session, "loop")
        found = head_to_head(clean_votes(session, study), "tuned", "base")
        counts = next(iter(OutcomeTally().outcomes(session, study, utc_now()).values()))
    assert found is not None and (found.wins, found.ties, found.losses) == (3, 9, 0)
    assert sorted(counts) == [0, 3, 9]
