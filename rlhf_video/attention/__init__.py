"""Windowed attention that trains: windows, plans, the operator, and how they are put on a model."""

from rlhf_video.attention.band_window import Band
from rlhf_video.attention.box_windows import Local, Tile
from rlhf_video.attention.grid import AXIS_ORDERS, AxisOrder, Grid
from rlhf_video.attention.problem import Text
from rlhf_video.attention.window_spec import WindowSpec
from rlhf_video.attention.windowed import windowed_attention
from rlhf_video.attention.windows import Full, window_from_json

__all__ = [
    "AXIS_ORDERS",
    "AxisOrder",
    "Band",
    "Full",
    "Grid",
    "Local",
    "Text",
    "Tile",
    "WindowSpec",
    "window_from_json",
    "windowed_attention",
]
