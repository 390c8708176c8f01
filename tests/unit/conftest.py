"""Fixtures of tiny real models; each folder is written once a session."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf_video.backbones import VideoBackbone, load_backbone
from rlhf_video.testing import tiny_wan_pipeline


@pytest.fixture(scope="session")
def tiny_wan_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny WanPipeline folder; read only."""
    return tiny_wan_pipeline(tmp_path_factory.mktemp("tiny-wan"))


@pytest.fixture(scope="session")
def tiny_two_expert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny two-expert WanPipeline folder; read only."""
    return tiny_wan_pipeline(tmp_path_factory.mktemp("tiny-wan-two"), two_experts=True)


@pytest.fixture
def tiny_wan(tiny_wan_folder: Path) -> VideoBackbone:
    """Return a freshly loaded tiny backbone, without an adapter."""
    return load_backbone(tiny_wan_folder)


@pytest.fixture
def make_tiny_wan(tiny_wan_folder: Path) -> Callable[[], VideoBackbone]:
    """Return a function that loads another copy of the tiny backbone."""
    return lambda: load_backbone(tiny_wan_folder)
