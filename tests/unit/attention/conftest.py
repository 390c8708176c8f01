"""Fixtures: tiny transformers of every class that attention plans know."""

import pytest

from rlhf_video.testing.tiny_transformers import TINY_TRANSFORMERS, TinyTransformer, tiny_transformer


@pytest.fixture(params=TINY_TRANSFORMERS)
def tiny(request: pytest.FixtureRequest) -> TinyTransformer:
    """Return a fresh tiny transformer, one test for each class."""
    return tiny_transformer(request.param)
