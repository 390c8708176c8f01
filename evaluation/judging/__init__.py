"""Judging a reward model: people's choices between two clips against the difference of its scores (docs/judging.md)."""
