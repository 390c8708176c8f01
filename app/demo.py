"""The demo: the built-in model's clips against those of its two adapters, ready to be judged on this machine.

The clips in assets/arena-demo were made by

    make_clips() { python rlhf_video/generate.py seed=7 prompts=assets/arena-demo/prompts.txt output_dir="$@"; }
    make_clips assets/arena-demo/base
    make_clips assets/arena-demo/reward-bp adapter=adapters/sprite-wan-reward-bp
    make_clips assets/arena-demo/dpo adapter=adapters/sprite-wan-dpo
"""

import logging
import secrets
from dataclasses import replace
from pathlib import Path

from sqlalchemy import select

from app.admin_password import hash_password
from app.arena_config import ArenaConfig
from app.arena_state import Arena
from app.database.tables import Pair, Study
from app.studies.gold import make_gold_pairs
from app.studies.importing import import_folder
from app.studies.media import MediaPolicy
from app.studies.study import StudyPolicy, create_study
from rlhf_video.data import load_prompts

logger = logging.getLogger(__name__)
CLIPS = Path(__file__).resolve().parents[1] / "assets" / "arena-demo"
SLUG = "sprites"


def open_to_admin(config: ArenaConfig) -> tuple[ArenaConfig, str | None]:
    """Give a demo whose config lets no admin in a password of its own, and folders to import from.

    Returns:
        The config, and the password in words; None where the config says who the admin is.
    """
    if config.import_folder is None:
        config = replace(config, import_folder=Path("runs"))
    if config.admin_password is not None or config.admin_header is not None:
        return config, None
    password = secrets.token_urlsafe(9)
    return replace(config, admin_password=hash_password(password)), password


def ensure_demo(arena: Arena) -> None:
    """Make the demo study, or what is missing of it; takes about half a minute of one core."""
    with arena.reading() as session:
        exists = session.scalar(select(Study.id).where(Study.slug == SLUG)) is not None
        last = select(Pair.id).join(Study, Study.id == Pair.study_id).where(Study.slug == SLUG, Pair.kind == "practice")
        if session.scalar(last.limit(1)):
            return
    if not exists:
        media = MediaPolicy(height=256, width=256)  # four times the clips' size: half the work of the usual six
        policy = StudyPolicy(min_watch_s=1.0, public_board=True, media=media)  # the clips last 1.3 s and loop
        arena.writer.run(lambda session: create_study(session, slug=SLUG, name="Moving shapes", policy=policy))
    for system, parent in (("base", None), ("reward-bp", "base"), ("dpo", "base")):
        report = import_folder(arena, SLUG, system, CLIPS / system, parent=parent, tags=_categories())
        logger.info("Imported %d clips of %s", report.new_clips, system)
    make_gold_pairs(arena, SLUG, count=12)
    make_gold_pairs(arena, SLUG, count=3, kind="practice")


def _categories() -> dict[str, tuple[str, ...]]:
    """Return the leaderboard's categories of each prompt: its motion."""
    prompts = load_prompts(CLIPS / "prompts.txt").prompts
    return {prompt: ("still",) if "standing still" in prompt else ("moving",) for prompt in prompts}
