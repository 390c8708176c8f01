"""The demo: the built-in model's clips against those of its two adapters, ready to be judged on this machine.

The clips in assets/arena-demo were made by

    make_clips() { python rlhf_video/generate.py seed=7 prompts=assets/arena-demo/prompts.txt output_dir="$@"; }
    make_clips assets/arena-demo/base
    make_clips assets/arena-demo/reward-bp adapter=adapters/sprite-wan-reward-bp
    make_clips assets/arena-demo/dpo adapter=adapters/sprite-wan-dpo
"""

import logging
from pathlib import Path

from sqlalchemy import select

from app.arena_state import Arena
from app.database.tables import Study
from app.studies.gold import make_gold_pairs
from app.studies.importing import import_folder
from app.studies.study import StudyPolicy, create_study
from rlhf_video.data import load_prompts

logger = logging.getLogger(__name__)
CLIPS = Path(__file__).resolve().parents[1] / "assets" / "arena-demo"
SLUG = "sprites"


def ensure_demo(arena: Arena) -> None:
    """Make the demo study where it is not there yet; takes about a minute of one core."""
    with arena.reading() as session:
        if session.scalar(select(Study.id).where(Study.slug == SLUG, Study.status == "open")):
            return
        exists = session.scalar(select(Study.id).where(Study.slug == SLUG)) is not None
    if not exists:
        policy = StudyPolicy(min_watch_s=1.0, public_board=True)  # the clips last 1.3 s and loop
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
