"""Self-contained HTML and Markdown pieces: tables, curves, paired clips."""

from rlhf_video.report.chart import Series, chart_file, line_chart
from rlhf_video.report.clips import ClipPair, clip_pairs, video_element
from rlhf_video.report.effects import EffectRow, effect_table, format_difference, format_value, ink
from rlhf_video.report.guards import GuardCard, guard_cards
from rlhf_video.report.markdown import markdown_table
from rlhf_video.report.page import Html, document, escape, join, write_report
from rlhf_video.report.sections import folded, footer, header, section, table

__all__ = [
    "ClipPair",
    "EffectRow",
    "GuardCard",
    "Html",
    "Series",
    "chart_file",
    "clip_pairs",
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
    "join",
    "line_chart",
    "markdown_table",
    "section",
    "table",
    "video_element",
    "write_report",
]
