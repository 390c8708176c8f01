"""Tables of an evaluation for the terminal."""

import math
from collections.abc import Sequence

from evaluation.aggregation.comparison import SystemComparison
from evaluation.aggregation.summary import Summary
from evaluation.running.outcome import Outcome
from evaluation.running.run_record import RunRecord
from evaluation.running.runner import is_asked, pending
from evaluation.running.store import ResultStore
from rlhf_video.report.markdown import markdown_table
from rlhf_video.stats import Interval

_MAX_WARNINGS = 12


def outcome_table(outcome: Outcome) -> str:
    """Return verdicts, scores, totals, distances and warnings as text."""
    parts = [comparison_table(comparison) for comparison in outcome.comparisons]
    if not outcome.comparisons:
        parts = [summary_table(outcome.summaries)]
    parts += [str(distance) for distance in outcome.distances]
    warnings = [f"! {summary.system}: {text}" for summary in outcome.summaries for text in summary.warnings]
    warnings += [f"! {comparison.system}: {text}" for comparison in outcome.comparisons for text in comparison.warnings]
    parts += list(dict.fromkeys(warnings))[:_MAX_WARNINGS]
    if len(warnings) > _MAX_WARNINGS:
        parts.append(f"! {len(warnings) - _MAX_WARNINGS} more warnings in the report")
    parts += [f"! not measured: {label}: {reason}" for label, reason in outcome.record.absent.items()]
    return "\n".join(parts)


def comparison_table(comparison: SystemComparison) -> str:
    """Return a comparison's rows and its verdict."""
    rows = [
        [
            change.column.name + _arrow(change.column.higher_is_better),
            change.column.family,
            _mean(change.baseline),
            _mean(change.system),
            _signed(change.difference),
            f"{change.p_holm:.3f}" + ("*" if change.is_significant else ""),
            f"{change.minimum_detectable:.3g}",
            f"{change.num_pairs}",
        ]
        for change in comparison.changes
    ]
    header = ["score", "family", comparison.baseline, comparison.system, "difference [95%]", "p", "detectable", "pairs"]
    totals = [
        f"{total.family} {total.name}{' (partial)' if total.is_partial else ''}: "
        f"{_signed(total.difference.scaled(100.0))} points"
        for total in comparison.totals
        if total.difference is not None
    ]
    refused = [total for total in comparison.totals if total.difference is None and total.name == "total"]
    totals += [f"{total.family} total: none, {total.refused}" for total in refused]
    return "\n".join([markdown_table(header, rows, align="llrrrrrr").rstrip(), *totals, "", comparison.verdict])


def summary_table(summaries: Sequence[Summary]) -> str:
    """Return each system's means."""
    rows = [
        [
            summary.system,
            line.column.name + _arrow(line.column.higher_is_better),
            line.column.family,
            f"{line.interval.mean:.4g} [{line.interval.low:.4g}, {line.interval.high:.4g}]",
            f"{line.coverage:.0%}",
        ]
        for summary in summaries
        for line in summary.dimensions
    ]
    return markdown_table(["system", "score", "family", "mean [95%]", "coverage"], rows, align="lllrr").rstrip()


def status_table(record: RunRecord, store: ResultStore) -> str:
    """Return what is done, failed and left of each metric and system."""
    rows = []
    for metric in record.metrics:
        for system, entries in record.systems.items():
            results = [store.find(entry, metric.key) for entry in entries]
            left = sum(bool(pending(entry, [metric], store)) for entry in entries)
            counts = [
                sum(r is not None and r.status == status for r in results) for status in ("ok", "skipped", "failed")
            ]
            spec = metric.spec
            lost = [clip for clip in record.left_out[system] if any(is_asked(clip, spec, d) for d in spec.dimensions)]
            seconds = [result.seconds for result in results if result is not None]
            pace = f"{sum(seconds) / len(seconds):.3f}" if seconds else ""
            rows.append([metric.label, system, *map(str, counts), str(left), str(len(lost)), pace])
    header = ["metric", "system", "done", "skipped", "failed", "left", "no clip", "s/clip"]
    return markdown_table(header, rows, align="llrrrrrr").rstrip()


def _arrow(higher_is_better: bool | None) -> str:
    return "" if higher_is_better is None else " ^" if higher_is_better else " v"


def _mean(interval: Interval) -> str:
    return "-" if math.isnan(interval.mean) else f"{interval.mean:.4g}"


def _signed(interval: Interval) -> str:
    return f"{interval.mean:+.3g} [{interval.low:+.3g}, {interval.high:+.3g}]"
