"""Reading a judge's words: exactly one number per dimension, or no verdict."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rewards.http_judge import Answer, JudgeError

_SHOWN = 80


def no_verdict(answer: Answer, why: str) -> JudgeError:
    """Return the error for an answer that cannot be read; it quotes the answer's first characters."""
    return JudgeError(f"the judge's answer is no verdict: {why}; it begins {answer.text.strip()[:_SHOWN]!r}")


def whole_text(answer: Answer) -> str:
    """Return the text of a finished answer.

    Raises:
        JudgeError: The answer is empty or was cut: 2.4 may be the beginning of 2.4036.
    """
    if not answer.text.strip():
        raise no_verdict(answer, "it is empty")
    if answer.finish_reason == "length":
        raise no_verdict(answer, "it was cut at max_tokens")
    return answer.text


def line_scores(
    answer: Answer, text: str, patterns: Mapping[str, tuple[re.Pattern[str], re.Pattern[str]]]
) -> dict[str, re.Match[str]]:
    """Find the one line of each dimension.

    Args:
        answer: For the message.
        text: Where to look; other lines do not matter.
        patterns: Dimension -> (how its line begins, its whole line with the number in group 1).

    Returns:
        Dimension -> match of its line in `text`.

    Raises:
        JudgeError: A dimension's line is missing, there twice, or not of its form.
    """
    found = {}
    for dimension, (begin, whole) in patterns.items():
        begins = list(begin.finditer(text))
        if len(begins) != 1:
            raise no_verdict(answer, f"{dimension!r} is there {len(begins)} times instead of once")
        match = whole.match(text, begins[0].start())
        if match is None:
            line = text[begins[0].start() :].split("\n", 1)[0]
            raise no_verdict(answer, f"the line {line[:_SHOWN]!r} is not of the form that was asked for")
        found[dimension] = match
    return found


def number_in(answer: Answer, dimension: str, value: float, low: float, high: float) -> float:
    """Return a number inside its scale.

    Raises:
        JudgeError: It is outside, or not finite.
    """
    if not (math.isfinite(value) and low <= value <= high):
        raise no_verdict(answer, f"{dimension!r} is {value:g}, outside [{low:g}, {high:g}]")
    return value


def json_scores(answer: Answer, text: str, keys: Sequence[str], low: float, high: float) -> dict[str, float]:
    """Read a JSON object with exactly these keys and a number each.

    Raises:
        JudgeError: Anything else, half an object and repeated keys included.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            raise no_verdict(answer, f"a key is repeated: {names}")
        return dict(pairs)

    try:
        content = json.loads(text, object_pairs_hook=once)
    except ValueError as error:
        raise no_verdict(answer, "it is not JSON") from error
    if not isinstance(content, dict) or set(content) != set(keys):
        raise no_verdict(answer, f"it is not a JSON object with the keys {', '.join(keys)}")
    for key in keys:
        if type(content[key]) not in (int, float):
            raise no_verdict(answer, f"{key!r} is no number")
    return {key: number_in(answer, key, float(content[key]), low, high) for key in keys}
