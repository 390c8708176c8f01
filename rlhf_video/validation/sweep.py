"""Choose the adapter's strength: the best held-out gain among strengths whose guards hold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from rlhf_video.errors import ConfigError
from rlhf_video.report.markdown import markdown_table
from rlhf_video.validation.comparison import Comparison
from rlhf_video.validation.guards import Alarm, GuardConfig, check_guards

DEFAULT_SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)


@dataclass(frozen=True)
class SweepRow:
    """One strength."""

    scale: float
    held_out_gain: float
    """Mean held-out gain over the base, in standard deviations of the base's scores."""
    trained_gain: float
    """The same for the trained rewards; 0 where none was named."""
    means: dict[str, float]
    """Mean paired difference of every score, in its own unit."""
    tripped: tuple[str, ...]
    """Names of the guards that tripped."""


@dataclass(frozen=True)
class StrengthSweep:
    """All strengths and the recommended one."""

    rows: tuple[SweepRow, ...]
    recommended_scale: float

    def table(self) -> str:
        """Return a Markdown table, the recommended strength in bold."""
        cells = []
        for row in self.rows:
            scale = f"**{row.scale:g}**" if row.scale == self.recommended_scale else f"{row.scale:g}"
            guards = ", ".join(row.tripped) or "hold"
            cells.append((scale, f"{row.held_out_gain:+.2f}", f"{row.trained_gain:+.2f}", guards))
        return markdown_table(("strength", "held-out gain (sd)", "trained gain (sd)", "guards"), cells, align="rrrl")

    def to_json(self) -> dict[str, object]:
        """Return plain values for a run's card."""
        return asdict(self)


def sweep_strength(
    compare_at: Callable[[float], Comparison],
    *,
    held_out: Sequence[str],
    trained: Sequence[str] | Mapping[str, float] = (),
    scales: Sequence[float] = DEFAULT_SCALES,
    guards: GuardConfig | None = None,
) -> StrengthSweep:
    """Compare base and adapter at every strength and recommend one.

    Args:
        compare_at: Strength -> comparison with the base, same prompts and noise at each.
        held_out: Scores that choose: rewards that were not trained on.
        trained: Scores shown beside them; a mapping gives directions, as `Comparison.normalised_gain` takes them.
        scales: Strengths to try, each 0 or more; 0 is the base.
        guards: Limits; a strength that trips one is not recommended.

    Raises:
        ConfigError: No strength or no held-out score is given, or a strength is negative or given twice.
    """
    if not scales or min(scales) < 0.0 or len(set(scales)) < len(scales):
        raise ConfigError(f"scales={list(scales)} must be distinct numbers of 0 or more, for example {DEFAULT_SCALES}.")
    if not held_out:
        raise ConfigError("The strength sweep needs a held-out reward to choose by: name one in the config.")
    rows = []
    for scale in scales:
        comparison = compare_at(scale)
        alarms: tuple[Alarm, ...] = check_guards(comparison, guards, held_out=held_out) if scale > 0.0 else ()
        rows.append(
            SweepRow(
                scale=float(scale),
                held_out_gain=comparison.normalised_gain(held_out),
                trained_gain=comparison.normalised_gain(trained) if trained else 0.0,
                means={key: interval.mean for key, interval in comparison.intervals(num_resamples=1).items()},
                tripped=tuple(alarm.name for alarm in alarms),
            )
        )
    return StrengthSweep(rows=tuple(rows), recommended_scale=choose_scale(rows))


def choose_scale(rows: Sequence[SweepRow]) -> float:
    """Return the strength with the best held-out gain among those whose guards hold; the smaller one of equals.

    Returns:
        A strength of the rows, or 0.0 (do not use the adapter) when every one trips a guard.
    """
    allowed = [row for row in rows if not row.tripped]
    if not allowed:
        return 0.0
    return max(allowed, key=lambda row: (row.held_out_gain, -row.scale)).scale
