"""Prompt suites: what is asked of every system."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_video.data import load_prompts


@dataclass(frozen=True)
class SuitePrompt:
    """One prompt and what the suite says about it."""

    prompt: str
    dimensions: frozenset[str] | None = None
    """Dimensions that are asked of it; None: all."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    num_samples: int = 1
    """Clips of it that every system makes."""


@dataclass(frozen=True)
class Suite:
    """Distinct prompts in order."""

    name: str
    version: str
    sha256: str
    prompts: tuple[SuitePrompt, ...]


def load_suite(prompts: Path, *, clips_per_prompt: int = 1) -> Suite:
    """Read a prompt file.

    Raises:
        DataError: It is missing or malformed.
    """
    listed = load_prompts(prompts)
    asked = tuple(SuitePrompt(prompt, num_samples=clips_per_prompt) for prompt in listed.prompts)
    return Suite(listed.name, listed.version, listed.sha256, asked)
