"""The curves of a training report, read from the lines of metrics.jsonl."""

import math
from collections.abc import Mapping, Sequence

from rlhf_video.report import Html, Series, line_chart
from rlhf_video.validation.report_views import ScoreView, TrainingReport


def validation_charts(report: TrainingReport) -> list[Html]:
    """Return the gain over the base at every validation: one chart per role and unit, five scores at most."""
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


def training_charts(report: TrainingReport) -> list[Html]:
    """Return the charts that the report names; one whose metrics were never logged is left out."""
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
