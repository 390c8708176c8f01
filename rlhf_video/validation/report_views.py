"""What a training report shows, as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rlhf_video.validation.clips import Clips
from rlhf_video.validation.comparison import Comparison
from rlhf_video.validation.guards import Alarm, GuardReading
from rlhf_video.validation.sweep import StrengthSweep

Role = Literal["judge", "held-out", "trained", "guard", "likeness"]


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
class FurtherComparison:
    """A comparison beside that of base and adapter."""

    title: str
    """Heading."""
    lead: str
    """What is compared, a sentence that ends with a full stop."""
    comparison: Comparison
    views: tuple[ScoreView, ...]
    """Scores to show."""
    names: tuple[str, str]
    """What base and adapter of this comparison are called."""


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """Everything the page shows; what is left empty is left out of the page."""

    title: str
    """What was run, for example "Reward backpropagation on sprite-wan"."""
    comparison: Comparison
    """The final comparison."""
    views: tuple[ScoreView, ...]
    """Scores to show, the one that decides the verdict first."""
    names: tuple[str, str] = ("base", "adapter")
    """What the two sides of the comparison are called in its table."""
    further: tuple[FurtherComparison, ...] = ()
    """Comparisons that are shown behind it."""
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
