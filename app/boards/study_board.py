"""Leaderboards of a stored study: its policy says what nobody chose, and how sure the stopping rule must be."""

from collections.abc import Mapping

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.boards.board import Board, BoardSettings, make_board
from app.database.tables import Prompt, Study, System
from app.quality.gold_results import gold_results
from app.studies.study import policy_of
from app.voting.clean_votes import clean_votes
from rlhf_video.settings.building import build_config


def study_board(session: Session, study: Study, choices: Mapping[str, object]) -> Board:
    """Compute a study's leaderboard as things stand; arguments and errors as of `study_settings` and `make_board`."""
    settings = study_settings(session, study, choices)
    return make_board(clean_votes(session, study), settings, gold=gold_results(session, study))


def study_settings(session: Session, study: Study, choices: Mapping[str, object]) -> BoardSettings:
    """Return the settings of a study's leaderboard.

    What the stopping rule needs is fixed before anybody votes: prompts are complete with the study's overlap, and all
    its systems share the chance of a false call, whether they have votes or not.

    Args:
        session: Only read from.
        study: Whose leaderboard.
        choices: Fields of `BoardSettings` that somebody chose; None is no choice.

    Raises:
        ConfigError: A field or a value is not known.
    """
    policy = policy_of(study)
    plan = {
        "model": policy.tie_model,
        "votes_per_prompt": policy.overlap,
        "error_rate": policy.error_rate,
        "overlap": policy.overlap,
        "num_systems": session.scalar(select(func.count()).where(System.study_id == study.id)),
    }
    chosen = {name: value for name, value in choices.items() if value is not None}
    return build_config(BoardSettings, {**plan, **chosen})


def board_tags(session: Session, slug: str | None) -> tuple[str, ...]:
    """Return the tags that have a leaderboard of their own: those of the policy, or all that occur."""
    study = session.scalar(select(Study).where(Study.slug == slug))
    if study is None:
        return ()
    found = {
        str(tag) for tags in session.scalars(select(Prompt.tags).where(Prompt.study_id == study.id)) for tag in tags
    }
    return policy_of(study).category_tags or tuple(sorted(found))
