"""The report as Markdown, for model and adapter cards."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.aggregation.comparison import SIGNIFICANT, SystemComparison
from evaluation.aggregation.set_distances import SetDistance
from evaluation.aggregation.summary import Summary
from evaluation.report.pairs import direction_of, half_width, label_of, paired_on, write_difference, write_value
from evaluation.report.tables import FAMILIES, by_family, counts_of, write_p
from evaluation.report.verdict import headline, trust_cards, trust_of
from evaluation.scores import Column, SystemScores
from rlhf_video.report import markdown_table
from rlhf_video.stats import Interval


def report_markdown(
    summaries: Sequence[Summary],
    comparisons: Sequence[SystemComparison],
    held: Mapping[str, SystemScores],
    facts: Mapping[str, Any],
    distances: Sequence[SetDistance] = (),
) -> str:
    """Return verdict, tables, totals, warnings and provenance; what users wrote is escaped.

    Args:
        summaries: One per system.
        comparisons: Against the baseline.
        held: Scores by system.
        facts: Provenance; only its plain texts and numbers are written.
        distances: Between the systems' clips as sets.
    """
    parts = ["## Evaluation"]
    for comparison in comparisons:
        baseline = held[comparison.baseline]
        deviations = {
            name: float(np.nanstd(values)) if np.isfinite(values).any() else 0.0
            for name, values in baseline.values.items()
        }
        _, because = trust_of(trust_cards(comparison, summaries, deviations))
        parts.append(f"**{_plain(headline(comparison))}** {_plain(because)}")
        parts.append(_plain(comparison.verdict))
        parts.append(_comparison(comparison, next(item for item in summaries if item.system == comparison.system)))
    if not comparisons:
        parts += [_system(summary) for summary in summaries]
    parts += _totals(summaries)
    if distances:
        parts.append("\n".join(f"- {_plain(str(distance))}" for distance in distances))
    warnings = dict.fromkeys(
        f"{one.system}: {text}" for several in (comparisons, summaries) for one in several for text in one.warnings
    )
    parts += [f"> {_plain(text)}" for text in warnings]
    plain = [
        (key, value) for key, value in facts.items() if isinstance(value, str | int | float) and "\n" not in str(value)
    ]
    if plain:
        parts.append("\n".join(f"- {_plain(key.replace('_', ' '))}: {_plain(str(value))}" for key, value in plain))
    return "\n\n".join(parts) + "\n"


def _comparison(comparison: SystemComparison, summary: Summary) -> str:
    counts = {item.column.name: counts_of(item)[0] for item in summary.dimensions}
    tables = []
    for family, indices in by_family([change.column for change in comparison.changes]):
        rows = []
        for index in indices:
            change = comparison.changes[index]
            difference, ends = write_difference(change.difference, change.column)
            mark = "**" if change.is_significant else ""
            rows.append(
                (
                    _name(change.column),
                    _mean(change.baseline, change.column),
                    _mean(change.system, change.column),
                    f"{mark}{difference}{mark}",
                    ends,
                    write_p(change.p_holm),
                    counts.get(change.column.name, str(change.num_pairs)),
                )
            )
        head = (FAMILIES[family], comparison.baseline, comparison.system, "difference", "95% interval", "p", "scored")
        tables.append(markdown_table([_plain(cell) for cell in head], rows, align="lrrrrrr"))
    pairs = max((change.num_pairs for change in comparison.changes), default=0)
    note = (
        f"Differences clip by clip on {pairs} pairs of {paired_on([comparison])}; intervals resample prompts; p after "
        f"Holm's correction over all scores, bold below {SIGNIFICANT:g}."
    )
    return "\n".join([*tables, note])


def _system(summary: Summary) -> str:
    rows = []
    for item in summary.dimensions:
        mean, ends = "—", "—"
        if item.num_ok:
            spread = half_width(item.interval)
            mean = _mean(item.interval, item.column)
            ends = " to ".join(write_value(end, item.column, spread) for end in (item.interval.low, item.interval.high))
        rows.append((_name(item.column), FAMILIES[item.column.family], mean, ends, counts_of(item)[0]))
    head = (_plain(summary.system), "by", "mean", "95% interval", "scored")
    return markdown_table(head, rows, align="llrrr")


def _totals(summaries: Sequence[Summary]) -> list[str]:
    rows = []
    for summary in summaries:
        for total in summary.totals:
            if total.interval is None:
                value, ends = "refused", _plain(total.refused or "")
            else:
                value = f"{100.0 * total.interval.mean:.2f}"
                ends = f"{100.0 * total.interval.low:.2f} to {100.0 * total.interval.high:.2f}"
            name = total.name + (" (partial)" if total.is_partial else "")
            rows.append((_plain(summary.system), FAMILIES[total.family].split(" (")[0], name, value, ends))
    if not rows:
        return []
    return [markdown_table(("system", "by", "VBench total", "percent", "95% interval"), rows, align="lllrr").rstrip()]


def _name(column: Column) -> str:
    arrow = "" if column.higher_is_better else f" ({direction_of(column)})"
    return _plain(label_of(column) + arrow)


def _mean(interval: Interval, column: Column) -> str:
    return write_value(interval.mean, column, half_width(interval))


def _plain(text: str) -> str:
    """Escape what Markdown and HTML would read as markup, and line breaks."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for letter in "\\`*_[]":
        text = text.replace(letter, "\\" + letter)
    return text
