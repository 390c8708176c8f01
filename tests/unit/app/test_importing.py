"""Clips into a study: what comes in, what is refused, and pairs with a known answer."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import select

from app.arena_config import ArenaConfig
from app.arena_state import Arena, open_arena
from app.database.tables import AuditEntry, Pair, Study, System, Video
from app.studies.gold import make_gold_pairs
from app.studies.import_requests import ImportRequest, import_and_check
from app.studies.importing import import_folder
from app.studies.media import MediaPolicy
from app.studies.study import StudyPolicy, create_study, find_study, policy_of, set_status
from rlhf_video.data import sha256_file
from rlhf_video.data.video import write_video
from rlhf_video.errors import DataError


@pytest.fixture
def arena(tmp_path: Path) -> Any:
    """Return an arena with an empty study of small clips; imports do the same on either database."""
    policy = StudyPolicy(media=MediaPolicy(height=64, width=64))
    with open_arena(ArenaConfig(data=tmp_path / "arena"), create=True) as arena:
        arena.writer.run(lambda session: create_study(session, slug="shapes", name="", policy=policy))
        yield arena


def write_folder(folder: Path, *, shade: float, prompts: int = 3) -> Path:
    """Write clips of moving bars and their manifest, as generate.py does."""
    records = []
    for number in range(prompts):
        video = torch.zeros(16, 3, 64, 64)
        for frame in range(16):
            video[frame, :, :, (frame * 3 + number * 7) % 64 : (frame * 3 + number * 7) % 64 + 9] = shade
        file = folder / f"{number:04}.mp4"
        write_video(file, video, fps=16)
        records.append({"file": file.name, "prompt": f"bar {number}", "seed": number, "sha256": sha256_file(file)})
    (folder / "manifest.json").write_text(json.dumps({"model": "tiny", "clips": records}))
    return folder


def test_two_systems_meet_on_the_same_prompt_and_number(arena: Arena, tmp_path: Path) -> None:
    first = import_folder(arena, "shapes", "one", write_folder(tmp_path / "one", shade=0.9))
    assert (first.new_clips, first.new_pairs, first.has_pairs) == (3, 0, False)
    second = import_folder(arena, "shapes", "two", write_folder(tmp_path / "two", shade=0.5), parent="one")
    assert (second.new_clips, second.new_pairs, second.has_pairs) == (3, 3, True)
    again = import_folder(arena, "shapes", "two", tmp_path / "two")
    assert (again.new_clips, again.known_clips, again.new_pairs) == (0, 3, 0)
    with arena.reading() as session:
        for pair in session.scalars(select(Pair)):
            assert pair.a.prompt_id == pair.b.prompt_id == pair.prompt_id
            assert pair.a.system_id != pair.b.system_id
        video = session.scalars(select(Video)).first()
        assert video is not None
        assert sha256_file(arena.config.data / video.source_path) == video.source_sha256
        assert (video.height, video.width, video.num_frames) == (64, 64, 16)
        assert set(video.play_files) == {"video/mp4", "video/webm"}
        assert session.scalar(select(System.parent_id).where(System.name == "two")) is not None


def test_the_log_says_who_imported(arena: Arena, tmp_path: Path) -> None:
    for name, shade in (("one", 0.9), ("two", 0.5)):
        folder = write_folder(tmp_path / name, shade=shade)
        import_and_check(arena, ImportRequest(study="bars", system=name, folder=folder, num_gold=2, actor="ann"))
    with arena.reading() as session:
        bars = session.scalars(select(Study.id).where(Study.slug == "bars")).one()
        rows = session.execute(select(AuditEntry.actor, AuditEntry.action).where(AuditEntry.action != "study.created"))
        assert {tuple(row) for row in rows} == {
            ("ann", action) for action in ("clips.imported", "study.status", "gold.made")
        }
        made = select(AuditEntry.actor).where(AuditEntry.subject == bars, AuditEntry.action == "study.created")
        assert session.scalar(made) == "ann"


def test_a_paused_study_stays_paused_when_more_comes_in(arena: Arena, tmp_path: Path) -> None:
    for name, shade in (("one", 0.9), ("two", 0.5)):
        import_folder(arena, "shapes", name, write_folder(tmp_path / name, shade=shade))
    arena.writer.run(
        lambda session: set_status(session, session.scalars(select(Study)).one(), "paused", actor="ann") and None
    )
    third = import_folder(arena, "shapes", "three", write_folder(tmp_path / "three", shade=0.2))
    assert third.new_pairs == 6 and third.has_pairs
    with arena.reading() as session:
        assert session.scalars(select(Study.status)).one() == "paused"
        steps = session.execute(
            select(AuditEntry.actor, AuditEntry.details)
            .where(AuditEntry.action == "study.status")
            .order_by(AuditEntry.number)
        ).all()
    assert [(actor, json.loads(details)["to"]) for actor, details in steps] == [("admin", "open"), ("ann", "paused")]


def test_first_clips_settle_the_size_of_a_study_that_names_none(arena: Arena, tmp_path: Path) -> None:
    arena.writer.run(lambda session: create_study(session, slug="open", name="", policy=StudyPolicy()))
    import_folder(arena, "open", "one", write_folder(tmp_path / "one", shade=0.9, prompts=1))
    with arena.reading() as session:
        assert session.execute(select(Video.height, Video.width)).all() == [(384, 384)]
        media = policy_of(find_study(session, "open")).media
        assert media is not None
        assert (media.height, media.width) == (384, 384)


def test_every_bad_clip_is_told_and_nothing_is_stored(arena: Arena, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "bad", shade=0.9, prompts=5)
    (folder / "0000.mp4").write_bytes(b"")
    (folder / "0001.mp4").unlink()
    shutil.copy(folder / "0003.mp4", folder / "0002.mp4")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["clips"][0]["sha256"] = sha256_file(folder / "0000.mp4")
    manifest["clips"].append({**manifest["clips"][4], "prompt": "the same clip for another prompt"})
    manifest["clips"].append({**manifest["clips"][4], "file": "../outside.mp4"})
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError) as caught:
        import_folder(arena, "shapes", "one", folder)
    for words in ("0000.mp4' is empty", "'0001.mp4' is missing", "'0002.mp4' is not the file", "outside of the folder"):
        assert words in str(caught.value)
    with arena.reading() as session:
        assert session.scalars(select(Video)).all() == []
        assert session.scalars(select(System)).all() == []
    report = import_folder(arena, "shapes", "one", folder, skip_bad=True)
    assert report.new_clips == 2
    assert len(report.problems) == 5


def test_folder_without_manifest_is_refused(arena: Arena, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no manifest\.json"):
        import_folder(arena, "shapes", "one", tmp_path)


def test_clips_that_were_judged_are_not_replaced(arena: Arena, tmp_path: Path) -> None:
    import_folder(arena, "shapes", "one", write_folder(tmp_path / "one", shade=0.9))
    with pytest.raises(DataError, match="another clip number 0 of 'bar 0' already"):
        import_folder(arena, "shapes", "one", write_folder(tmp_path / "other", shade=0.4))


def test_gold_pairs_have_an_answer_and_no_system_to_count_for(arena: Arena, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no clips"):
        make_gold_pairs(arena, "shapes", count=4)
    import_folder(arena, "shapes", "one", write_folder(tmp_path / "one", shade=0.9))
    assert make_gold_pairs(arena, "shapes", count=4) == 4
    assert make_gold_pairs(arena, "shapes", count=4) == 0
    assert make_gold_pairs(arena, "shapes", count=2, kind="practice") == 2
    with arena.reading() as session:
        gold = session.scalars(select(Pair).where(Pair.kind == "gold")).all()
        kinds = [pair.gold for pair in gold]
        assert (kinds.count("identical"), kinds.count("prompt-swap")) == (1, 1)
        for pair in gold:
            expected = set((pair.expected or {}).values())
            assert expected == ({"tie"} if pair.gold == "identical" else {"A"})
            if pair.gold not in ("identical", "prompt-swap"):
                assert pair.b.system_id is None
                assert pair.a.system_id is not None
        assert session.scalar(select(Study.status)) == "paused"  # one system: nothing to compare


def test_gold_pairs_know_the_answers_to_what_the_study_asks_alone(arena: Arena, tmp_path: Path) -> None:
    policy = StudyPolicy(media=MediaPolicy(height=64, width=64), questions=("overall",))
    arena.writer.run(lambda session: create_study(session, slug="short", name="", policy=policy) and None)
    import_folder(arena, "short", "one", write_folder(tmp_path / "one", shade=0.9))
    assert make_gold_pairs(arena, "short", count=4) == 3  # nothing is known of a clip of another prompt
    with arena.reading() as session:
        gold = {pair.gold: pair.expected for pair in session.scalars(select(Pair))}
    assert gold.pop("identical") == {"overall": "tie"}
    assert list(gold.values()) == [{"overall": "A"}] * 2
