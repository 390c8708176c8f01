"""What the admin's pages know: counted from the tables of an arena in which people have judged."""

import json
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from app.arena_state import Arena
from app.boards.board import BoardSettings, make_matches
from app.boards.stopping import votes_left
from app.boards.study_board import study_settings
from app.database.audit_log import read_head
from app.database.health import last_entries, read_health
from app.database.tables import AuditEntry, Exclusion, Rater, System, Video
from app.database.verification import find_problems
from app.lineage.disagreements import disagreements
from app.pages.admin_boards import draw_board, draw_snapshots
from app.pages.admin_exports import export_lines
from app.pages.admin_raters import draw_raters, leave_out_votes
from app.quality.exclusions import lift_exclusion
from app.studies.import_requests import allowed_folder, importable_folders
from app.studies.overview import study_lines
from app.studies.study import find_study
from app.voting.clean_votes import clean_votes
from app.voting.reports import pair_reports
from rlhf_video.errors import DataError
from tests.unit.app.pages.conftest import LINE, RATERS, WORDS

NUM_PAIRS = 3 * len(WORDS)
NUM_VOTES = NUM_PAIRS * len(RATERS) - 2  # one report, one open lease


def test_a_study_is_counted(judged: Arena) -> None:
    with judged.reading() as session:
        (line,) = study_lines(session)
        study = find_study(session, "motion")
        matches = make_matches(clean_votes(session, study), study_settings(session, study, {}))
    assert (line.slug, line.status, line.num_systems, line.num_prompts) == ("motion", "open", 3, len(WORDS))
    assert (line.num_pairs, line.num_votes, line.num_wanted) == (NUM_PAIRS, NUM_VOTES, NUM_PAIRS * 6)
    assert line.num_matches == 3
    assert line.num_decided == sum(match.decision.winner is not None for match in matches)
    lefts = [votes_left(match, 3) for match in matches if match.decision.winner is None]
    assert line.votes_left == sum(left for left in lefts if left is not None)


def test_votes_left_are_none_for_equals_and_zero_for_what_is_decided(judged: Arena) -> None:
    with judged.reading() as session:
        votes = clean_votes(session, find_study(session, "motion"))
    matches = {frozenset((match.first, match.second)): match for match in make_matches(votes, BoardSettings())}
    assert votes_left(matches[frozenset(("base", "tuned"))], 3) == 0
    nobody = make_matches([], BoardSettings())
    assert nobody == ()


def test_health_counts_leases_raters_and_entries(judged: Arena) -> None:
    with judged.reading() as session:
        health = read_health(session, judged.config.data)
        entries = last_entries(session, count=3)
        head = read_head(session)
    assert (health.database, health.num_votes, health.num_raters) == ("sqlite", NUM_VOTES, len(RATERS))
    assert health.broken_entry is None
    assert health.database_bytes == (judged.config.data / "arena.sqlite").stat().st_size or health.database_bytes > 0
    assert [(each.study, each.num_running + each.num_overdue) for each in health.leases] == [("motion", 1)]
    assert [entry.number for entry in entries] == [head.number, head.number - 1, head.number - 2]


def test_a_report_shows_the_pair_as_the_rater_saw_it(judged: Arena) -> None:
    with judged.reading() as session:
        (report,) = pair_reports(session)
        names = {session.get_one(Video, side.video).system_id: side.system for side in (report.left, report.right)}
        systems = dict(session.execute(select(System.id, System.name)).all())
    assert names == {key: systems[str(key)] for key in names}
    assert (report.reason, report.kind, report.times, report.study) == ("does not play", "real", 1, "motion")


def test_rewards_contradict_people_only_where_their_signs_differ(judged: Arena) -> None:
    with judged.reading() as session:
        study = find_study(session, "motion")
        found = disagreements(session, study, count=5)
        systems = list(LINE)
    assert 0 < len(found) <= 5
    for line in found:
        assert line.votes[0] > line.votes[2]
        assert systems.index(line.preferred) < systems.index(line.other)  # the reward likes later ones better
    margins = [line.margin for line in found]
    assert margins == sorted(margins, reverse=True)
    assert np.all(np.array(margins) > 0)


def test_imports_stay_below_their_folder(tmp_path: Path) -> None:
    root = tmp_path / "incoming"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "manifest.json").write_text("{}")
    (root / "empty").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "manifest.json").write_text("{}")
    (root / "link").symlink_to(tmp_path / "secret")
    assert importable_folders(root) == ["a/b"]
    assert allowed_folder(root, "a/b") == (root / "a" / "b").resolve()
    for path in ("../secret", str(tmp_path / "secret"), "link", "", "  ", "a/../../secret"):
        with pytest.raises(DataError, match="does not lie below"):
            allowed_folder(root, path)
    with pytest.raises(DataError, match="There is no folder"):
        allowed_folder(root, "nowhere")
    assert importable_folders(None) == []
    with pytest.raises(DataError, match="import_folder"):
        allowed_folder(None, "a/b")


def test_verification_finds_a_clip_that_was_changed(judged: Arena) -> None:
    with judged.reading() as session:
        assert list(find_problems(session, judged.config.data)) == []
        file = judged.config.data / session.scalars(select(Video.source_path).limit(1)).one()
        content = file.read_bytes()
        try:
            file.write_bytes(content + b"x")
            problem, *same_file = find_problems(session, judged.config.data)  # raters see the original here
        finally:
            file.write_bytes(content)
    assert file.name in problem
    assert "not the file that was imported" in problem
    assert len(same_file) == 1


def test_leaving_a_rater_out_needs_a_reason_and_is_written_down(judged: Arena) -> None:
    with judged.reading() as session:
        rater = session.scalars(select(Rater.id).where(Rater.pseudonym == RATERS[0])).one()
    with pytest.raises(DataError, match="Say why"):
        leave_out_votes(judged, rater, "  ", actor="ann")
    assert RATERS[0] in leave_out_votes(judged, rater, "asks friends", actor="ann")
    try:
        assert "left out: asks friends" in draw_raters(judged, "motion")
        with judged.reading() as session:
            (line,) = study_lines(session)
            entry = session.scalars(select(AuditEntry).order_by(AuditEntry.number.desc()).limit(1)).one()
            exclusion = session.scalars(select(Exclusion.id).where(Exclusion.lifted_at.is_(None))).one()
        assert line.num_votes == NUM_VOTES - NUM_PAIRS
        assert (entry.actor, entry.action, json.loads(entry.details)["reason"]) == (
            "ann",
            "exclusion.made",
            "asks friends",
        )
    finally:
        judged.writer.run(lambda session: lift_exclusion(session, exclusion, actor="bob"))
    assert "counts again" in draw_raters(judged, "motion")


def test_the_admins_board_needs_no_public_one_and_snapshots_wait_to_be_checked(judged: Arena) -> None:
    assert "tuned" in draw_board(judged, "motion", {"question": "motion_quality"})
    assert "No snapshot" in draw_snapshots(judged, "motion", check=True)
    with judged.reading() as session:
        assert export_lines(judged, session, find_study(session, "motion")) == []
