import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evaluation.aggregation.comparison import SystemComparison, compare_systems
from evaluation.aggregation.gate import check_gate, has_failed, parse_rule
from rlhf_video.errors import ConfigError


@pytest.fixture
def worse(vbench_table: Any) -> SystemComparison:
    """A system whose scene score fell by 0.3, its total by about 0.008."""
    base, mine = vbench_table(system="base"), vbench_table()
    rng = np.random.default_rng(3)
    for column in mine.values.values():
        column += 0.001 * rng.normal(size=column.size)
    mine.values["scene"][:] -= 0.3
    return compare_systems(base, mine, num_resamples=300, num_permutations=300)


@pytest.mark.parametrize(
    ("rule", "fails"),
    [
        ("total < -0.5%", True),
        ("total < -1%", False),
        ("total.p < 0.05", True),
        ("total < 0 and total.p < 0.05", True),
        ("total < 0 and total.p > 0.05", False),
        ("vbench-port:semantic < -0.03", True),
        ("quality < -mde", False),
        ("any < -mde", True),
        ("any < -0.29", True),
        ("any < -0.31", False),
        ("any < -0.2 and any.p_holm < 0.05", True),
        ("scene < -mde", True),
        ("scene.difference <= -0.2", True),
        ("scene.high > 0", False),
        ("scene.low < -0.31", False),
        ("scene.system < 0.35", True),
        ("scene.baseline < 0.35", False),
        ("any.coverage < 1", False),
        ("color.p < 0.0001", False),
    ],
)
def test_rule_fails_where_it_holds(worse: SystemComparison, rule: str, fails: bool) -> None:
    (result,) = check_gate(worse, [parse_rule(rule)])
    assert result.has_failed is fails
    assert has_failed([result]) is fails


def test_reason_names_what_decided(worse: SystemComparison) -> None:
    (result,) = check_gate(worse, [parse_rule("any < -0.2 and any.p_holm < 0.05")])
    assert result.reason == "scene.gain = -0.3002 < -0.2; scene.p_holm = 0.007812 < 0.05"  # 16 * 2 / 2**12


def test_any_means_one_score_in_all_clauses(table: Any) -> None:
    base = {"fell": np.zeros(20), "sure": np.zeros(20)}
    fell = np.concatenate((np.full(10, -5.0), np.full(10, 4.0)))
    comparison = compare_systems(table(base, system="base"), table({"fell": fell, "sure": np.linspace(1, 2, 20)}))
    (result,) = check_gate(comparison, [parse_rule("any < 0 and any.p < 0.05")])
    assert not result.has_failed


def test_falling_is_a_gain_where_lower_is_better(table: Any) -> None:
    better = {"flicker": False, "brightness": None}
    base = {"flicker": np.zeros(20), "brightness": np.zeros(20)}
    after = {"flicker": np.linspace(-2, -1, 20), "brightness": np.linspace(-2, -1, 20)}
    comparison = compare_systems(
        table(base, system="base", higher_is_better=better), table(after, higher_is_better=better)
    )
    rules = ("any < 0", "flicker < 0", "flicker.difference < 0", "brightness.difference < -1")
    assert [result.has_failed for result in check_gate(comparison, [parse_rule(rule) for rule in rules])] == [
        False,
        False,
        True,
        True,
    ]
    with pytest.raises(ConfigError, match=r"use brightness\.difference"):
        check_gate(comparison, [parse_rule("brightness < 0")])


def test_refused_total_fails_the_gate(worse: SystemComparison) -> None:
    refused = tuple(replace(total, difference=None, refused="mine: color was not measured") for total in worse.totals)
    (result,) = check_gate(replace(worse, totals=refused), [parse_rule("total < -1%")])
    assert result.has_failed
    assert result.reason == "cannot be decided, total was refused: mine: color was not measured"


def test_one_prompt_detects_nothing_and_does_not_pass(table: Any) -> None:
    comparison = compare_systems(
        table({"a": np.zeros(2)}, system="base", samples=2), table({"a": np.ones(2)}, samples=2)
    )
    assert math.isinf(comparison.changes[0].minimum_detectable)
    (result,) = check_gate(comparison, [parse_rule("any < -mde")])
    assert result.has_failed and result.reason == "cannot be decided, a rests on one prompt"


def test_any_does_not_pass_where_no_score_has_a_better_direction(table: Any) -> None:
    better = {"brightness": None}
    base, mine = {"brightness": np.zeros(20)}, {"brightness": np.linspace(-2, -1, 20)}
    comparison = compare_systems(
        table(base, system="base", higher_is_better=better), table(mine, higher_is_better=better)
    )
    (gain, difference) = check_gate(comparison, [parse_rule("any < 0"), parse_rule("any.difference < -5")])
    assert gain.has_failed and "no score has a better direction" in gain.reason
    assert not difference.has_failed


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("total", "is no condition"),
        ("total < ", "is no condition"),
        ("total < -1% or scene < 0", "is no condition"),
        ("total < little", "'little' is no bound"),
        ("total < nan", "is no bound"),
        ("total < -0.5mde", "'-0.5mde' is no bound"),
        ("total < mde%", "'mde%' is no bound"),
        ("total.gains < 0.05", "unknown field 'gains'. Did you mean 'gain'"),
        ("any.p < mde", "says nothing about any.p: bound gain, difference, low, high by it"),
        ("any.p_holm < -mde", "says nothing about any.p_holm"),
        ("scene.coverage < mde", "says nothing about scene.coverage"),
        ("scene.baseline < mde", "says nothing about scene.baseline"),
        ("any.p < 5", "p lies between 0 and 1, 5 is out of reach"),
        ("scene.coverage < 100", "coverage lies between 0 and 1, 100 is out of reach"),
    ],
)
def test_rule_outside_the_grammar_is_refused(rule: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_rule(rule)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("scenes < 0", "'scenes' was not compared. Did you mean 'scene'"),
        ("total < -1.0001", "one point is 1% or 0.01"),
        ("total.p_holm < 0.05", "a total has no p_holm"),
    ],
)
def test_rule_that_fits_no_number_is_refused(worse: SystemComparison, rule: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_gate(worse, [parse_rule(rule)])


def test_total_where_nothing_is_of_vbench_is_refused(table: Any) -> None:
    comparison = compare_systems(table({"a": np.zeros(9)}, system="base"), table({"a": np.arange(9.0)}))
    with pytest.raises(ConfigError, match="no score of this comparison is of VBench"):
        check_gate(comparison, [parse_rule("total < 0")])


@pytest.mark.parametrize("rule", ["any < 0", "any.low < -1", "any.coverage < 1", "b < 0", "a < 0 and b.coverage < 1"])
@pytest.mark.parametrize("reason", ["lost", "changed"])
def test_a_score_that_was_not_compared_passes_no_rule_about_it(table: Any, rule: str, reason: str) -> None:
    base, better = {"a": np.zeros(20), "b": np.ones(20)}, np.linspace(1, 2, 20)
    mine = table({"a": better, "b": np.full(20, math.nan) if reason == "lost" else better})
    if reason == "changed":
        mine = replace(mine, columns=tuple(replace(c, metric="v2" if c.name == "b" else "") for c in mine.columns))
    comparison = compare_systems(table(base, system="base"), mine)
    results = check_gate(comparison, [parse_rule(rule), parse_rule("a < 0"), parse_rule("any > 0.5")])
    assert [result.has_failed for result in results] == [True, False, True]
    assert results[0].reason.startswith("cannot be decided, b was not compared: ")
    assert results[2].reason.startswith("a.gain = 1.5")
