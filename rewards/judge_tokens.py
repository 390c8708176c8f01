"""Probabilities of a written digit, from the log-probabilities that a chat endpoint returns."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rewards.http_judge import Answer
from rewards.judge_answers import no_verdict

DIGITS = "12345"


def digit_probabilities(answer: Answer, region: str, position: int, *, temperature: float) -> list[float]:
    """Return the probabilities of the digits 1 to 5 at one place of the answer, summing to 1.

    A digit outside the server's list of likeliest tokens counts as impossible.

    Args:
        answer: With its tokens.
        region: The end of its text, where the digit stands. Only this part is matched with the tokens: servers spell
            letters that span tokens (in thoughts) in their own ways.
        position: Of the digit in `region`.
        temperature: At which the probabilities are wanted; the server's are at 1.

    Raises:
        JudgeError: No log-probabilities, or they do not spell the answer.
    """
    if not answer.tokens:
        raise no_verdict(answer, "the server returned no log-probabilities; with score 'hard' none are needed")
    try:
        token = _token_at(answer, region.rstrip(), position)
        digit = region[position]
        text = str(token["token"])
        if text.strip() != digit:
            raise no_verdict(answer, f"the digit {digit} is part of the token {text!r}")
        logs = _digit_logs(token, text, digit)
    except (LookupError, TypeError, ValueError) as error:
        raise no_verdict(answer, f"its log-probabilities are not of the documented form ({error!r})") from error
    highest = max(logs)
    weights = [math.exp((log - highest) / temperature) for log in logs]
    return [weight / sum(weights) for weight in weights]


def _token_at(answer: Answer, region: str, position: int) -> Mapping[str, Any]:
    """Return the token that holds a place of the region."""
    spelled = [_spelling(token) for token in answer.tokens]
    begin = b"".join(spelled).rfind(region.encode())
    if begin < 0:
        raise no_verdict(answer, "its log-probabilities do not spell it")
    target = begin + len(region[:position].encode())
    end = 0
    for token, part in zip(answer.tokens, spelled, strict=True):
        end += len(part)
        if end > target:
            return token
    raise AssertionError("the region lies inside the tokens")


def _spelling(token: Mapping[str, Any]) -> bytes:
    given = token.get("bytes")
    return bytes(given) if given is not None else str(token["token"]).encode()


def _digit_logs(token: Mapping[str, Any], text: str, digit: str) -> Sequence[float]:
    """Return the log-probabilities of the five digits, spaced as the written one."""
    given = {str(other["token"]): float(other["logprob"]) for other in token["top_logprobs"]}
    given[text] = float(token["logprob"])
    logs = [given.get(text.replace(digit, other), -math.inf) for other in DIGITS]
    if any(math.isnan(log) or log > 1e-3 for log in logs) or max(logs) == -math.inf:
        raise ValueError(f"log-probabilities {logs}")
    return logs
