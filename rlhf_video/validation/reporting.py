"""The report of a training run: verdict, before/after, curves, clips, guards, strength sweep."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from rlhf_video.validation.guards import Alarm, GuardReading
from rlhf_video.validation.sweep import StrengthSweep

Role = Literal["judge", "held-out", "trained", "guard"]
_GROUPS: dict[Role, str] = {
    "judge": "Judge, never trained on",
    "held-out": "Held-out rewards, never trained on",
    "trained": "Trained rewards",
    "guard": "Guards",
}
_SHOWN_SIDE = 128  # pixels: smaller clips are enlarged before encoding


@dataclass(frozen=True, kw_only=True)
class ScoreView:
    """How a report shows a score."""

    key: str
    """Name of the score, "reward/dimension"."""
    label: str
    """What a reader calls it."""
    role: Role
    is_share: bool = False
    """Values are 0 or 1: written in percent, differences in percentage points."""
    better: Literal["higher", "lower", "neither"] = "higher"


@dataclass(frozen=True, kw_only=True)
class CurveView:
    """One chart of logged training metrics."""

    title: str
    y_label: str
    """Name and unit of the vertical axis."""
    metrics: Mapping[str, str]
    """Legend text -> key in metrics.jsonl."""


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """Everything the page shows; what is left empty is left out of the page."""

    title: str
    """What was run, for example "Reward backpropagation on sprite-wan"."""
    comparison: Comparison
    """The final comparison."""
    views: tuple[ScoreView, ...]
    """Scores to show, the one that decides the verdict first."""
    prompts_name: str = "unseen prompts"
    """What the comparison's prompts are, for example "unseen test prompts"."""
    readings: tuple[GuardReading, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    """Alarms raised while training."""
    base_clips: Clips | None = None
    adapter_clips: Clips | None = None
    num_pairs: int = 12
    """Most pairs of clips shown, spread evenly over the prompts."""
    fps: float = 8.0
    metrics: Sequence[Mapping[str, float | None]] = ()
    """Lines of metrics.jsonl (`rlhf_video.runtime.read_metrics`)."""
    curves: tuple[CurveView, ...] = ()
    sweep: StrengthSweep | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    """Label -> value in the header, for example {"seed": "0", "training": "4 min 10 s"}."""
    command: str = ""
    config_yaml: str = ""


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
    if report.base_clips is not None and report.adapter_clips is not None:
        parts.append(_clips(report, report.base_clips, report.adapter_clips))
    if report.readings or report.alarms:
        parts.append(_guards(report))
    charts = [*_validation_charts(report), *_training_charts(report)]
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
        masked = f" ({change.num_masked} pairs masked)" if change.num_masked else ""
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
    ordered = sorted(report.views, key=lambda view: list(_GROUPS).index(view.role))
    lead = (
        "Each row compares clips of the same prompt and the same noise. Coloured differences have a 95% interval "
        "clear of zero; grey ones may be chance."
    )
    return section("Before and after", [effect_table(effect_rows(report.comparison, ordered))], lead=lead)


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


def _validation_charts(report: TrainingReport) -> list[Html]:
    """Return one chart per role: the gain over the base at every validation."""
    charts = []
    for role, title in (("judge", "Judge"), ("held-out", "Held-out rewards"), ("trained", "Trained rewards")):
        for is_share, unit in (
            (True, "percentage points over the base"),
            (False, "difference from the base, in its own unit"),
        ):
            views = [view for view in report.views if view.role == role and view.is_share is is_share]
            series = [_validation_series(report.metrics, view) for view in views[:5]]
            series = [curve for curve in series if len(curve.x)]
            if series:
                name = f"{title}, validation: {series[0].label}" if len(series) == 1 else f"{title}, validation"
                charts.append(line_chart(name, series, x_label="optimiser step", y_label=unit, zero_line=True))
    return charts


def _validation_series(metrics: Sequence[Mapping[str, float | None]], view: ScoreView) -> Series:
    stem = f"validation/{view.key}/difference"
    factor = 100.0 if view.is_share else 1.0
    lines = [line for line in metrics if line.get(stem) is not None]
    middle, low, high = (
        [factor * _number(line.get(name, line[stem])) for line in lines]
        for name in (stem, f"{stem}_low", f"{stem}_high")
    )
    return Series(view.label, [_number(line["step"]) for line in lines], middle, low, high)


def _training_charts(report: TrainingReport) -> list[Html]:
    charts = []
    for view in report.curves:
        series = []
        for label, key in view.metrics.items():
            lines = [line for line in report.metrics if line.get(key) is not None]
            series.append(
                Series(label, [_number(line["step"]) for line in lines], [_number(line[key]) for line in lines])
            )
        series = [curve for curve in series if len(curve.x)]
        if series:
            charts.append(
                line_chart(
                    view.title, series, x_label="optimiser step", y_label=view.y_label, dots=len(series[0].x) <= 30
                )
            )
    return charts


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


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
