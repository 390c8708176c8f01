"""A reward that rises while people see nothing of it raises the alarm, with both numbers."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from app.arena_state import Arena
from app.database.tables import Prompt, RewardScore, System, Video
from app.lineage.reward_alarm import reward_agreement, reward_readings
from app.lineage.reward_scores import import_scores
from app.lineage.systems import TRAINED_PROMPTS
from app.studies.study import find_study
from rlhf_video.errors import DataError

PROMPTS = tuple(f"a square number {number}" for number in range(12))


def score_file(loop: Arena, path: Path, scores: dict[str, list[float]]) -> Path:
    """Write the lines that the evaluation keeps of a judged reward: per system the score of each prompt's clip."""
    lines = []
    with loop.reading() as session:
        rows = session.execute(
            select(System.name, Prompt.text, Video.source_sha256)
            .join(Video, Video.system_id == System.id)
            .join(Prompt, Prompt.id == Video.prompt_id)
        ).all()
    for name, prompt, digest in rows:
        if name in scores:
            values = {"quality": scores[name][PROMPTS.index(prompt)]}
            facts = {"reward": "taste@1", "options_sha256": "b" * 64, "values": values, "covariates": {}}
            lines.append(json.dumps({"key": digest, "clip_sha256": digest, "prompt": prompt, **facts}) + "\n")
    path.write_text("".join(lines))
    return path


def make_child(loop: Arena) -> None:
    """Say that the tuned system was trained from the base."""
    base = select(System.id).where(System.name == "base").scalar_subquery()
    loop.writer.run(
        lambda session: session.execute(update(System).where(System.name == "tuned").values(parent_id=base)) and None
    )


@pytest.mark.parametrize(
    ("rise", "wins", "verdict"),
    [(1.0, 6, "alarm"), (1.0, 2, "alarm"), (1.0, 12, "people agree"), (0.0, 12, "reward does not rise")],
)
def test_alarm_compares_the_reward_with_people(
    loop: Arena, ballots: Any, tmp_path: Path, rise: float, wins: int, verdict: str
) -> None:
    make_child(loop)
    base = [0.1 * number for number in range(12)]
    tuned = [value + rise + 0.3 * (-1) ** number for number, value in enumerate(base)]
    imported = import_scores(loop, "loop", score_file(loop, tmp_path / "s.jsonl", {"base": base, "tuned": tuned}))
    assert (imported.new, imported.known, imported.other_clips) == (24, 0, 0)
    for number, prompt in enumerate(PROMPTS):
        for rater in ("ann", "bob"):
            ballots.cast(
                prompt,
                *(("tuned",) if number < wins else ("base",)),
                rater=rater,
                other=("base", "tuned")[number >= wins],
            )
    with loop.reading() as session:
        (reading,) = reward_readings(session, find_study(session, "loop"))
    assert reading.verdict == verdict
    assert reading.reward_difference.mean == pytest.approx(rise)
    assert reading.win_rate is not None and reading.win_rate.mean == pytest.approx(wins / 12)
    for number in ("taste@1+bbbbbbbbbbbb/quality", f"{rise:+.3f} [", f"{wins / 12:.0%} ["):
        assert number in str(reading)


def test_prompts_that_the_child_was_trained_on_count_for_neither_side(
    loop: Arena, ballots: Any, tmp_path: Path
) -> None:
    make_child(loop)
    base = [0.1 * number for number in range(12)]
    rises = [9.0] * 6 + [1.0 + 0.1 * (-1) ** number for number in range(6)]
    tuned = [value + rise for value, rise in zip(base, rises, strict=True)]
    import_scores(loop, "loop", score_file(loop, tmp_path / "s.jsonl", {"base": base, "tuned": tuned}))
    for number, prompt in enumerate(PROMPTS):  # people like the child on what it was trained on, and nowhere else
        winner, loser = ("tuned", "base") if number < 6 else ("base", "tuned")
        for rater in ("ann", "bob"):
            ballots.cast(prompt, winner, other=loser, rater=rater)

    def learn(session: Any) -> None:
        child = session.scalars(select(System).where(System.name == "tuned")).one()
        prompts = session.scalars(select(Prompt.id).where(Prompt.text.in_(PROMPTS[:6]))).all()
        child.origin = {**child.origin, TRAINED_PROMPTS: list(prompts)}

    loop.writer.run(learn)
    with loop.reading() as session:
        (reading,) = reward_readings(session, find_study(session, "loop"))
    assert reading.reward_difference.mean == pytest.approx(1.0)
    assert reading.win_rate is not None and reading.win_rate.mean == 0.0
    assert reading.verdict == "alarm"


def test_without_votes_nobody_compared_them(loop: Arena, tmp_path: Path) -> None:
    make_child(loop)
    scores = {"base": [0.0] * 12, "tuned": [1.0 + 0.01 * number for number in range(12)]}
    import_scores(loop, "loop", score_file(loop, tmp_path / "s.jsonl", scores))
    with loop.reading() as session:
        (reading,) = reward_readings(session, find_study(session, "loop"))
        assert reading.verdict == "nobody compared them"
        assert reward_agreement(session, find_study(session, "loop")) == ()


def test_agreement_stands_beside_the_ceiling_of_people(loop: Arena, ballots: Any, tmp_path: Path) -> None:
    base = [0.0] * 12
    tuned = [1.0 if number < 9 else 0.01 if number == 9 else -1.0 for number in range(12)]
    import_scores(loop, "loop", score_file(loop, tmp_path / "s.jsonl", {"base": base, "tuned": tuned}))
    for number, prompt in enumerate(PROMPTS):
        for rater in ("ann", "bob", "cid"):
            dissent = rater == "cid" and number == 0
            if number == 9:
                ballots.cast(prompt, "tie", rater=rater)
            else:
                ballots.cast(prompt, "base" if dissent else "tuned", other="tuned" if dissent else "base", rater=rater)
    with loop.reading() as session:
        (line,) = reward_agreement(session, find_study(session, "loop"))
    assert line.num_votes == 36
    assert line.accuracy is not None and line.accuracy.mean == pytest.approx((27 - 1) / 33)
    assert line.accuracy_with_ties is not None
    # The threshold of the other prompts knows no tie, so the tied prompt is said wrong.
    assert line.accuracy_with_ties.mean == pytest.approx((27 - 1) / 36)
    assert line.ceiling is not None and line.ceiling.mean == pytest.approx((33 + 2 * 0.5) / 36)


def test_command_scores_are_read_with_their_folder(loop: Arena, tmp_path: Path) -> None:
    with loop.reading() as session:
        path, prompt = session.execute(
            select(Video.source_path, Prompt.text).join(Prompt, Prompt.id == Video.prompt_id).limit(1)
        ).one()
    clips = [
        {"file": Path(path).name, "prompt": prompt, "values": {"all": 0.5}, "reason": None},
        {"file": "broken.mp4", "prompt": prompt, "values": None, "reason": "cut off"},
    ]
    content = {"reward": "taste", "options": {}, "version": "1", "higher_is_better": True, "clips": clips}
    file = tmp_path / "scores.json"
    file.write_text(json.dumps(content))
    folder = loop.config.data / "original"
    first = import_scores(loop, "loop", file, clips=folder)
    assert (first.new, first.known, first.failed) == (1, 0, 1)
    assert import_scores(loop, "loop", file, clips=folder).known == 1
    with loop.reading() as session:
        assert session.scalars(select(RewardScore.value)).all() == [0.5]
    clips[0]["values"] = {"all": 0.7}
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="already"):
        import_scores(loop, "loop", file, clips=folder)
    with pytest.raises(DataError, match="give the folder"):
        import_scores(loop, "loop", file)
    file.write_text(json.dumps({**content, "higher_is_better": False}))
    with pytest.raises(DataError, match="lower scores are better"):
        import_scores(loop, "loop", file, clips=folder)
    file.write_text("[]")
    with pytest.raises(DataError, match="no score file"):
        import_scores(loop, "loop", file, clips=folder)
