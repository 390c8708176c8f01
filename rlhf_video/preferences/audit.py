"""Everything that is wrong with a set of preference pairs, found at once and before any model is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rlhf_video.errors import DataError
from rlhf_video.preferences.audit_clips import clip_findings
from rlhf_video.preferences.audit_labels import count_answers, label_findings
from rlhf_video.preferences.finding import Finding
from rlhf_video.preferences.pair import OVERALL, PreferencePair
from rlhf_video.preferences.store import PreferenceStore

_SHOWN = 5


@dataclass(frozen=True)
class Audit:
    """What was looked at and what was found."""

    name: str
    """File of the pairs."""
    num_pairs: int
    num_clips: int
    """Different files."""
    answers: dict[str, int]
    """Decided, undecided (ties and both-bad) and unanswered pairs."""
    findings: tuple[Finding, ...]
    """Errors first."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Defects that make training wrong or impossible."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What is often, but not always, a mistake."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    def message(self, limit: int = _SHOWN, *, only: Literal["error", "warning"] | None = None) -> str:
        """Return the findings as text.

        Args:
            limit: How many cases of each finding are listed.
            only: Leave the other severity out.
        """
        answers = ", ".join(f"{count} {name}" for name, count in self.answers.items() if count)
        head = f"'{self.name}': {self.num_pairs} pairs of {self.num_clips} clips{f' ({answers})' if answers else ''}"
        found = [finding for finding in self.findings if only in (None, finding.severity)]
        if not found:
            return f"{head}: nothing wrong."
        return "\n".join([f"{head}:", *(finding.text(limit) for finding in found)])

    def refuse_errors(self, limit: int = _SHOWN) -> None:
        """Refuse the pairs where there are errors; warnings are left to whoever reports them.

        Raises:
            DataError: There are errors; all of them are in the message.
        """
        if self.errors:
            raise DataError(f"These preference pairs cannot be trained on. {self.message(limit, only='error')}")


def audit_pairs(
    pairs: Sequence[PreferencePair],
    store: PreferenceStore,
    *,
    questions: Sequence[str] = (OVERALL,),
    decode: bool = True,
    hashes: bool = True,
    same_size: bool = True,
) -> Audit:
    """Find every defect of a set of pairs.

    Errors: no pairs; no pair decided; every weight 0; opposite answers about the same two clips; clips that are
    missing, changed, cannot be decoded, or differ from what their record says; segments beyond a clip's end; clips of a
    pair that differ in size or length. Warnings: the same comparison twice (also with sides swapped); the preferred
    clip always on one side or always of one model; clips of a pair that differ in frame rate.

    Args:
        pairs: Pairs of `store`.
        store: Where the clips lie.
        questions: Questions that are to be trained on; a pair is decided where any of them, or a segment, has a winner.
        decode: Whether to decode every clip; else sizes come from the records, and from file headers where a record
            does not say.
        hashes: Whether to compare the clips' contents with the recorded hashes.
        same_size: Whether the clips of a pair must have one size and length: Video-DPO needs it (both members share
            their noise), reward models do not.

    Returns:
        The findings; `refuse_errors()` ends on them.
    """
    findings = label_findings(pairs, questions)
    findings += clip_findings(pairs, store, decode=decode, hashes=hashes, same_size=same_size)
    return Audit(
        name=str(store.path),
        num_pairs=len(pairs),
        num_clips=len({clip.path for pair in pairs for clip in pair.clips}),
        answers=count_answers(pairs, questions),
        findings=tuple(sorted(findings, key=lambda finding: finding.severity != "error")),
    )
