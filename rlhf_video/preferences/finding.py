"""One kind of defect of a set of preference pairs, with every case of it."""

from dataclasses import dataclass
from typing import Literal

from rlhf_video.preferences.listing import listed


@dataclass(frozen=True)
class Finding:
    """One kind of defect."""

    kind: str
    """Short name, for example "duplicates"."""
    severity: Literal["error", "warning"]
    title: str
    """What is wrong, with the count."""
    remedy: str
    """What to do."""
    cases: tuple[str, ...] = ()
    """Each place where it is wrong."""

    def text(self, limit: int) -> str:
        """Return one paragraph with up to `limit` cases."""
        cases = f": {listed(self.cases, limit)}" if self.cases else ""
        return f"  {self.severity}: {self.title}{cases}. {self.remedy}"


def pair_name(index: int) -> str:
    """Return how messages call a pair: its place in the file, from 1."""
    return f"pair {index + 1}"
