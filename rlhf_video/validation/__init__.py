"""Same-noise comparison of base and adapter, guards, held-out stop and adapter-strength sweep: used by every method."""

from rlhf_video.validation.clips import Clips, Scores, diversity_scores, join_scores, score_clips
from rlhf_video.validation.comparison import Comparison, ScoreChange
from rlhf_video.validation.guards import Alarm, GuardConfig, GuardReading, alarms_of, check_guards, read_guards
from rlhf_video.validation.held_out import HeldOutStop, HeldOutStopConfig
from rlhf_video.validation.sweep import StrengthSweep, SweepRow, choose_scale, sweep_strength
from rlhf_video.validation.validator import Validator

__all__ = [
    "Alarm",
    "Clips",
    "Comparison",
    "GuardConfig",
    "GuardReading",
    "HeldOutStop",
    "HeldOutStopConfig",
    "ScoreChange",
    "Scores",
    "StrengthSweep",
    "SweepRow",
    "Validator",
    "alarms_of",
    "check_guards",
    "choose_scale",
    "diversity_scores",
    "join_scores",
    "read_guards",
    "score_clips",
    "sweep_strength",
]
