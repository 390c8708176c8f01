"""The load test: what it counts, whom it counts for, and what a server under load keeps."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.arena_config import ArenaConfig
from app.arena_state import Arena, open_arena
from app.command_line import parse_request
from app.commands import execute
from app.database.tables import Assignment, Rater, Study, Vote
from app.loadtest.load import LoadPlan, Seen
from app.loadtest.report import LoadReport, look_up, run_load_test
from app.quality.rate_limit import RateLimiter
from app.voting.clean_votes import sort_votes
from app.voting.tokens import TokenSigner
from app.web.server import create_api
from rlhf_video.errors import ConfigError, DataError

ANSWERS = dict.fromkeys(("visual_quality", "motion_quality", "text_alignment", "overall"), "left")


def vote_until_the_end(browser: TestClient) -> int:
    """Vote on every pair that a browser gets, and return how many."""
    number = 0
    while (reply := browser.post("/api/v1/assignments", json={"study": "demo"})).status_code == 201:
        pair = reply.json()
        vote = {"vote_id": uuid.uuid4().hex, "assignment": pair["assignment"], "token": pair["token"]}
        answers = {"answers": ANSWERS, "watched_ms": {"left": 5000, "right": 5000}}
        assert browser.post("/api/v1/votes", json=vote | answers).status_code == 201
        number += 1
    return number


def test_votes_of_test_raters_never_count_and_take_nobodys_place(arena: Arena) -> None:
    headers = {"X-Arena-Test": arena.signer.sign("test", lasts_s=60)}
    with TestClient(create_api(arena)) as person, TestClient(create_api(arena)) as test:
        assert test.post("/api/v1/consent", json={"version": "1"}, headers=headers).status_code == 200
        assert vote_until_the_end(test) == 4
        for _ in range(3):  # the study wants three votes on each of four pairs
            person.cookies.clear()
            assert person.post("/api/v1/consent", json={"version": "1"}).status_code == 200
            assert vote_until_the_end(person) == 4
        person.cookies.clear()
        person.post("/api/v1/consent", json={"version": "1"})
        assert vote_until_the_end(person) == 0
    with arena.reading() as session:
        votes = sort_votes(session, session.scalars(select(Study)).one())
        assert [rater.is_test for rater in session.scalars(select(Rater).order_by(Rater.is_test))] == [False] * 4 + [
            True
        ]
    assert (len(votes.clean), votes.left_out) == (12, {"test rater": 4})


def test_test_raters_need_the_key_of_the_data_folder(arena: Arena) -> None:
    elsewhere = TokenSigner(b"another arena's key of 32 bytes!").sign("test", lasts_s=60)
    vote, old = arena.signer.sign("vote", lasts_s=60), arena.signer.sign("test", lasts_s=-2)
    with TestClient(create_api(arena)) as browser:
        for token in ("nonsense", elsewhere, vote, old):
            refused = browser.post("/api/v1/consent", json={"version": "1"}, headers={"X-Arena-Test": token})
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "foreign")
    with arena.reading() as session:
        assert session.scalars(select(Rater)).all() == []


def test_only_test_raters_may_ask_as_fast_as_they_like(arena: Arena) -> None:
    token = {"X-Arena-Test": arena.signer.sign("test", lasts_s=60)}
    app = create_api(arena)
    app.state.limiter = RateLimiter(clock=lambda: 0.0)  # no time passes: what is used up stays used up
    with TestClient(app) as browser:
        browser.post("/api/v1/consent", json={"version": "1"}, headers=token)
        ask = {"study": "demo"}
        tests = {browser.post("/api/v1/assignments", json=ask, headers=token).status_code for _ in range(70)}
        people = [browser.post("/api/v1/assignments", json=ask).status_code for _ in range(61)]
    assert tests == {200, 201}
    assert people == [200] * 60 + [429]


def test_lost_and_doubled_votes_are_found(arena: Arena, client: TestClient) -> None:
    assert vote_until_the_end(client) == 4
    with arena.reading() as session:
        stored = dict(session.execute(select(Vote.id, Vote.assignment_id)).all())
        assert look_up(session, stored) == (0, 0)
        elsewhere = dict(zip(stored, reversed(stored.values()), strict=True))
        assert look_up(session, elsewhere) == (4, 0)
        assert look_up(session, {**stored, uuid.uuid4().hex: next(iter(stored.values()))}) == (1, 0)

    def double(session: Any) -> None:
        first = session.scalars(select(Vote)).first()
        fields = {name: getattr(first, name) for name in ("assignment_id", "answers", "body_sha256", "stored_at")}
        session.add(Vote(id=uuid.uuid4().hex, revision=1, **fields))

    arena.writer.run(double)
    with arena.reading() as session:
        assert look_up(session, stored) == (0, 1)


@pytest.mark.parametrize(
    ("trouble", "holds"), [({}, True), ({"lost": 1}, False), ({"duplicates": 1}, False), ({"status": 503}, False)]
)
def test_report_holds_only_without_lost_doubled_and_failed(trouble: dict[str, int], holds: bool) -> None:
    seen = Seen(acknowledged={"vote": "assignment"}, seconds=2.0)
    seen.latencies["vote"] = [0.010, 0.020, 0.400]
    seen.statuses["vote", trouble.get("status", 201)] += 1
    plan = LoadPlan(url="http://127.0.0.1:1", study="demo", token="")
    counts = {"lost": trouble.get("lost", 0), "duplicates": trouble.get("duplicates", 0)}
    report = LoadReport(plan=plan, seen=seen, before=None, after=None, **counts)
    assert report.holds is holds
    assert "1 votes, 0.5 a second" in str(report) and "| vote                |      3 |      20 |" in str(report)
    assert f"{counts['lost']} lost, {counts['duplicates']} duplicates" in str(report)


def test_load_test_without_the_key_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no token\.key.*--data"):
        run_load_test(ArenaConfig(data=tmp_path), url="http://127.0.0.1:1", study="demo")
    assert list(tmp_path.iterdir()) == []


def test_load_test_needs_somebody_who_answers(tmp_path: Path) -> None:
    TokenSigner.from_file(tmp_path / "token.key")
    with pytest.raises(DataError, match="No arena answers"):
        run_load_test(ArenaConfig(data=tmp_path), url="http://127.0.0.1:1", study="demo")
    with pytest.raises(ConfigError, match="must start with http"):
        run_load_test(ArenaConfig(data=tmp_path), url="127.0.0.1", study="demo")
    with pytest.raises(ConfigError, match="raters"):
        run_load_test(ArenaConfig(data=tmp_path), url="http://127.0.0.1:1", study="demo", raters=0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_raters_lose_nothing(
    tmp_path: Path,
    start_server: Callable[[ArenaConfig], Any],
    make_study: Callable[..., Study],
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = ArenaConfig(data=tmp_path / "arena")
    with open_arena(config, create=True) as arena:
        systems = ("base", "one", "two", "three")
        arena.writer.run(lambda session: make_study(session, config.data, "demo", prompts=6, systems=systems) and None)
    server = start_server(config)
    table = tmp_path / "table.md"
    options = f"--data {config.data} --raters 50 --think 0.5 --duration 8 --markdown {table}"
    code = execute(*parse_request(["loadtest", server.url, "--study", "demo", *options.split()]))
    assert code == 0, capsys.readouterr().out
    assert "0 lost, 0 duplicates, 0 server errors" in table.read_text()
    with open_arena(config) as arena, arena.reading() as session:
        assert {rater.is_test for rater in session.scalars(select(Rater))} == {True}
        voted = session.scalars(select(Assignment.id).where(Assignment.state == "voted")).all()
        assert len(voted) == len(session.scalars(select(Vote)).all()) > 0

    for study, key, words in (("demo", b"k" * 32, "does not take the key"), ("none", None, "no open study 'none'")):
        if key:
            other = ArenaConfig(data=tmp_path / "other", database_url=config.url)
            other.data.mkdir()
            (other.data / "token.key").write_bytes(key)
        with pytest.raises(DataError, match=words):
            run_load_test(other, url=server.url, study=study, raters=2, duration_s=2.0)
    with open_arena(config) as arena, arena.reading() as session:
        assert {rater.is_test for rater in session.scalars(select(Rater))} == {True}
