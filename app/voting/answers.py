"""From sides to clips and back: raters answer left or right, the database holds A or B."""

from collections.abc import Mapping, Sequence
from typing import Literal

Side = Literal["left", "right"]
_LEFT_IS_A = {"left": "A", "same": "tie", "right": "B"}
_LEFT_IS_B = {"left": "B", "same": "tie", "right": "A"}


def canonical(answers: Mapping[str, str], *, a_is_left: bool) -> dict[str, str]:
    """Turn answers by side into answers by clip.

    Args:
        answers: Question -> left, same or right.
        a_is_left: How the pair was shown.

    Returns:
        Question -> A, tie or B.
    """
    words = _LEFT_IS_A if a_is_left else _LEFT_IS_B
    return {question: words[answer] for question, answer in answers.items()}


def displayed(answers: Mapping[str, str], *, a_is_left: bool) -> dict[str, str]:
    """Turn answers by clip back into answers by side."""
    words = {value: key for key, value in (_LEFT_IS_A if a_is_left else _LEFT_IS_B).items()}
    return {question: words[answer] for question, answer in answers.items()}


def clip_of(side: str, *, a_is_left: bool) -> Literal["A", "B"]:
    """Return which clip was on a side."""
    return "A" if (side == "left") == a_is_left else "B"


def answer_problem(answers: Mapping[str, object], questions: Sequence[str], *, both_bad: bool) -> str | None:
    """Return what is wrong with a rater's answers in one sentence; None where nothing is.

    Whoever calls both clips unacceptable may leave questions open.
    """
    unknown = sorted(set(answers) - set(questions))
    if unknown:
        return f"This study does not ask {', '.join(unknown)}."
    strange = sorted(name for name, answer in answers.items() if answer not in _LEFT_IS_A)
    if strange:
        return f"Answers must be left, same or right: {', '.join(strange)}."
    missing = [name for name in questions if name not in answers]
    if missing and not both_bad:
        return f"Still to answer: {', '.join(missing)}."
    return None
