"""The report of a training run: verdict, before/after, curves, clips, guards, strength sweep."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from rlhf_video.data import encode_mp4
from rlhf_video.report import (
    ClipPair,
    EffectRow,
    GuardCard,
    Html,
    Series,
    clip_pairs,
    effect_table,
    folded,
    footer,
    format_difference,
    format_value,
    guard_cards,
    header,
    ink,
    line_chart,
    section,
    table,
    write_report,
)
from rlhf_video.validation.clips import Clips
from rlhf_video.validation.comparison import Comparison, ScoreChange
from rlhf_video.validation.report_charts import training_charts, validation_charts
from rlhf_video.validation.report_views import CurveView, FurtherComparison, Role, ScoreView, TrainingReport
from rlhf_video.validation.sweep import StrengthSweep

__all__ = [
    "CurveView",
    "FurtherComparison",
    "ScoreView",
    "TrainingReport",
    "effect_rows",
    "verdict_sentence",
    "write_training_report",
]

_GROUPS: dict[Role, str] = {
    "judge": "Judge, never trained on",
    "held-out": "Held-out rewards, never trained on",
    "trained": "Trained rewards",
    "guard": "Guards",
    "likeness": "Likeness",
}
_SHOWN_SIDE = 128  # pixels: smaller clips are enlarged before encoding


def write_training_report(path: str | Path, report: TrainingReport) -> Path:
    """Write the page and return its path.

    Raises:
        DataError: A view names an unknown score, or a clip cannot be encoded.
        OSError: The disk is full or the folder is not writable.
    """
    verdict, tone = verdict_sentence(report)
    counted = {
        "pairs": str(report.comparison.num_pairs),
        "prompts": f"{report.comparison.num_prompts} {report.prompts_name}",
    }
    parts = [header(report.title, verdict, tone=tone, facts={**counted, **report.facts}), _before_after(report)]
    parts += [_further(part) for part in report.further]
    if report.base_clips is not None and report.adapter_clips is not None:
        parts.append(_clips(report, report.base_clips, report.adapter_clips))
    if report.readings or report.alarms:
        parts.append(_guards(report))
    charts = [*validation_charts(report), *training_charts(report)]
    if charts:
        lead = "Bands are 95% intervals over prompts. Point at a dot to read it."
        parts.append(section("Curves", [Html(f'<div class="charts">{"".join(charts)}</div>')], lead=lead))
    if report.sweep is not None:
        parts.append(_sweep(report.sweep))
    details = [("Command", report.command), ("Configuration", report.config_yaml)]
    folds = [folded(title, text) for title, text in details if text]
    if folds:
        parts.append(section("How it was made", folds))
    parts.append(footer("Base and adapter clips of a pair share prompt and noise. Intervals resample whole prompts."))
    return write_report(path, parts, title=report.title)


def verdict_sentence(report: TrainingReport) -> tuple[str, Literal["good", "bad", "calm"]]:
    """Return the sentence to remember, and its tone: good needs an interval clear of zero and no tripped guard."""
    view = report.views[0]
    change = report.comparison.change(view.key)
    difference, ends = format_difference(change.difference, is_share=view.is_share)
    before = format_value(change.base.mean, is_share=view.is_share)
    after = format_value(change.adapter.mean, is_share=view.is_share)
    tone = ink(change.difference, view.better)
    start = {
        "good": f"{view.label} got better, from {before} to {after}: {difference} (95% interval {ends})",
        "bad": f"{view.label} got worse, from {before} to {after}: {difference} (95% interval {ends})",
        "calm": f"{view.label} did not clearly change, from {before} to {after}: {difference} (95% interval {ends})",
    }[tone]
    tripped = sorted({reading.name for reading in report.readings if reading.state == "tripped"})
    sentence = f"{start} on {change.base.num_clusters} {report.prompts_name}."
    if tripped:
        return f"{sentence} But guards tripped: {', '.join(tripped)}.", "bad"
    if any(reading.state == "ok" for reading in report.readings):
        sentence += " All measured guards hold."
    return sentence, tone


def effect_rows(comparison: Comparison, views: Sequence[ScoreView]) -> list[EffectRow]:
    """Return the rows of the before/after table, in the order of the views."""
    rows = []
    for view in views:
        change: ScoreChange = comparison.change(view.key)
        mask = comparison.valid(view.key)
        masked = f" ({change.num_masked} masked)" if change.num_masked else ""
        rows.append(
            EffectRow(
                label=view.label + masked,
                group=_GROUPS[view.role],
                base=change.base,
                adapter=change.adapter,
                difference=change.difference,
                deviation=float(comparison.base[view.key][mask].std()),
                is_share=view.is_share,
                better=view.better,
            )
        )
    return rows


def _before_after(report: TrainingReport) -> Html:
    lead = (
        "Each row compares clips of the same prompt and the same noise. Coloured differences have a 95% interval "
        "clear of zero; grey ones may be chance."
    )
    return section("Before and after", [_effects(report.comparison, report.views, report.names)], lead=lead)


def _further(part: FurtherComparison) -> Html:
    return section(part.title, [_effects(part.comparison, part.views, part.names)], lead=part.lead)


def _effects(comparison: Comparison, views: Sequence[ScoreView], names: tuple[str, str]) -> Html:
    ordered = sorted(views, key=lambda view: list(_GROUPS).index(view.role))
    return effect_table(effect_rows(comparison, ordered), names=names)


def _clips(report: TrainingReport, base: Clips, adapter: Clips) -> Html:
    _, first = np.unique(base.clusters, return_index=True)  # the first clip of each prompt
    chosen = np.linspace(0, len(first) - 1, min(report.num_pairs, len(first))).round().astype(int)
    height, width = base.video.shape[-2:]
    pairs = []
    for index in first[np.unique(chosen)].tolist():
        pairs.append(
            ClipPair(
                prompt=base.prompts[index],
                base_mp4=encode_mp4(base.video[index], report.fps, min_side=_SHOWN_SIDE),
                adapter_mp4=encode_mp4(adapter.video[index], report.fps, min_side=_SHOWN_SIDE),
                aspect=width / height,
                scores=_scores_below(report, index),
            )
        )
    lead = f"The first clip of {len(pairs)} prompts spread evenly over the suite; none was chosen by its score."
    return section("Clips, side by side", [clip_pairs(pairs)], lead=lead)


def _scores_below(report: TrainingReport, index: int) -> dict[str, tuple[str, str]]:
    """Return the base's and the adapter's score of one pair under the labels of the views, guards left out."""
    texts = {}
    for view in report.views:
        if view.role != "guard":
            base, adapter = report.comparison.base[view.key][index], report.comparison.adapter[view.key][index]
            texts[view.label] = _score_text(view, float(base)), _score_text(view, float(adapter))
    return texts


def _score_text(view: ScoreView, value: float) -> str:
    if math.isnan(value):
        return "masked"
    if view.is_share and value in (0.0, 1.0):
        return "yes" if value else "no"
    return f"{value:.2f}"


def _guards(report: TrainingReport) -> Html:
    cards = []
    labels = {view.key: view.label for view in report.views}
    for reading in report.readings:
        is_ratio = reading.name != "held-out"
        limit = f"{reading.side} {reading.limit:g}× the base" if is_ratio else "no clear fall against the base"
        cards.append(
            GuardCard(
                name=reading.name.capitalize() if is_ratio else f"Held-out: {labels.get(reading.score, reading.score)}",
                value=reading.value,
                limit=limit,
                state=reading.state,
                is_ratio=is_ratio,
                advice=reading.advice,
            )
        )
    counts = Counter(alarm.name for alarm in report.alarms)
    for alarm in {alarm.name: alarm for alarm in report.alarms}.values():  # the latest of each kind
        times = f", raised at {counts[alarm.name]} validations" if counts[alarm.name] > 1 else ""
        cards.append(
            GuardCard(
                name=f"While training: {alarm.name}{times}",
                value=alarm.value,
                limit=f"limit {alarm.limit:+.2f}",
                state="tripped",
                is_ratio=False,
                advice=alarm.message,
                is_wide=True,
            )
        )
    lead = "What a reward can ruin while its own score rises, measured against the base."
    return section("Guards", [guard_cards(cards)], lead=lead)


def _sweep(sweep: StrengthSweep) -> Html:
    scales = [row.scale for row in sweep.rows]
    picked = scales.index(sweep.recommended_scale) if sweep.recommended_scale in scales else None
    rows = [
        (f"{row.scale:g}", f"{row.held_out_gain:+.2f}", f"{row.trained_gain:+.2f}", ", ".join(row.tripped) or "hold")
        for row in sweep.rows
    ]
    cells = table(("strength", "held-out gain", "trained gain", "guards"), rows, align="rrrl", picked=picked)
    curves = [
        Series("held-out rewards", scales, [row.held_out_gain for row in sweep.rows], marked=picked),
        Series("trained rewards", scales, [row.trained_gain for row in sweep.rows]),
    ]
    unit = "gain over the base, in its standard deviations"
    chart = line_chart("Gain by adapter strength", curves, x_label="adapter strength", y_label=unit, zero_line=True)
    lead = (
        f"Recommended strength: {sweep.recommended_scale:g}, the best held-out gain among strengths whose guards hold. "
        "Gains are in standard deviations of the base's scores; strength 0 is the base."
    )
    return section("Adapter strength", [Html(f'<div class="charts">{chart}{cells}</div>')], lead=lead)
