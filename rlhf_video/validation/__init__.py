"""Same-noise comparison of base and adapter, guards, held-out stop and adapter-strength sweep: used by every method."""

from rlhf_video.validation.clips import PSNR, Clips, Scores, diversity_scores, join_scores, psnr_scores, score_clips
from rlhf_video.validation.comparison import Comparison, ScoreChange
from rlhf_video.validation.guards import Alarm, GuardConfig, GuardReading, alarms_of, check_guards, read_guards
from rlhf_video.validation.held_out import HeldOutStop, HeldOutStopConfig
from rlhf_video.validation.reporting import (
    CurveView,
    FurtherComparison,
    ScoreView,
    TrainingReport,
    effect_rows,
    verdict_sentence,
    write_training_report,
)
from rlhf_video.validation.sweep import StrengthSweep, SweepRow, choose_scale, sweep_strength
from rlhf_video.validation.validator import Validator

__all__ = [
    "PSNR",
    "Alarm",
    "Clips",
    "Comparison",
    "CurveView",
    "FurtherComparison",
    "GuardConfig",
    "GuardReading",
    "HeldOutStop",
    "HeldOutStopConfig",
    "ScoreChange",
    "ScoreView",
    "Scores",
    "StrengthSweep",
    "SweepRow",
    "TrainingReport",
    "Validator",
    "alarms_of",
    "check_guards",
    "choose_scale",
    "diversity_scores",
    "effect_rows",
    "join_scores",
    "psnr_scores",
    "read_guards",
    "score_clips",
    "sweep_strength",
    "verdict_sentence",
    "write_training_report",
]
