"""Tiny real models for tests: the same classes as the large ones, a few thousand parameters."""

from rlhf_video.testing.tiny_wan import TINY_PROMPTS, tiny_wan_pipeline

__all__ = ["TINY_PROMPTS", "tiny_wan_pipeline"]
