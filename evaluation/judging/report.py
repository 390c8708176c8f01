"""The judgement as JSON, as Markdown, and as the table on the terminal."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.judging.bias import BiasResult
from evaluation.judging.judgement import DimensionResult, Resampling
from evaluation.judging.scoring import COVARIATES, ClipFailure
from rlhf_video.report import markdown_table
from rlhf_video.stats import Interval


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One run: what was judged on what, and what came out."""

    benchmark: str
    benchmark_file: str
    benchmark_sha256: str
    reward: str
    """Name and version."""
    options: Mapping[str, object]
    options_sha256: str
    num_comparisons: int
    num_clips: int
    """Distinct clips with their prompts, failed and missing ones included."""
    missing_clips: tuple[str, ...]
    """Not there, and left out because --allow-missing was given."""
    failures: tuple[ClipFailure, ...]
    not_judged: tuple[str, ...]
    """Label dimensions that --map left out."""
    resampling: Resampling
    dimensions: tuple[DimensionResult, ...]


def to_json(judgement: Judgement) -> str:
    """Return JSON; ends of intervals and thresholds that are not finite stand as "inf" and "-inf"."""
    plain = dataclasses.asdict(judgement)
    for written, result in zip(plain["dimensions"], judgement.dimensions, strict=True):
        for bias, original in zip(written["biases"], result.biases, strict=True):
            against = original.accuracy_against
            bias["accuracy_against"] = None if against is None else dataclasses.asdict(against)
    return json.dumps(_finite(plain), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_markdown(judgement: Judgement) -> str:
    """Return the whole report."""
    options = ", ".join(f"{key}={value}" for key, value in judgement.options.items()) or "none"
    parts = [
        f"# {judgement.reward} on {judgement.benchmark}\n",
        f"Options: {options}. {judgement.num_comparisons} comparisons of {judgement.num_clips} clips; intervals: 95%, "
        f"{judgement.resampling.num_resamples} bootstrap draws of whole prompts. docs/judging.md says what each number "
        "means.\n",
        summary_table(judgement.dimensions),
        _omissions(judgement),
    ]
    for result in judgement.dimensions:
        parts += [f"## {result.dimension} (judged by {result.score})\n", _details(result)]
        parts += ["### By pair of generators\n", _pairing_table(result)]
        parts += ["### What the reward leans on\n", _bias_table(result.biases)]
    units = "; ".join(f"{name}: {unit}" for name, unit in COVARIATES.items())
    parts.append(f"Measured on every clip: {units}.\n")
    if judgement.failures:
        rows = [(str(failure.clip), failure.prompt, failure.reason) for failure in judgement.failures]
        parts += ["## Clips without a score\n", markdown_table(("clip", "prompt", "reason"), rows)]
    if judgement.missing_clips:
        parts += ["## Missing clips\n", markdown_table(("clip",), [(path,) for path in judgement.missing_clips])]
    return "\n".join(parts)


def summary_table(results: Sequence[DimensionResult]) -> str:
    """Return one row per dimension: accuracies in percent with their intervals."""
    header = ("dimension", "n", "without ties", "with ties", "calibrated", "always tie", "tau-b", "tie AUC")
    rows = [
        (
            result.dimension,
            str(result.num_comparisons),
            _percent(result.without_ties),
            _percent(result.with_ties),
            _percent(result.calibrated.accuracy if result.calibrated else None),
            f"{100 * result.human_tie_share:.1f}",
            _number(result.tau_b),
            _number(result.tie_auc),
        )
        for result in results
    ]
    return markdown_table(header, rows, align="lrrrrrrr")


def _details(result: DimensionResult) -> str:
    counts = result.counts
    dropped = ", ".join(f"{label or 'empty'!r}: {number}" for label, number in result.dropped_labels.items())
    rows = [
        ("comparisons, prompts", f"{result.num_comparisons}, {result.num_prompts}"),
        ("left out because a clip has no score", str(result.num_unscored)),
        ("left out because the label is invalid", dropped or "0"),
        (
            "concordant, discordant, exact ties of the reward",
            _three(counts.concordant, counts.discordant, counts.model_ties),
        ),
        ("human ties: the reward decides, ties exactly", f"{counts.human_ties}, {counts.both_ties}"),
        ("without ties, an exact tie earning half", _percent(result.half_credit)),
        ("best threshold on |margin|", _threshold(result.threshold)),
    ]
    if result.calibrated:
        low, high = (_threshold(end) for end in result.calibrated.threshold_range)
        rows.append(
            ("calibrated thresholds: median [range]", f"{_threshold(result.calibrated.threshold)} [{low}, {high}]")
        )
    return markdown_table(("", "value"), rows, align="lr")


def _pairing_table(result: DimensionResult) -> str:
    rows = [
        (pairing.models, str(pairing.num_comparisons), _percent(pairing.without_ties), _percent(pairing.with_ties))
        for pairing in result.pairings
    ]
    return markdown_table(("generators", "n", "without ties", "with ties"), rows, align="lrrr")


def _bias_table(biases: Sequence[BiasResult]) -> str:
    header = ("", "correlation", "reward prefers more", "people do", "accuracy: people chose more", "less", "against")
    rows = [
        (
            bias.name,
            _number(bias.correlation),
            _share(bias.reward_prefers_more),
            _share(bias.people_prefer_more),
            _percent(bias.accuracy_more),
            _percent(bias.accuracy_less),
            _percent(bias.accuracy_against),
        )
        for bias in biases
    ]
    note = "Prompt length: correlation of |margin| with the words; accuracy above the median, and on the others.\n"
    return markdown_table(header, rows, align="lrrrrrr") + f"\n{note}"


def _omissions(judgement: Judgement) -> str:
    parts = [
        f"{len(judgement.failures)} clips could not be scored, {len(judgement.missing_clips)} were missing; no number "
        "stands in for them."
    ]
    if judgement.not_judged:
        parts.append(f"Not judged: {', '.join(judgement.not_judged)}.")
    return " ".join(parts) + "\n"


def _three(*numbers: int) -> str:
    return ", ".join(str(number) for number in numbers)


def _percent(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    scaled = interval.scaled(100.0)
    bounds = f"[{scaled.low:.1f}, {scaled.high:.1f}]" if math.isfinite(scaled.low) else "[one prompt]"
    return f"{scaled.mean:.1f} {bounds}"


def _number(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    bounds = f"[{interval.low:.3f}, {interval.high:.3f}]" if math.isfinite(interval.low) else "[unknown]"
    return f"{interval.mean:.3f} {bounds}"


def _share(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _threshold(threshold: float) -> str:
    if threshold < 0:
        return "none: never a tie"
    return "inf: always a tie" if math.isinf(threshold) else f"{threshold:.4g}"


def _finite(value: object) -> object:
    """Return plain values in which no number is infinite and no path is left."""
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, bool | int | float | str | None) else str(value)
