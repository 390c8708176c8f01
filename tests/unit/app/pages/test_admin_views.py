"""What the admin's pages show: the right facts, every text escaped."""

import math
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from app.database.audit_log import Head
from app.database.health import ArenaHealth, OpenLeases
from app.database.tables import AuditEntry, Exclusion, Snapshot
from app.lineage.disagreements import Disagreement
from app.lineage.export import WrittenExport
from app.lineage.head_to_head import HeadToHead
from app.lineage.lineage import LineageNode
from app.lineage.reward_alarm import RewardAgreement, RewardDimension, RewardReading
from app.pages.exports_view import ExportLine, exports_html, written_html
from app.pages.health_view import health_html, problems_html
from app.pages.html_parts import meter, share
from app.pages.lineage_view import lineage_html, tree_svg
from app.pages.raters_view import raters_html
from app.pages.rewards_view import rewards_html
from app.pages.snapshots_view import snapshots_html
from app.pages.studies_view import plan_html, studies_html
from app.quality.agreement import QuestionAgreement
from app.quality.reliability import RaterReport
from app.quality.risk import Signal
from app.studies.overview import StudyLine
from app.voting.reports import PairReport, ReportedClip
from rlhf_video.errors import ConfigError
from rlhf_video.stats import Interval, votes_needed

EVIL = "<img src=x onerror=alert(1)>\"'&"
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
REWARD = RewardDimension(EVIL, EVIL, EVIL)


def interval(mean: float, low: float, high: float) -> Interval:
    return Interval(mean, low, high, 30, 10)


STUDY = StudyLine(
    slug="demo",
    name="Which?",
    status="open",
    num_systems=3,
    num_prompts=10,
    num_pairs=30,
    num_gold=4,
    num_votes=45,
    num_wanted=90,
    left_out={"gold": 3},
    num_decided=1,
    num_matches=3,
    votes_left=1200,
)
FIGHT = HeadToHead(6, 2, 2, interval(0.7, 0.55, 0.85), interval(0.9, 0.1, 1.7), 4)
ROOT_NODE = LineageNode("base", None, 0, True, 20, None, None, None)
CHILD = LineageNode("tuned", "base", 1, True, 20, None, FIGHT, None)
AGREEMENT = RewardAgreement(REWARD, EVIL, interval(0.6, 0.5, 0.7), None, None, 88)
READING = RewardReading("child", "base", REWARD, interval(0.5, 0.4, 0.6), interval(0.41, 0.2, 0.6), "alarm")
DISAGREEMENT = Disagreement(REWARD, EVIL, EVIL, EVIL, "a" * 32, "b" * 32, (4, 1, 1), 1.5)
QUESTION = QuestionAgreement(EVIL, 40, 12, 5, interval(0.42, 0.3, 0.5), None, 0.7, interval(0.8, 0.7, 0.9), None)
RATER = RaterReport(
    rater="r" * 32,
    pseudonym=EVIL,
    excluded=EVIL,
    num_votes=40,
    last_vote_at=NOON,
    gold_right=3,
    gold_total=4,
    gold=None,
    repeats_same=0,
    repeats_total=0,
    left_share=0.9,
    left_p_value=0.001,
    median_decision_s=None,
    tie_share=0.1,
    num_skips=2,
    num_reports=1,
    agreement=0.5,
    accuracy=0.8,
    evidence=None,
    suspicion=None,
    risk=61.0,
    signals=(Signal("side", 60.0, EVIL),),
)
EXCLUSION = Exclusion(id="e" * 32, rater_id="r" * 32, reason=EVIL, actor=EVIL, created_at=NOON, score=61.0)
HEALTH = ArenaHealth(
    "sqlite", 2_000_000, 5_000_000_000, Head(12, "f" * 64), None, 5, 40, 1, 2, (OpenLeases("demo", 3, 1),)
)
REPORT = PairReport(
    NOON, "demo", EVIL, "real", ReportedClip("a" * 32, EVIL), ReportedClip("b" * 32, None), EVIL, EVIL, 2
)
ENTRY = AuditEntry(
    number=12, at=NOON.isoformat(), actor=EVIL, action=EVIL, subject="s" * 32, details=EVIL, sha256="f" * 64
)
EXPORT = ExportLine(
    NOON, EVIL, "a" * 64, {"votes": {"question": EVIL}, "layouts": [EVIL]}, {"train": 7}, False, (EVIL,)
)
SNAPSHOT = Snapshot(
    id="s" * 32,
    settings={"question": "overall", "tag": EVIL, "model": "davidson", "weighting": "reliability"},
    result={"rows": [{"system": EVIL}], "num_votes": 88},
    last_audit_number=12,
    last_audit_sha256="f" * 64,
    code_version="0.1.0",
    created_at=NOON,
)

VIEWS = {
    "studies": studies_html([replace(STUDY, name=EVIL, slug=EVIL, left_out={EVIL: 1})]),
    "lineage": lineage_html([replace(ROOT_NODE, name=EVIL), replace(CHILD, name=EVIL + "2", parent=EVIL)]),
    "rewards": rewards_html([AGREEMENT], [replace(READING, system=EVIL, parent=EVIL)], [DISAGREEMENT]),
    "raters": raters_html([RATER], [QUESTION], [EXCLUSION], {"r" * 32: EVIL}),
    "health": health_html(HEALTH, [REPORT], [ENTRY]),
    "problems": problems_html([EVIL], head="f" * 64, num_entries=12),
    "exports": exports_html([EXPORT]),
    "snapshots": snapshots_html([SNAPSHOT], {"s" * 32: EVIL}),
}
VOID = {"img", "br", "path", "rect", "line", "circle"}


class Strict(HTMLParser):
    """Notes every tag, and whether they close in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.mark.parametrize("name", VIEWS)
def test_every_text_is_escaped_and_every_tag_is_closed(name: str) -> None:
    parser = Strict()
    parser.feed(VIEWS[name])
    parser.close()
    assert parser.open == []
    assert "img" not in parser.tags
    assert parser.handlers == []
    assert "&lt;img" in VIEWS[name]


@pytest.mark.parametrize("name", VIEWS)
def test_no_view_loads_anything_from_elsewhere(name: str) -> None:
    assert re.findall(r"(?:src|href|action)=\"(?!/admin/)[^\"]*\"", VIEWS[name]) == []
    assert "http" not in VIEWS[name]


def words(markup: str) -> str:
    """Return what a reader sees, in one line."""
    return " ".join(re.sub(r"<[^>]+>", " ", markup).split())


def test_a_study_shows_what_it_has_and_wants() -> None:
    text = words(studies_html([STUDY]))
    assert "Which? demo open 3 10 30 4 45 of 90 not counted: 3 gold 1 of 3 pairs of systems at least 1,200" in text
    assert "decided" in words(studies_html([replace(STUDY, num_decided=3)])).split("pairs of systems")[1]
    assert "cannot be foreseen" in words(studies_html([replace(STUDY, votes_left=None)]))
    assert "There is no study yet" in words(studies_html([]))


def test_a_plan_multiplies_by_the_pairs_of_systems() -> None:
    needed = votes_needed(0.6, tie_rate=0.2, power=0.8, level=0.95, num_pairs=3)
    text = words(plan_html(win_rate=0.6, tie_rate=0.2, power=0.8, num_systems=3, error_rate=0.05))
    once = needed.with_ties(needed.fixed)
    assert f"Looking once, at the end {once:,} {3 * once:,}" in text
    with pytest.raises(ConfigError, match="no number of votes"):
        plan_html(win_rate=0.5, tie_rate=0.0, power=0.8, num_systems=2, error_rate=0.05)


def test_a_meter_stops_at_full_and_an_endless_interval_is_not_shown() -> None:
    assert 'style="width:100%"' in meter(120, 90)
    assert 'style="width:0%"' in meter(0, 0)
    assert words(share(interval(0.5, -math.inf, math.inf))) == "50% (too few for an interval)"
    assert words(share(None, otherwise="none")) == "none"


def test_a_tree_has_a_box_for_each_system_and_a_line_for_each_training() -> None:
    second = replace(CHILD, name="other", against_parent=replace(FIGHT, win_rate=interval(0.3, 0.2, 0.4)))
    third = replace(CHILD, name="later", parent="tuned", depth=2, against_parent=None)
    svg = tree_svg([ROOT_NODE, CHILD, third, second])
    assert svg.count("<rect") == 4
    assert re.findall(r'<path class="(\w+)"', svg) == ["good", "calm", "bad"]
    assert "70% [55%, 85%]" in svg
    assert "not compared" in svg
    boxes = [tuple(map(float, box)) for box in re.findall(r'<rect x="([\d.]+)" y="([\d.]+)"', svg)]
    assert len(set(boxes)) == 4
    (base, tuned, later, other) = boxes
    assert base[0] < tuned[0] == other[0] < later[0]
    assert tuned[1] == later[1]
    assert base[1] == (tuned[1] + other[1]) / 2


def test_boxes_of_a_wide_tree_do_not_overlap() -> None:
    children = [replace(CHILD, name=f"child {number}") for number in range(6)]
    svg = tree_svg([ROOT_NODE, *children])
    heights = sorted(float(y) for _, y in re.findall(r'<rect x="(3[\d.]+)" y="([\d.]+)"', svg))
    assert len(heights) == 6
    assert min(b - a for a, b in pairwise(heights)) > 66


def test_an_alarm_stands_above_everything_and_only_where_there_is_one() -> None:
    loud = rewards_html([], [READING], [])
    assert loud.index("Alarm.") < loud.index("<h2>")
    assert "Alarm." not in rewards_html([], [replace(READING, verdict="people agree")], [])


def test_raters_who_count_and_who_do_not_are_told_apart() -> None:
    left_out = words(raters_html([replace(RATER, excluded="risk")], [], [], {}))
    assert "left out: risk" in left_out
    assert "3 of 4" in left_out
    counting = raters_html([replace(RATER, excluded=None, risk=0.0, signals=())], [QUESTION], [], {})
    assert "counts" in words(counting)
    assert "0.42 [0.30, 0.50]" in words(counting)
    assert 'class="badge bad"' not in counting


def test_a_lifted_exclusion_says_who_lifted_it() -> None:
    lifted = Exclusion(
        id="e" * 32, vote_id="v" * 32, reason="x", actor="ann", created_at=NOON, lifted_at=NOON, lifted_by="bob"
    )
    assert "counts again bob, 2026-01-02 12:00" in words(raters_html([], [], [lifted], {}))


def test_a_broken_audit_log_cannot_be_overlooked() -> None:
    assert "chain holds" in health_html(HEALTH, [], [])
    broken = health_html(replace(HEALTH, broken_entry=7), [], [])
    assert "chain holds" not in broken
    assert "Entry 7 does not follow" in broken


def test_a_reported_pair_shows_both_clips() -> None:
    page = health_html(HEALTH, [REPORT], [])
    assert re.findall(r'<video src="([^"]+)"', page) == [f"/admin/clips/{'a' * 32}", f"/admin/clips/{'b' * 32}"]


def test_verification_says_that_all_is_well_or_lists_what_is_not() -> None:
    assert "as they were written" in words(problems_html([], head="f" * 64, num_entries=3))
    assert "2 problems: one two" in words(problems_html(["one", "two"], head="f" * 64, num_entries=3))


@pytest.mark.parametrize(("is_intact", "word"), [(True, "intact"), (False, "changed"), (None, "folder gone")])
def test_an_export_says_whether_its_manifest_is_the_one_that_was_noted(is_intact: Any, word: str) -> None:
    assert word in words(exports_html([replace(EXPORT, is_intact=is_intact)]))


def test_a_written_export_counts_what_became_no_pair() -> None:
    text = words(written_html(WrittenExport("x" * 32, Path("exports/demo-1"), {"train": 7}, {"gold": 3})))
    assert "7 pairs for train in demo-1" in text
    assert "gold 3" in text


@pytest.mark.parametrize(
    ("checked", "word"), [({}, "not yet"), ({"s" * 32: True}, "the same"), ({"s" * 32: False}, "differs")]
)
def test_a_snapshot_says_whether_it_came_out_the_same_again(checked: Any, word: str) -> None:
    assert word in words(snapshots_html([SNAPSHOT], checked))
