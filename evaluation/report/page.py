"""The report of an evaluation: one HTML page that opens from a file, and Markdown for cards."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.aggregation.comparison import SIGNIFICANT, SystemComparison
from evaluation.aggregation.set_distances import SetDistance
from evaluation.aggregation.summary import Summary
from evaluation.report.clips import ClipShelf
from evaluation.report.details import distance_table, holes_table, provenance
from evaluation.report.explorer import Explorer
from evaluation.report.figures import Curves, curve_charts, radars, total_bars, win_bars
from evaluation.report.markdown import report_markdown
from evaluation.report.pairs import label_of, match_clips, paired_on
from evaluation.report.style import SCRIPT, STYLE
from evaluation.report.tables import comparison_table, system_table, totals_table
from evaluation.report.verdict import headline, trust_cards, trust_of, verdict_tone
from evaluation.scores import Column, SystemScores
from rlhf_video.data import write_atomic
from rlhf_video.errors import DataError
from rlhf_video.report import Html, escape, footer, guard_cards, header, join, section, write_report

_NO_CURVES: Curves = {}


def write_evaluation_report(
    folder: Path,
    summaries: Sequence[Summary],
    comparisons: Sequence[SystemComparison],
    scores: Sequence[SystemScores],
    provenance_facts: Mapping[str, Any],
    *,
    curves: Curves = _NO_CURVES,
    distances: Sequence[SetDistance] = (),
) -> Path:
    """Write index.html and report.md and return the page's path.

    Args:
        folder: Target; made where it is missing. Clips too large to embed are addressed relative to it.
        summaries: One per system.
        comparisons: Against the baseline; empty for a single system.
        scores: One per system, the baseline first.
        provenance_facts: Commits, hashes, environment locks, seeds, commands (`report_details.provenance`).
        curves: Scores over frames or segments, where metrics have them.
        distances: Between the systems' clips as sets.

    Raises:
        DataError: Summaries, comparisons and scores are not of the same systems.
        OSError: The disk is full or the folder is not writable; an older report is intact.
    """
    held = {system.system: system for system in scores}
    named = {summary.system for summary in summaries}
    named |= {name for comparison in comparisons for name in (comparison.baseline, comparison.system)}
    if not scores or named - set(held) or set(held) - {summary.system for summary in summaries}:
        raise DataError(
            f"A report needs scores and a summary of every system: scores of {', '.join(held) or 'none'}, summaries "
            f"and comparisons of {', '.join(sorted(named)) or 'none'}."
        )
    shelf = ClipShelf(folder, scores)
    by_name = {summary.system: summary for summary in summaries}
    sections = [_top(summaries, comparisons, held)]
    sections += [part for part in _changes(by_name, comparisons, held) if part]
    sections += _figures(summaries, comparisons, scores)
    sections += _clips(shelf, comparisons)
    sections += _below(scores, curves, distances, provenance_facts)
    sections.append(footer(f"rlhf-video evaluation. {shelf.note()}"))
    title = f"{comparisons[0].system} against {comparisons[0].baseline}" if comparisons else scores[0].system
    path = write_report(
        folder / "index.html",
        sections,
        title=f"Evaluation: {title}",
        style=STYLE,
        script=SCRIPT,
        clips_beside=shelf.num_beside > 0,
    )
    write_atomic(
        folder / "report.md", report_markdown(summaries, comparisons, held, provenance_facts, distances).encode()
    )
    return path


def lead_column(comparisons: Sequence[SystemComparison], scores: Sequence[SystemScores]) -> Column:
    """Return the score by which clips are first sorted: the first that changed significantly, else the first.

    Only scores with a direction count where there is one, and what was compared goes before what was not.
    """
    changes = [change for comparison in comparisons for change in comparison.changes]
    found = [change.column for change in changes if change.is_significant and change.gain is not None]
    found += [change.column for change in changes if change.gain is not None]
    directed = [column for column in scores[0].columns if column.higher_is_better is not None]
    return [*found, *directed, *scores[0].columns][0]


def _top(
    summaries: Sequence[Summary], comparisons: Sequence[SystemComparison], held: Mapping[str, SystemScores]
) -> Html:
    first = next(iter(held.values()))
    prompts = len({entry.prompt for entry in first.entries})
    facts = {
        "prompts": str(prompts),
        "clips of each system": ", ".join(dict.fromkeys(_clip_count(system) for system in held.values())),
        "scores": str(len(first.columns)),
    }
    if not comparisons:
        verdict = f"{first.system}: {len(first.columns)} scores of {len(first.entries)} clips. Nothing to compare with."
        return join([header("Evaluation", verdict, facts=facts), *_warnings(summaries, ())])
    comparison = comparisons[0]
    cards = trust_cards(comparison, summaries, _deviations(held[comparison.baseline]))
    _, because = trust_of(cards)
    kicker = f"Evaluation: {comparison.system} against {comparison.baseline}"
    top = header(kicker, headline(comparison), tone=verdict_tone(comparison), facts=facts, because=because)
    body = [Html(f'<div class="trust">{guard_cards(cards)}</div>'), *_warnings(summaries, comparisons)]
    return join([top, section("Can it be believed?", body, lead=comparison.verdict)])


def _clip_count(system: SystemScores) -> str:
    scored, asked = len(system.entries), len(system.entries) + len(system.all_left_out)
    return str(scored) if scored == asked else f"{scored} of {asked}"


def _warnings(summaries: Sequence[Summary], comparisons: Sequence[SystemComparison]) -> list[Html]:
    """Return every warning once, with the systems that it is about."""
    texts: dict[str, list[str]] = {}
    for comparison in comparisons:
        for text in comparison.warnings:
            texts.setdefault(text, []).append(f"{comparison.system} against {comparison.baseline}")
    for summary in summaries:
        for text in summary.warnings:
            texts.setdefault(text, []).append(summary.system)
    lines = "".join(f"<li><b>{escape(', '.join(names))}</b>: {escape(text)}</li>" for text, names in texts.items())
    return [Html(f'<div class="card note"><ul>{lines}</ul></div>')] if lines else []


def _deviations(baseline: SystemScores) -> dict[str, float]:
    return {
        name: float(values[np.isfinite(values)].std()) if np.isfinite(values).any() else 0.0
        for name, values in baseline.values.items()
    }


def _changes(
    by_name: Mapping[str, Summary], comparisons: Sequence[SystemComparison], held: Mapping[str, SystemScores]
) -> list[Html]:
    parts = []
    lead = (
        f"Every difference is taken clip by clip on {paired_on(comparisons)}; intervals resample prompts. Coloured and "
        f"marked is only what survives Holm's correction over all scores at {SIGNIFICANT:g}."
    )
    for index, comparison in enumerate(comparisons):
        title = "What changed" if len(comparisons) == 1 else f"{comparison.system} against {comparison.baseline}"
        body = [comparison_table(comparison, held[comparison.baseline], by_name[comparison.system])]
        if index > 0:
            body.insert(0, Html(f'<p class="lead">{escape(comparison.verdict)}</p>'))
        parts.append(section(title, body, lead=lead if index == 0 else ""))
    if len(comparisons) != 1:
        parts.append(section("All systems", [system_table(list(by_name.values()))], lead="Means with 95% intervals."))
    return parts


def _figures(
    summaries: Sequence[Summary], comparisons: Sequence[SystemComparison], scores: Sequence[SystemScores]
) -> list[Html]:
    parts = []
    totals = total_bars(summaries)
    if totals:
        lead = (
            "Quality, Semantic and Total as VBench computes them, each family for itself. The total rewards video that "
            "hardly moves: read it beside the dynamic degree."
        )
        body = [Html(f'<div class="charts">{join(totals)}</div>')]
        changed = totals_table(comparisons)
        body += [Html(f"<h3>Clip by clip on {paired_on(comparisons)}</h3>"), changed] if changed else []
        parts.append(section("VBench totals", body, lead=lead))
    pictures = radars(scores, match_clips(scores), scores[0].columns)
    held = {system.system: system for system in scores}
    for comparison in comparisons:
        bars = win_bars(held[comparison.baseline], held[comparison.system], scores[0].columns)
        pictures += [bars] if bars else []
    if pictures:
        parts.append(section("Profile", [Html(f'<div class="charts">{join(pictures)}</div>')]))
    return parts


def _clips(shelf: ClipShelf, comparisons: Sequence[SystemComparison]) -> list[Html]:
    if not shelf.scores[0].columns:  # metrics of whole sets alone
        return []
    lead = lead_column(comparisons, shelf.scores)
    explorer = Explorer(shelf, match_clips(shelf.scores), shelf.scores[0].columns, lead=lead)
    worst, best = explorer.extremes()
    parts = []
    if worst:
        by = f"By {label_of(lead)}; the explorer below sorts by any score."
        names = ("Largest gains", "Largest losses") if len(shelf.scores) > 1 else ("Best", "Worst")
        body = [
            Html(f"<h3>{names[0]}</h3>"),
            explorer.cards(best),
            Html(f"<h3>{names[1]}</h3>"),
            explorer.cards(worst),
        ]
        parts.append(section("Best and worst clips", body, lead=by))
    parts.append(section("Every clip", [explorer.controls_and_cards()]))
    return parts


def _below(
    scores: Sequence[SystemScores], curves: Curves, distances: Sequence[SetDistance], facts: Mapping[str, Any]
) -> list[Html]:
    parts = []
    if distances:
        lead = "How far the clips of a system lie from those of another as a set: 0 means alike, not good."
        parts.append(section("Distances between sets", [distance_table(distances)], lead=lead))
    charts = curve_charts(scores, curves)
    if charts:
        lead = "Means over clips, with 95% intervals over prompts: what drifts, drifts here."
        parts.append(
            section("Over the length of the clip", [Html(f'<div class="charts">{join(charts)}</div>')], lead=lead)
        )
    holes = holes_table(scores, distances)
    nothing = Html('<p class="lead">Every clip has every score it was asked for.</p>')
    lead = "A clip without a value counts against the coverage, never as a score." if holes else ""
    parts.append(section("What is missing", [holes or nothing], lead=lead))
    if facts:
        parts.append(section("How it was made", [provenance(facts)]))
    return parts
