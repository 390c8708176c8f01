"""The evaluation suite: metrics, intervals and comparisons of video models."""
