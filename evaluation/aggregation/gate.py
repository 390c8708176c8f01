"""Rules that make a comparison fail, for continuous integration: `--fail-if "total < -1% and total.p < 0.05"`.

A rule is one or more clauses joined by "and"; it fails the comparison where all of them hold.

    clause   subject[.field] operator bound
    subject  a score by name ("dynamic_degree", "hps_v2/overall"), quality, semantic or total (with two VBench families
             "vbench-port:total"), or any: each score in turn, the same one in all clauses of the rule that say any
    field    gain (if none is given): change, positive is better; difference: change as measured; low, high: ends of the
             gain's 95% interval; system, baseline: means; p; p_holm (scores only); coverage (share of clips in pairs)
    operator < <= > >=
    bound    a number; a percentage ("-1%" is -0.01); for gain, difference, low and high also mde or -mde, the subject's
             minimum detectable difference (of a score after Holm's correction, of a total uncorrected)

Scores without a better direction have no gain: `any` passes over them, naming one asks for .difference. A rule that
cannot be decided, because its total was refused, one prompt detects no difference, or a score that it names (for
`any`: any score) was not compared, so that its coverage is 0, fails too: silence is no pass.
"""

import difflib
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from evaluation.aggregation.comparison import DimensionChange, SystemComparison
from evaluation.aggregation.total_changes import TotalChange
from evaluation.vbench_compat.totals import TOTALS
from rlhf_video.errors import ConfigError

EXIT_CODE = 3
"""Of a program whose gate failed; 2 is a user's error."""
ANY = "any"

Change = DimensionChange | TotalChange

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_FIELDS = ("gain", "difference", "low", "high", "system", "baseline", "p", "p_holm", "coverage")
_DIFFERENCES = ("gain", "difference", "low", "high")
"""Fields that a detectable difference bounds."""
_SHARES = ("p", "p_holm", "coverage")
_CLAUSE = re.compile(r"\s*(?P<subject>[^<>=\s]+)\s*(?P<operator><=|>=|<|>)\s*(?P<bound>\S+)\s*")


@dataclass(frozen=True)
class Clause:
    """One condition of a rule."""

    subject: str
    field: str
    operator: str
    bound: float
    """The number, or the factor of the minimum detectable difference."""
    is_mde: bool

    def __str__(self) -> str:
        """Write it as a rule has it."""
        bound = f"{'-' if self.bound < 0 else ''}mde" if self.is_mde else f"{self.bound:g}"
        return f"{self.subject}.{self.field} {self.operator} {bound}"


@dataclass(frozen=True)
class GateRule:
    """A rule: it fails where all clauses hold."""

    text: str
    clauses: tuple[Clause, ...]


@dataclass(frozen=True)
class GateResult:
    """What came of one rule."""

    rule: str
    has_failed: bool
    reason: str
    """One sentence with the numbers that decided."""


def parse_rule(text: str) -> GateRule:
    """Read one rule.

    Raises:
        ConfigError: It does not follow the grammar, names an unknown field, or mixes `any` with nothing to compare.
    """
    clauses = tuple(_parse_clause(part, text) for part in re.split(r"\s+and\s+", text.strip()))
    return GateRule(text.strip(), clauses)


def check_gate(comparison: SystemComparison, rules: Sequence[GateRule]) -> tuple[GateResult, ...]:
    """Decide every rule.

    Raises:
        ConfigError: A rule names a score that the comparison does not have, a total where two families have one, or a
            field that its subject does not have.
    """
    return tuple(_check_rule(comparison, rule) for rule in rules)


def has_failed(results: Sequence[GateResult]) -> bool:
    """Tell whether any rule failed, so that the program should end with `EXIT_CODE`."""
    return any(result.has_failed for result in results)


def _parse_clause(text: str, rule: str) -> Clause:
    match = _CLAUSE.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"--fail-if {rule!r}: {text.strip()!r} is no condition. Write for example 'total < -1%', 'any < -mde', "
            "'any < 0 and any.p_holm < 0.05' or 'dynamic_degree.difference < -0.1'."
        )
    subject, dot, field = match["subject"].rpartition(".")
    if not dot:
        subject, field = match["subject"], "gain"
    if field not in _FIELDS:
        raise ConfigError(
            f"--fail-if {rule!r}: unknown field '{field}'.{_hint(field, _FIELDS)} Known: {', '.join(_FIELDS)}."
        )
    bound = match["bound"]
    is_mde = bound.lstrip("+-") == "mde"
    if is_mde and field not in _DIFFERENCES:
        raise ConfigError(
            f"--fail-if {rule!r}: mde is the smallest difference that can be found, which says nothing about "
            f"{subject}.{field}: bound {', '.join(_DIFFERENCES)} by it, and {field} by a number."
        )
    number = _number(bound.replace("mde", "1") if is_mde else bound, rule)
    if field in _SHARES and not 0.0 <= number <= 1.0:
        raise ConfigError(f"--fail-if {rule!r}: {field} lies between 0 and 1, {bound} is out of reach.")
    return Clause(subject, field, match["operator"], number, is_mde)


def _number(text: str, rule: str) -> float:
    try:
        value = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"--fail-if {rule!r}: {text!r} is no bound: give a number, a percentage, mde or -mde.")
    return value


def _check_rule(comparison: SystemComparison, rule: GateRule) -> GateResult:
    subjects = dict.fromkeys(clause.subject for clause in rule.clauses)
    uncompared = {name: why for name, why in comparison.uncompared.items() if name in subjects or ANY in subjects}
    if subjects.keys() & uncompared.keys():
        return _undecided(rule, uncompared)
    fixed = {subject: _find(comparison, subject, rule) for subject in subjects if subject != ANY}
    for clause in rule.clauses:
        _check_fits(clause, fixed.get(clause.subject), rule)
    for name, change in fixed.items():
        if isinstance(change, TotalChange) and change.refused:
            return GateResult(rule.text, True, f"cannot be decided, {name} was refused: {change.refused}")
    candidates: list[DimensionChange | None] = [None]
    if any(clause.subject == ANY for clause in rule.clauses):
        candidates = list(comparison.changes)
        if not candidates:
            return GateResult(rule.text, True, "cannot be decided, no score has a pair of clips")
        fields = {clause.field for clause in rule.clauses if clause.subject == ANY}
        if fields & {"gain", "low", "high"} and not any(change.gain for change in comparison.changes):
            return GateResult(rule.text, True, "cannot be decided, no score has a better direction: use any.difference")
    for candidate in candidates:
        for clause in rule.clauses:
            subject = fixed.get(clause.subject) or candidate
            if clause.is_mde and subject is not None and not math.isfinite(subject.minimum_detectable):
                return GateResult(rule.text, True, f"cannot be decided, {_name(subject)} rests on one prompt")
        held = [_holds(clause, fixed.get(clause.subject) or candidate) for clause in rule.clauses]
        if all(held):
            numbers = [_describe(clause, fixed.get(clause.subject) or candidate) for clause in rule.clauses]
            return GateResult(rule.text, True, "; ".join(numbers))
    if uncompared:
        return _undecided(rule, uncompared)
    return GateResult(rule.text, False, "does not hold")


def _undecided(rule: GateRule, uncompared: Mapping[str, str]) -> GateResult:
    name, why = next(iter(uncompared.items()))
    more = f" ({len(uncompared) - 1} more neither)" if len(uncompared) > 1 else ""
    return GateResult(rule.text, True, f"cannot be decided, {name} was not compared{more}: {why} (coverage 0)")


def _find(comparison: SystemComparison, subject: str, rule: GateRule) -> Change:
    changes = {change.column.name: change for change in comparison.changes}
    if subject in changes:
        return changes[subject]
    family, _, name = subject.rpartition(":")
    totals = [total for total in comparison.totals if total.name == name and family in ("", total.family)]
    if len(totals) == 1:
        return totals[0]
    if totals:
        known = ", ".join(f"{total.family}:{name}" for total in totals)
        raise ConfigError(f"--fail-if {rule.text!r}: two families have a {name}, say which: {known}.")
    if name in TOTALS:
        raise ConfigError(f"--fail-if {rule.text!r}: no score of this comparison is of VBench, so it has no {subject}.")
    names = [*changes, *(total.name for total in comparison.totals), ANY]
    raise ConfigError(
        f"--fail-if {rule.text!r}: '{subject}' was not compared.{_hint(subject, names)} Known: {', '.join(names)}."
    )


def _check_fits(clause: Clause, change: Change | None, rule: GateRule) -> None:
    """Refuse clauses that could never hold, or that mean nothing for their subject."""
    where = f"--fail-if {rule.text!r}"
    if isinstance(change, TotalChange):
        if clause.field in ("p_holm", "coverage"):
            raise ConfigError(f"{where}: a total has no {clause.field}: use .p, or a score.")
        if clause.field != "p" and not clause.is_mde and abs(clause.bound) > 1.0:
            raise ConfigError(
                f"{where}: totals lie between 0 and 1, so {clause.bound:g} is out of reach: one point is 1% or 0.01."
            )
    if isinstance(change, DimensionChange) and change.gain is None and clause.field in ("gain", "low", "high"):
        raise ConfigError(
            f"{where}: neither direction of {clause.subject} is better: use {clause.subject}.difference instead."
        )


def _holds(clause: Clause, change: Change | None) -> bool:
    value = None if change is None else _value(clause, change)
    return value is not None and _OPERATORS[clause.operator](value, _bound(clause, change))


def _bound(clause: Clause, change: Change | None) -> float:
    if not clause.is_mde or change is None:
        return clause.bound
    return clause.bound * change.minimum_detectable


def _value(clause: Clause, change: Change) -> float | None:
    """Return the number that a clause is about, None where a score has no better direction."""
    gain = change.difference if isinstance(change, TotalChange) else change.gain
    match clause.field:
        case "gain":
            return None if gain is None else gain.mean
        case "low":
            return None if gain is None else gain.low
        case "high":
            return None if gain is None else gain.high
        case "p":
            return change.p_value
    if isinstance(change, DimensionChange) and clause.field == "p_holm":
        return change.p_holm
    if isinstance(change, DimensionChange) and clause.field == "coverage":
        return 2.0 * change.num_pairs / (2.0 * change.num_pairs + change.num_unpaired)
    interval = {"difference": change.difference, "system": change.system, "baseline": change.baseline}[clause.field]
    return None if interval is None else interval.mean


def _describe(clause: Clause, change: Change | None) -> str:
    assert change is not None
    value = _value(clause, change)
    return f"{_name(change)}.{clause.field} = {value:.4g} {clause.operator} {_bound(clause, change):.4g}"


def _name(change: Change) -> str:
    return change.column.name if isinstance(change, DimensionChange) else f"{change.family}:{change.name}"


def _hint(word: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, names, n=1)
    return f" Did you mean '{close[0]}'?" if close else ""
