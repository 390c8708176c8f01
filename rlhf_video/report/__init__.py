"""Self-contained HTML and Markdown: tables, curves, paired clips."""

from rlhf_video.report.markdown import markdown_table

__all__ = ["markdown_table"]
