"""What a benchmark of human choices holds, whatever file it came from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Label = Literal["A", "B", "tie"]

LABEL_VALUES: Mapping[Label, int] = {"A": 1, "B": -1, "tie": 0}
"""Labels as the statistics count them: the sign of score A minus score B that agrees."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two clips of one prompt, and which one people chose."""

    prompt: str
    clip_a: Path
    clip_b: Path
    labels: Mapping[str, Label]
    """By dimension, for example {"VQ": "A"}; a dimension without a valid label is absent."""
    model_a: str
    """Generator of clip A, "unknown" where the file does not say."""
    model_b: str
    source: str
    """Where it stands, for example "line 17"."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The comparisons of one file."""

    name: str
    file: Path
    dimensions: tuple[str, ...]
    """Label dimensions, in the order of the file's documentation."""
    comparisons: tuple[Comparison, ...]
    dropped: Mapping[str, Mapping[str, int]]
    """Invalid labels that were left out: dimension -> label as written ("" for empty) -> how many."""

    def clips(self) -> tuple[tuple[Path, str], ...]:
        """Return each (clip, prompt) once, in order of first use: what has to be scored."""
        both = ((clip, item.prompt) for item in self.comparisons for clip in (item.clip_a, item.clip_b))
        return tuple(dict.fromkeys(both))

    def missing(self) -> tuple[Path, ...]:
        """Return the clips whose file does not exist, each once."""
        return tuple(dict.fromkeys(path for path, _ in self.clips() if not path.is_file()))
