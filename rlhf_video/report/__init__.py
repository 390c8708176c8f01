"""Self-contained HTML and Markdown pieces: tables, curves, paired clips."""

from rlhf_video.report.bars import ShareKind, ShareRow, ValueRow, share_bars, value_bars
from rlhf_video.report.chart import Series, chart_file, curve_colours, line_chart
from rlhf_video.report.clips import ClipPair, clip_pairs, video_element
from rlhf_video.report.effects import EffectRow, effect_table, format_difference, format_value, ink, interval_picture
from rlhf_video.report.guards import GuardCard, guard_cards
from rlhf_video.report.markdown import markdown_table
from rlhf_video.report.page import Html, document, escape, join, write_report
from rlhf_video.report.radar import radar_chart
from rlhf_video.report.sections import folded, footer, header, section, table

__all__ = [
    "ClipPair",
    "EffectRow",
    "GuardCard",
    "Html",
    "Series",
    "ShareKind",
    "ShareRow",
    "ValueRow",
    "chart_file",
    "clip_pairs",
    "curve_colours",
    "document",
    "effect_table",
    "escape",
    "folded",
    "footer",
    "format_difference",
    "format_value",
    "guard_cards",
    "header",
    "ink",
    "interval_picture",
    "join",
    "line_chart",
    "markdown_table",
    "radar_chart",
    "section",
    "share_bars",
    "table",
    "value_bars",
    "video_element",
    "write_report",
]
