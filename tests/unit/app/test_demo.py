"""The demo: complete whatever interrupts its making, and open to an admin who reads the terminal."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import func, select

from app import demo
from app.admin_password import hash_password, is_password
from app.arena_config import ArenaConfig
from app.arena_state import Arena, open_arena
from app.database.audit_log import read_head
from app.database.tables import Pair, System, Video
from app.studies.study import find_study

ROOT = Path(__file__).resolve().parents[3]
NUM_PROMPTS = 2


@pytest.fixture
def arena(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Arena]:
    """Return an empty arena; the demo's clips are those of the first prompts alone."""
    few = tmp_path / "clips"
    for system in ("base", "reward-bp", "dpo"):
        source, folder = demo.CLIPS / system, few / system
        folder.mkdir(parents=True)
        manifest = json.loads((source / "manifest.json").read_text())
        manifest["clips"] = manifest["clips"][:NUM_PROMPTS]
        (folder / "manifest.json").write_text(json.dumps(manifest))
        for clip in manifest["clips"]:
            shutil.copy(source / clip["file"], folder)
    shutil.copy(demo.CLIPS / "prompts.txt", few)
    monkeypatch.setattr(demo, "CLIPS", few)
    with open_arena(ArenaConfig(data=tmp_path / "arena"), create=True) as arena:
        yield arena


def test_a_demo_that_was_interrupted_is_completed_and_then_left_alone(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(demo, "make_gold_pairs", interrupt)
        with pytest.raises(KeyboardInterrupt):
            demo.ensure_demo(arena)
    demo.ensure_demo(arena)
    with arena.reading() as session:
        kinds = dict(session.execute(select(Pair.kind, func.count()).group_by(Pair.kind)).all())
        assert find_study(session, demo.SLUG).status == "open"
        assert sorted(session.scalars(select(System.name))) == ["base", "dpo", "reward-bp"]
        real = select(func.count()).select_from(Video).where(Video.system_id.is_not(None))
        assert session.scalar(real) == 3 * NUM_PROMPTS
        head = read_head(session)
    assert kinds["real"] == 3 * NUM_PROMPTS
    assert kinds["practice"] == 3
    assert kinds["gold"] > 3
    demo.ensure_demo(arena)
    with arena.reading() as session:
        assert read_head(session) == head


def test_the_demo_has_an_admin_unless_the_config_names_one(tmp_path: Path) -> None:
    plain = ArenaConfig(data=tmp_path)
    config, password = demo.open_to_admin(plain)
    assert password is not None
    assert len(password) >= 12
    assert config.admin_password is not None
    assert is_password(password, config.admin_password)
    assert demo.open_to_admin(plain)[1] != password
    for named in (replace(plain, admin_password=hash_password("mine")), replace(plain, admin_header="X-User")):
        config, password = demo.open_to_admin(named)
        assert (config.admin_password, password) == (named.admin_password, None)


@pytest.mark.slow
def test_the_arena_starts_without_the_models() -> None:
    heavy = "{'diffusers', 'peft', 'transformers', 'datasets'}"  # half of the time that a start would take
    program = f"import sys, app.arena, app.commands; print(sorted({heavy} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"
