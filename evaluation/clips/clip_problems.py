"""What can be wrong with a set of clips, told all at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

ProblemKind = Literal[
    "missing", "case", "twice", "empty", "truncated", "unreadable", "changed", "size", "uneven", "copy"
]
TITLES: dict[ProblemKind, str] = {
    "missing": "missing",
    "case": "named in another case than the suite, or twice but for case",
    "twice": "there twice",
    "empty": "empty, without one frame",
    "truncated": "truncated",
    "unreadable": "not readable",
    "changed": "not the file that manifest.json recorded",
    "size": "of another size, length or rate than declared",
    "uneven": "of variable frame rate",
    "copy": "the same file under several names",
}
"""Kind -> how messages call it, in their order."""
_SHOWN = 5


@dataclass(frozen=True)
class ClipProblem:
    """One clip that cannot be scored as it is."""

    kind: ProblemKind
    clip: str
    """File name, or "prompt-number" of one that is not there."""
    detail: str = ""
    """What was found."""

    def __str__(self) -> str:
        """Return it as a list shows it."""
        return f"'{self.clip}'" + (f" ({self.detail})" if self.detail else "")

    @property
    def reason(self) -> str:
        """What is wrong, without the clip's name."""
        return TITLES[self.kind] + (f" ({self.detail})" if self.detail else "")


def describe_problems(problems: Sequence[ClipProblem]) -> str:
    """Return "12 missing: 'a-0', 'b-1' and 10 more; 1 truncated: ..."."""
    parts = []
    for kind, title in TITLES.items():
        cases = [problem for problem in problems if problem.kind == kind]
        if cases:
            more = f" and {len(cases) - _SHOWN} more" if len(cases) > _SHOWN else ""
            parts.append(f"{len(cases)} {title}: {', '.join(map(str, cases[:_SHOWN]))}{more}")
    return "; ".join(parts)
