"""Reward models for video: pure scores, differentiable where they can be."""
