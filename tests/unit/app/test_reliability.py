"""What is said of each rater and of their agreement is counted from what they did."""

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.arena_state import Arena
from app.database.tables import Assignment, Pair, Rater, Vote
from app.pages.rater_pages import draw_progress
from app.quality.agreement import question_agreement
from app.quality.gold_results import gold_results
from app.quality.reliability import RaterReport, rater_reports
from app.studies.study import find_study
from app.voting.clean_votes import clean_votes
from tests.unit.app.conftest import ORIGIN
from tests.unit.app.test_vote_api import ask, ballot

QUESTIONS = ("visual_quality", "motion_quality", "text_alignment", "overall")


def say(arena: Arena, client: TestClient, word: str, *, seconds: float = 5.0) -> dict[str, str]:
    """Answer the next pair by clip, A or tie or B; return the assignment and its pair."""
    pair = ask(client)
    with arena.reading() as session:
        shown = session.get_one(Assignment, pair["assignment"])
        side = "same" if word == "tie" else "left" if (word == "A") == shown.a_is_left else "right"
        sent = ballot(pair, answers=dict.fromkeys(QUESTIONS, side), decision_ms=seconds * 1000)
        assert client.post("/api/v1/votes", json=sent).status_code == 201
        return {"assignment": shown.id, "pair": shown.pair_id}


def reports(arena: Arena) -> dict[str, RaterReport]:
    """Return the reports of the demo study by rater."""
    with arena.reading() as session:
        return {report.rater: report for report in rater_reports(session, find_study(session, "demo"))}


def test_gold_and_repeats_are_counted_apart_from_votes(arena: Arena, client: TestClient) -> None:
    right, wrong, first, again = (say(arena, client, word) for word in ("A", "B", "A", "A"))

    def change(session: Session) -> None:
        for gold in (right, wrong):
            session.execute(update(Pair).where(Pair.id == gold["pair"]).values(kind="gold", expected={"overall": "A"}))
        session.execute(
            update(Assignment).where(Assignment.id == again["assignment"]).values(repeats=first["assignment"])
        )

    arena.writer.run(change)
    (report,) = reports(arena).values()
    assert (report.gold_right, report.gold_total, report.num_votes) == (1, 2, 4)
    assert report.gold is not None
    assert 0.0 <= report.gold.low < 0.5 < report.gold.high <= 1.0
    assert (report.repeats_same, report.repeats_total) == (1, 1)
    assert (report.tie_share, report.agreement) == (0.0, None)


@pytest.mark.parametrize(
    ("expected", "word", "counts"),
    [
        ({"overall": "A", "text_alignment": "A"}, "A", (1, 1)),  # this study does not ask how it matches the text
        ({"overall": "A", "text_alignment": "A"}, "B", (0, 1)),
        ({"text_alignment": "A"}, "B", (0, 0)),
        ({"overall": "A"}, None, (0, 0)),
        ({"overall": "tie", "text_alignment": "tie"}, None, (1, 1)),
        ({"overall": "tie"}, "A", (0, 1)),
    ],
)
def test_gold_is_judged_by_what_was_asked_and_said(
    arena: Arena, client: TestClient, expected: dict[str, str], word: str | None, counts: tuple[int, int]
) -> None:
    def change(session: Session) -> None:
        find_study(session, "demo").policy = {**find_study(session, "demo").policy, "questions": ["overall"]}
        session.execute(update(Pair).values(kind="gold", expected=expected))

    def answer(session: Session) -> None:
        session.execute(update(Vote).values(answers={"overall": word} if word else {}, both_bad=word is None))

    say(arena, client, "A")
    arena.writer.run(change)
    arena.writer.run(answer)
    (report,) = reports(arena).values()
    assert (report.gold_right, report.gold_total) == counts
    with arena.reading() as session:
        by_rater = gold_results(session, find_study(session, "demo"))
    assert by_rater == ({report.rater: counts} if counts[1] else {})


def test_progress_of_a_rater_is_the_same_whatever_was_known_of_a_pair(arena: Arena, client: TestClient) -> None:
    cookie = client.cookies["arena_session"]
    said = say(arena, client, "A")
    seen = [draw_progress(arena, cookie)]
    for expected in ("A", "B"):
        values = {"kind": "gold", "expected": {"overall": expected}}
        change = update(Pair).where(Pair.id == said["pair"]).values(**values)
        arena.writer.run(lambda session, change=change: session.execute(change) and None)
        seen.append(draw_progress(arena, cookie))
    assert "1 of 4 pairs judged" in seen[0]
    assert seen[1] == seen[2] == seen[0].replace("1 of 4", "1 of 3")  # the test took a real pair away


def test_the_shorter_clock_is_the_decision_time(arena: Arena, client: TestClient) -> None:
    say(arena, client, "A", seconds=3600.0)  # the server knows better
    say(arena, client, "A", seconds=0.0001)
    with arena.reading() as session:
        (vote, *_) = session.scalars(select(Vote).order_by(Vote.stored_at)).all()
        issued = session.get_one(Assignment, vote.assignment_id).issued_at
        took = (vote.stored_at - issued).total_seconds()
    (report,) = reports(arena).values()
    assert report.median_decision_s == pytest.approx((took + 0.0001) / 2)


def test_agreement_is_with_the_others_of_the_same_pair(arena: Arena, client: TestClient) -> None:
    for _ in range(4):
        say(arena, client, "A")
    others = []
    for answer in ("A", "B"):
        browser = TestClient(client.app, headers={"origin": ORIGIN})
        others.append(browser.post("/api/v1/consent", json={"version": "1"}).json()["rater"])
        for _ in range(4):
            say(arena, browser, answer)
    with arena.reading() as session:
        names = {rater.pseudonym: rater.id for rater in session.scalars(select(Rater))}
        rows = question_agreement(clean_votes(session, find_study(session, "demo")))
    found = reports(arena)
    assert [found[names[name]].agreement for name in others] == [0.5, 0.0]
    assert {report.agreement for report in found.values()} == {0.5, 0.0}
    assert [row.question for row in rows] == ["overall", "motion_quality", "text_alignment", "visual_quality"]
    for row in rows:
        assert (row.num_votes, row.num_pairs, row.num_raters) == (12, 4, 3)
        assert row.percent == pytest.approx(1 / 3)
        assert row.alpha_ordinal is not None
        assert row.alpha_ordinal.mean < 0.0
        assert row.ceiling is not None
        assert row.ceiling.mean == pytest.approx(1 / 3)  # A with A and B: half; B against two As: never
