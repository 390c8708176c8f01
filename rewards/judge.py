"""Questions to a judge, many at a time: asked or looked up, read strictly, kept, counted."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rewards.base import RewardOutput, masked_output
from rewards.errors import RewardError
from rewards.http_judge import Answer, JudgeClient, JudgeError
from rewards.inputs import CheckedClips
from rewards.judge_cache import JudgeCache
from rewards.judge_connection import Connection, JudgeUsage
from rewards.judge_frames import FrameFormat, message_parts, pixel_hash

logger = logging.getLogger(__name__)

OWN_FIELDS = ("model", "messages", "n", "stream")
"""Fields of a request that a user cannot set with extra_body."""


@dataclass(frozen=True)
class Question:
    """What is asked about one clip, or one pair of clips."""

    frames: np.ndarray
    """(frames, height, width, 3), uint8: the exact pixels that are encoded."""
    text: str
    """Stands after the frames, as in both models' training."""


@dataclass(frozen=True)
class Verdict:
    """Scores of one clip, or the reason why there are none."""

    values: Mapping[str, float]
    """Per dimension; empty where there are none."""
    reason: str | None = None
    """None where there are values."""


class Judge:
    """One model behind HTTP with its way of being asked."""

    def __init__(
        self,
        connection: Connection,
        *,
        read: Callable[[Answer], Mapping[str, float]],
        template_version: str,
        form: FrameFormat,
        sampling: Mapping[str, Any],
        extra_body: Mapping[str, object] | None,
        cache: str | Path | None,
    ) -> None:
        """Prepare to ask; nothing is sent yet.

        Args:
            connection: Where.
            read: Answer -> scores; raises `JudgeError` for whatever is not exactly an answer.
            template_version: Of the question's wording; part of the cache's key.
            form: How frames travel.
            sampling: Fields of the request beside model and messages; part of the cache's key.
            extra_body: More of them, from the user; they win.
            cache: SQLite file for answers, None keeps none.

        Raises:
            RewardError: The cache cannot be used, or an extra field is no JSON or not the user's to set.
        """
        self._client = JudgeClient(connection)
        self._read, self._template_version, self._form = read, template_version, form
        self._sampling = {**sampling, **_checked_extra(extra_body)}
        self._cache = None if cache is None else JudgeCache(cache)

    @property
    def usage(self) -> JudgeUsage:
        """What has been asked, and what it cost."""
        return self._client.usage

    def score(self, clips: CheckedClips, questions: Mapping[int, Question], dimensions: Sequence[str]) -> RewardOutput:
        """Ask about clips and return their scores.

        Args:
            clips: The batch.
            questions: Clip's index -> question, for the clips that may be scored.
            dimensions: Names of the scores.

        Raises:
            RewardError: Nobody answers, or the server refuses everybody.
        """
        verdicts = dict(zip(questions, self.ask(list(questions.values())), strict=True))
        reasons = tuple(verdicts[i].reason if i in verdicts else clips.reasons[i] for i in range(len(clips.valid)))
        nan = float("nan")
        scores = {
            key: torch.tensor([verdicts[i].values.get(key, nan) if i in verdicts else nan for i in range(len(reasons))])
            for key in dimensions
        }
        valid = torch.tensor([reason is None for reason in reasons])
        device, dtype = clips.video.device, clips.video.dtype
        placed = {key: value.to(device=device, dtype=dtype) for key, value in scores.items()}
        return masked_output(placed, valid.to(device), reasons)

    def ask(self, questions: Sequence[Question]) -> list[Verdict]:
        """Ask questions, as many at a time as the connection allows, and return verdicts in their order.

        Raises:
            RewardError: Nobody answers, or the server refuses everybody.
        """
        if not questions:
            return []
        workers = min(len(questions), self._client.connection.concurrency)
        with ThreadPoolExecutor(workers, thread_name_prefix="judge") as pool:
            futures = [pool.submit(self._verdict, question) for question in questions]
            try:
                verdicts = [future.result() for future in futures]
            except BaseException:  # Ctrl-C too: questions that wait would be sent, and paid
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        logger.info("Judge %s so far: %s", self._client.connection.model, self.usage)
        return verdicts

    def _verdict(self, question: Question) -> Verdict:
        key = self._key(question)
        kept = self._look_up(key)
        if kept is not None:
            self._client.count(cache_hits=1)
            return Verdict(kept)
        try:
            parts = [*message_parts(question.frames, self._form), {"type": "text", "text": question.text}]
            answer = self._client.ask({"messages": [{"role": "user", "content": parts}], **self._sampling})
            values = self._read(answer)
        except JudgeError as error:
            self._client.count(invalid=1)
            logger.warning("Judge %s gave no verdict: %s", self._client.connection.model, error)
            return Verdict({}, str(error))
        if self._cache is not None:  # only what could be read: nonsense is asked again
            self._cache.put(key, asdict(_essence(answer)))
        return Verdict(values)

    def _look_up(self, key: str) -> Mapping[str, float] | None:
        """Return the scores of a kept answer, read again; None where there is none that today's reader accepts."""
        kept = None if self._cache is None else self._cache.get(key)
        if kept is None:
            return None
        try:
            return self._read(Answer(**{**kept, "tokens": tuple(kept["tokens"])}))
        except JudgeError:
            return None

    def _key(self, question: Question) -> str:
        content = {
            "pixels": pixel_hash(question.frames),
            "form": asdict(self._form),
            "text": question.text,
            "template": self._template_version,
            "model": self._client.connection.model,
            "sampling": self._sampling,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _checked_extra(extra_body: Mapping[str, object] | None) -> dict[str, Any]:
    if not isinstance(extra_body, Mapping | None):
        raise RewardError(f"extra_body must be fields of the request such as {{top_k: 1}}, got {extra_body!r}.")
    extra = dict(extra_body or {})
    if taken := [name for name in OWN_FIELDS if name in extra]:
        raise RewardError(f"extra_body cannot set {', '.join(taken)}: the judge does.")
    try:
        json.dumps(extra)
    except (TypeError, ValueError) as error:
        raise RewardError(f"extra_body must be JSON: {error}.") from error
    return extra


def _essence(answer: Answer) -> Answer:
    """Drop the alternatives of all tokens but digits: a thought of a thousand tokens has a megabyte of them."""
    tokens = (
        token if str(token.get("token")).strip().isdigit() else {key: token.get(key) for key in ("token", "bytes")}
        for token in answer.tokens
    )
    return replace(answer, tokens=tuple(tokens))
