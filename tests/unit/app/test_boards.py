"""Leaderboards: the right winner, the right counts, and a snapshot that can be computed again."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.arena_state import Arena
from app.boards.board import BoardSettings, make_board
from app.boards.snapshot import check_snapshot, take_snapshot
from app.boards.study_board import board_tags, study_settings
from app.command_line import parse_request
from app.commands import execute
from app.database.tables import Prompt, Snapshot, System, Vote
from app.pages.board_view import board_html
from app.studies.study import find_study
from app.voting.clean_votes import CleanVote
from app.web.server import create_api
from rlhf_video.errors import ConfigError, DataError
from tests.unit.app.conftest import SYSTEMS, on_both_databases
from tests.unit.app.test_vote_api import ask, ballot


def vote(number: int, answer: str, systems: tuple[str, str] = ("a", "b"), **changes: Any) -> CleanVote:
    """Return a vote of one of five raters on one of ten prompts."""
    base = CleanVote(
        vote=str(number),
        pair=f"{systems}{number % 10}",
        prompt=str(number % 10),
        tags=("people",) if number % 10 < 5 else ("animals",),
        systems=systems,
        system_ids=systems,
        videos=("x", "y"),
        rater=str(number // 10 % 5),
        answers={"overall": answer, "motion_quality": {"A": "B", "B": "A"}.get(answer, answer)},
        both_bad=False,
        a_is_left=bool(number % 2),
        probability=0.1,
        num_choices=10,
        stored_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number),
        moments=(),
    )
    return replace(base, **changes)


VOTES = [vote(number, "A" if number % 4 else ("B" if number % 8 else "tie")) for number in range(200)]


def test_better_system_leads_and_the_counts_are_those_of_the_votes() -> None:
    board = make_board(VOTES, BoardSettings())
    first, second = board.rows
    assert (first.system, first.rank, first.num_votes, second.system) == ("a", 1, 200, "b")
    assert first.low > second.high
    assert first.rating + second.rating == pytest.approx(2000.0)
    (match,) = board.matches
    assert (match.wins, match.ties, match.losses) == (150, 25, 25)
    assert match.share.mean == pytest.approx(162.5 / 200)
    assert match.decision.winner == "a"
    assert board.tie_share == 0.125
    assert board.num_raters == 5


def test_other_question_turns_the_board_around() -> None:
    rows = make_board(VOTES, BoardSettings(question="motion_quality")).rows
    assert [row.system for row in rows] == ["b", "a"]


def test_tag_keeps_its_prompts_only() -> None:
    board = make_board(VOTES, BoardSettings(tag="people"))
    assert board.num_votes == 100
    with pytest.raises(DataError, match="with the tag 'cars'"):
        make_board(VOTES, BoardSettings(tag="cars"))


def test_board_does_not_depend_on_sides_or_names_of_a_and_b() -> None:
    turned = [
        replace(each, systems=each.systems[::-1], answers={"overall": {"A": "B", "B": "A"}.get(answer, answer)})
        for each in VOTES
        for answer in [each.answers["overall"]]
    ]
    straight, swapped = make_board(VOTES, BoardSettings()), make_board(turned, BoardSettings())
    for one, other in zip(straight.rows, swapped.rows, strict=True):
        assert (one.system, one.rank) == (other.system, other.rank)
        assert (one.rating, one.low) == (pytest.approx(other.rating), pytest.approx(other.low))


def test_both_unacceptable_is_a_tie_or_nothing_and_always_counted_apart() -> None:
    votes = [replace(each, both_bad=index < 40) for index, each in enumerate(VOTES)]
    tie, drop = (make_board(votes, BoardSettings(both_bad=how)) for how in ("tie", "drop"))
    assert (tie.num_votes, drop.num_votes) == (200, 160)
    assert tie.rows[0].unacceptable.mean == drop.rows[0].unacceptable.mean == 0.2
    assert tie.tie_share > drop.tie_share


def test_unreliable_raters_weigh_less_when_asked() -> None:
    rng = np.random.default_rng(0)
    votes = [
        replace(each, answers={"overall": str(rng.choice(["A", "B"]))}) if each.rater in ("3", "4") else each
        for each in VOTES
    ]
    gold = {"0": (9, 10), "1": (10, 10), "2": (9, 10), "3": (5, 10), "4": (4, 10)}
    plain = make_board(votes, BoardSettings(), gold=gold)
    weighted = make_board(votes, BoardSettings(weighting="reliability"), gold=gold)
    assert weighted.rows[0].system == plain.rows[0].system == "a"
    assert weighted.rows[0].rating > plain.rows[0].rating + 20


def test_uneven_sampling_is_undone_when_asked() -> None:
    easy = [vote(number, "A", probability=0.3) for number in range(0, 150)]
    hard = [vote(number, "B" if number % 3 else "A", probability=0.03) for number in range(150, 200)]
    plain = make_board([*easy, *hard], BoardSettings())
    even = make_board([*easy, *hard], BoardSettings(weighting="sampling"))
    assert plain.rows[0].system == "a"
    assert even.rows[0].system == "b"


def test_systems_that_never_met_and_unknown_settings_are_refused() -> None:
    with pytest.raises(DataError, match="never met"):
        make_board([*VOTES, *(vote(number, "A", ("c", "d")) for number in range(20))], BoardSettings())
    with pytest.raises(ConfigError, match="reliability"):
        make_board(VOTES, BoardSettings(weighting="magic"))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no vote"):
        make_board([], BoardSettings())


def test_snapshot_gives_the_same_board_after_more_votes(arena: Arena, client: TestClient) -> None:
    with TestClient(create_api(arena), headers=client.headers) as other:
        other.post("/api/v1/consent", json={"version": "1"})
        for _ in range(4):
            assert other.post("/api/v1/votes", json=ballot(ask(other))).status_code == 201
        for _ in range(2):
            client.post("/api/v1/votes", json=ballot(ask(client)))
        taken = take_snapshot(arena, "demo", {})
        with arena.reading() as session:
            snapshot = session.get_one(Snapshot, taken)
            assert snapshot.result["num_votes"] == 6
            assert check_snapshot(session, snapshot)
        for _ in range(2):
            client.post("/api/v1/votes", json=ballot(ask(client)))
        with arena.reading() as session:
            snapshot = session.get_one(Snapshot, taken)
            assert check_snapshot(session, snapshot)
            assert len(session.scalars(select(Vote)).all()) == 8
    arena.writer.run(lambda session: _forge(session, taken))
    with arena.reading() as session:
        assert not check_snapshot(session, session.get_one(Snapshot, taken))


def test_snapshot_from_before_a_setting_existed_still_checks(arena: Arena, client: TestClient) -> None:
    with TestClient(create_api(arena), headers=client.headers) as other:
        other.post("/api/v1/consent", json={"version": "1"})
        for browser in (client, other):
            browser.post("/api/v1/votes", json=ballot(ask(browser)))
    taken = take_snapshot(arena, "demo", {"num_systems": 2, "overlap": 2})

    def age(session: Any) -> None:
        row = session.get_one(Snapshot, taken)
        old = {name: value for name, value in row.settings.items() if name not in ("num_systems", "overlap")}
        row.settings, row.result = old, {**row.result, "settings": old}

    arena.writer.run(age)
    with arena.reading() as session:
        assert check_snapshot(session, session.get_one(Snapshot, taken))


def test_boards_of_a_study_take_its_policy(arena: Arena) -> None:
    def plan(session: Any) -> None:
        study = find_study(session, "demo")
        study.policy = {**study.policy, "overlap": 5, "error_rate": 0.02, "tie_model": "rao_kupper"}
        session.add(System(study_id=study.id, name="without a vote"))

    arena.writer.run(plan)
    with arena.reading() as session:
        study = find_study(session, "demo")
        settings = study_settings(session, study, {"question": "motion_quality", "error_rate": None})
        chosen = study_settings(session, study, {"model": "davidson", "votes_per_prompt": 2, "error_rate": 0.1})
    assert (settings.question, settings.model, settings.error_rate) == ("motion_quality", "rao_kupper", 0.02)
    assert (settings.votes_per_prompt, settings.overlap, settings.num_systems) == (5, 5, 3)
    assert (chosen.model, chosen.votes_per_prompt, chosen.error_rate, chosen.overlap) == ("davidson", 2, 0.1, 5)


def test_systems_without_votes_share_the_chance_of_a_false_call() -> None:
    few, many = (make_board(VOTES, BoardSettings(num_systems=number)) for number in (None, 10))
    assert (few.num_pairs, many.num_pairs) == (1, 45)
    assert many.matches[0].decision.interval.low < few.matches[0].decision.interval.low


def test_page_says_what_the_stopping_rule_does_not_account_for() -> None:
    by_votes, by_prompts = (board_html(make_board(VOTES, BoardSettings(votes_per_prompt=k))) for k in (None, 3))
    assert "by its first 3 votes" in by_prompts
    assert "their tastes are not accounted for" in by_prompts
    assert "drawn anew" in by_votes


def test_weights_by_sampling_are_doubted_where_pairs_are_full() -> None:
    settings = BoardSettings(weighting="sampling", overlap=20)
    (warning,) = make_board(VOTES, settings).warnings
    assert "10 of 10 pairs have the 20 votes" in warning
    assert make_board(VOTES, replace(settings, overlap=21)).warnings == ()
    assert make_board(VOTES, replace(settings, weighting="none")).warnings == ()


def test_categories_are_those_of_the_policy_or_all_that_occur(arena: Arena) -> None:
    def tag(session: Any) -> None:
        for number, prompt in enumerate(session.scalars(select(Prompt))):
            prompt.tags = ["people", "rain"] if number else ["cars"]

    def choose(session: Any) -> None:
        study = find_study(session, "demo")
        study.policy = {**study.policy, "category_tags": ["rain", "people"]}

    arena.writer.run(tag)
    with arena.reading() as session:
        assert board_tags(session, "demo") == ("cars", "people", "rain")
        assert board_tags(session, None) == ()
    arena.writer.run(choose)
    with arena.reading() as session:
        assert board_tags(session, "demo") == ("rain", "people")


def _forge(session: Any, taken: str) -> None:
    row = session.get_one(Snapshot, taken)
    row.result = {**row.result, "num_votes": 7}


@on_both_databases
def test_command_prints_and_keeps_the_leaderboard(
    arena: Arena, client: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(4):
        client.post("/api/v1/votes", json=ballot(ask(client)))
    with TestClient(create_api(arena), headers=client.headers) as other:
        other.post("/api/v1/consent", json={"version": "1"})
        for _ in range(4):
            other.post("/api/v1/votes", json=ballot(ask(other)))
    words = ["snapshot", "demo", "--data", str(arena.config.data), "--with", "model=rao_kupper"]
    if arena.config.database_url:
        words += ["--database-url", arena.config.database_url]
    assert execute(*parse_request(words)) == 0
    printed = capsys.readouterr().out
    assert [name for name in SYSTEMS if name not in printed] == [], printed
    with arena.reading() as session:
        settings = session.scalars(select(Snapshot)).one().settings
    assert (settings["model"], settings["num_systems"], settings["error_rate"]) == ("rao_kupper", 2, 0.05)
    assert settings["votes_per_prompt"] == settings["overlap"]
