"""Windowed attention that trains: windows, plans, the operator, and how they are put on a model."""

from rlhf_video.attention.apply import PlanHandle, apply_attention_plan, find_plan
from rlhf_video.attention.band_window import Band
from rlhf_video.attention.box_windows import Local, Tile
from rlhf_video.attention.config import AttentionConfig
from rlhf_video.attention.grid import AXIS_ORDERS, AxisOrder, Grid
from rlhf_video.attention.plan import AttentionPlan
from rlhf_video.attention.planner import plan_band, plan_local, plan_tile
from rlhf_video.attention.presets import PRESETS, preset_plan
from rlhf_video.attention.problem import Text
from rlhf_video.attention.window_spec import WindowSpec
from rlhf_video.attention.windowed import windowed_attention
from rlhf_video.attention.windows import Full, window_from_json

__all__ = [
    "AXIS_ORDERS",
    "PRESETS",
    "AttentionConfig",
    "AttentionPlan",
    "AxisOrder",
    "Band",
    "Full",
    "Grid",
    "Local",
    "PlanHandle",
    "Text",
    "Tile",
    "WindowSpec",
    "apply_attention_plan",
    "find_plan",
    "plan_band",
    "plan_local",
    "plan_tile",
    "preset_plan",
    "window_from_json",
    "windowed_attention",
]
