"""Prompt suites: what is asked of every system."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_video.data import load_prompts
from rlhf_video.errors import ConfigError


@dataclass(frozen=True)
class SuitePrompt:
    """One prompt and what the suite says about it."""

    prompt: str
    """What metrics read and clips are named by."""
    dimensions: frozenset[str] | None = None
    """Dimensions that are asked of it; None: all."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Dimension -> what it looks for, VBench's auxiliary_info."""
    num_samples: int = 1
    """Clips of it that every system makes."""
    wording: str | None = None
    """Text that models get in place of the prompt (VBench calls it an extended prompt); None: the prompt itself."""

    @property
    def text(self) -> str:
        """What models get."""
        return self.wording or self.prompt


@dataclass(frozen=True)
class Suite:
    """Distinct prompts in order."""

    name: str
    version: str
    sha256: str
    """Of prompts, wordings, dimensions and facts: another hash is another benchmark."""
    prompts: tuple[SuitePrompt, ...]

    @property
    def num_clips(self) -> int:
        """Clips of every system."""
        return sum(asked.num_samples for asked in self.prompts)

    def first(self, count: int | None) -> "Suite":
        """Return the first prompts as a suite of another name and hash; this one where count is None.

        Raises:
            ConfigError: There are fewer.
        """
        if count is None or count == len(self.prompts):
            return self
        if not 1 <= count <= len(self.prompts):
            raise ConfigError(
                f"suite.num_prompts={count} does not fit: '{self.name}' holds {len(self.prompts)} prompts."
            )
        return make_suite(f"{self.name}-first-{count}", self.version, self.prompts[:count])

    def generation_parts(self) -> dict[str, "Suite"]:
        """Return folder name -> prompts of one run of generate.py; the name is empty where one run is enough.

        A run takes one number of clips per prompt, and refuses texts that are equal but for case: their files would
        overwrite each other on file systems that ignore it. VBench asks for both ("A fantasy landscape" and "a fantasy
        landscape").
        """
        parts: dict[tuple[int, int], list[SuitePrompt]] = {}
        seen: dict[tuple[int, str], int] = {}
        for asked in self.prompts:
            key = (asked.num_samples, same_but_for_case(asked.text))
            seen[key] = seen.get(key, 0) + 1
            parts.setdefault((asked.num_samples, seen[key]), []).append(asked)
        if len(parts) == 1:
            return {"": self}
        return {
            f"{count}-per-prompt" + (f"-{turn}" if turn > 1 else ""): dataclasses.replace(self, prompts=tuple(prompts))
            for (count, turn), prompts in sorted(parts.items(), key=lambda part: part[0])
        }


def make_suite(name: str, version: str, prompts: Sequence[SuitePrompt]) -> Suite:
    """Return a suite with the hash of what it asks; for plain prompts that is the hash of `load_prompts`."""
    if all(asked.dimensions is None and not asked.facts and asked.wording is None for asked in prompts):
        content = "\n".join(asked.prompt for asked in prompts)
    else:
        content = json.dumps(
            [
                [asked.prompt, asked.wording, sorted(asked.dimensions or ()) or None, dict(asked.facts)]
                for asked in prompts
            ],
            sort_keys=True,
            ensure_ascii=False,
        )
    return Suite(name, version, hashlib.sha256(content.encode()).hexdigest(), tuple(prompts))


def load_suite(prompts: Path, *, clips_per_prompt: int = 1) -> Suite:
    """Read a prompt file: your own list, the sprite suite, or one of VBench's category files.

    Args:
        prompts: .txt with one prompt a line, or .jsonl.
        clips_per_prompt: Clips of each.

    Raises:
        DataError: It is missing or malformed.
    """
    listed = load_prompts(prompts)
    asked = tuple(SuitePrompt(prompt, num_samples=clips_per_prompt) for prompt in listed.prompts)
    return Suite(listed.name, listed.version, listed.sha256, asked)


def same_but_for_case(text: str) -> str:
    """Return what two texts have in common that differ in case or white space alone."""
    return " ".join(text.split()).casefold()
