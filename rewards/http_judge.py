"""The client of an OpenAI-compatible chat endpoint with vision: vLLM, SGLang, or a service.

One question per clip: POST {base_url}/v1/chat/completions, standard library only. What fails for a while is asked again
(connection, time-out, 429, 5xx, half an answer), with exponential waits, jitter and Retry-After. What fails for good
is either everybody's problem (no server, wrong key, wrong model: `RewardError`) or one clip's (`JudgeError`).
"""

import datetime
import email.utils
import http.client
import json
import logging
import os
import random
import threading
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from rewards.errors import RewardError
from rewards.judge_connection import Connection, JudgeUsage

logger = logging.getLogger(__name__)

RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that say "later", not "never"."""
MAX_ANSWER_BYTES = 32 * 2**20
"""A chat completion with log-probabilities of 4,096 tokens has about 8 MB; more is no chat completion."""
_CHUNK = 65536
_SHOWN = 200


@dataclass(frozen=True)
class Answer:
    """What the judge said."""

    text: str
    """The assistant's message."""
    finish_reason: str | None
    """"stop" for a whole answer, "length" for one that was cut at max_tokens."""
    tokens: tuple[Mapping[str, Any], ...]
    """Per generated token {"token", "bytes", "logprob", "top_logprobs"}; empty where the server gave none."""
    prompt_tokens: int = 0
    """As the server counts them."""
    completion_tokens: int = 0
    """As the server counts them."""


class JudgeError(Exception):
    """The judge gave no usable answer for one clip; the message is the clip's reason."""


class JudgeClient:
    """Asks one server; safe for several threads. Pickles as its connection, without counters and key."""

    def __init__(self, connection: Connection) -> None:
        """Remember where to ask; nothing is sent yet."""
        self.connection = connection
        url = urllib.parse.urlsplit(connection.base_url)
        self._is_tls, self._host, self._port = url.scheme == "https", str(url.hostname), url.port
        path = url.path.rstrip("/")
        self._path = f"{path if path.endswith('/v1') else path + '/v1'}/chat/completions"
        self._places = threading.BoundedSemaphore(connection.concurrency)
        self._lock = threading.Lock()
        self._usage = JudgeUsage()
        self._jitter = random.Random()

    def __reduce__(self) -> tuple[type, tuple[Connection]]:
        """Pickle as the connection."""
        return type(self), (self.connection,)

    @property
    def usage(self) -> JudgeUsage:
        """What has been asked, and what it cost."""
        return self._usage

    def count(self, *, cache_hits: int = 0, invalid: int = 0) -> None:
        """Add what only the caller knows to the usage."""
        with self._lock:
            usage = self._usage
            self._usage = replace(usage, cache_hits=usage.cache_hits + cache_hits, invalid=usage.invalid + invalid)

    def ask(self, body: Mapping[str, Any]) -> Answer:
        """Ask one question and wait for its answer.

        Args:
            body: The request without "model".

        Raises:
            RewardError: Nobody answers there, or the server refuses everybody: wrong key, model or path.
            JudgeError: No whole answer for this clip in time, or the server refuses this one question.
        """
        headers, key = self._headers()
        data = json.dumps({"model": self.connection.model, **body}).encode()
        with self._places:
            start = time.monotonic()
            deadline = start + self.connection.deadline_seconds
            for attempt in range(1, self.connection.max_attempts + 1):
                try:
                    answer = self._exchange(data, headers, key, deadline, is_retry=attempt > 1)
                except _LaterError as error:
                    self._wait(error, attempt, deadline)
                else:
                    self._record(answer, time.monotonic() - start)
                    return answer
        raise AssertionError("the last attempt returns or raises")

    def _headers(self) -> tuple[dict[str, str], str | None]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        variable = self.connection.api_key_env
        if variable is None:
            return headers, None
        key = os.environ.get(variable, "").strip()
        if not key:
            raise RewardError(f"The variable {variable} (api_key_env) is not set: put the judge's key there.")
        if not key.isascii() or not key.isprintable():  # http.client would show the key in its own complaint
            raise RewardError(f"The variable {variable} (api_key_env) holds no key: it has odd characters.")
        return {**headers, "Authorization": f"Bearer {key}"}, key

    def _exchange(
        self, data: bytes, headers: Mapping[str, str], key: str | None, deadline: float, *, is_retry: bool
    ) -> Answer:
        """Make one HTTP exchange."""
        limit = min(deadline, time.monotonic() + self.connection.attempt_seconds)
        connect = http.client.HTTPSConnection if self._is_tls else http.client.HTTPConnection
        http_connection = connect(self._host, self._port, timeout=max(0.01, limit - time.monotonic()))
        with self._lock:
            usage = self._usage
            self._usage = replace(usage, requests=usage.requests + 1, retries=usage.retries + is_retry)
        try:
            http_connection.connect()
        except OSError as error:
            raise _LaterError(f"{type(error).__name__}: {error}", is_away=True) from error
        try:
            status, retry_after, content = _post(http_connection, self._path, data, headers, limit)
        except TimeoutError as error:
            raise _LaterError(f"no whole answer within {self.connection.attempt_seconds:g} s") from error
        except (http.client.HTTPException, OSError) as error:
            raise _LaterError(f"{type(error).__name__}: {error}") from error
        finally:
            http_connection.close()
        if status != 200:
            self._refuse(status, retry_after, _say(content, key))
        return _read_answer(content, key)

    def _refuse(self, status: int, retry_after: float | None, message: str) -> NoReturn:
        where = f"{self.connection.base_url} answered {status}"
        if status in RETRIED_STATUS:
            raise _LaterError(f"{where}: {message}", retry_after=retry_after)
        if status in (401, 403):
            variable = self.connection.api_key_env
            hint = f"check the key in {variable}" if variable else "name the variable that holds a key with api_key_env"
            raise RewardError(f"The judge at {where} (no access): {hint}. It said: {message}")
        if status == 404:
            names = self._path.replace("chat/completions", "models")
            raise RewardError(
                f"The judge at {where}: it has no model {self.connection.model!r}, or no {self._path}. Its names are "
                f"listed under {names}; give one of them as 'model'. It said: {message}"
            )
        if status in (400, 413, 422):
            raise JudgeError(f"the judge refused the question ({status}): {message}")
        raise RewardError(f"The judge at {where}, which no chat endpoint should: check base_url. It said: {message}")

    def _wait(self, error: "_LaterError", attempt: int, deadline: float) -> None:
        """Wait before the next attempt, or give up."""
        wait = min(30.0, self.connection.backoff_seconds * 2 ** (attempt - 1)) * self._jitter.uniform(0.5, 1.0)
        wait = max(wait, error.retry_after or 0.0)
        left = deadline - time.monotonic()
        if attempt == self.connection.max_attempts or wait >= left:
            if error.is_away:
                raise RewardError(
                    f"Nobody answers at {self.connection.base_url} after {attempt} attempts ({error}): start the "
                    "judge's server (docs/judges.md), or correct base_url."
                ) from error
            late = f" and {self.connection.deadline_seconds:g} s are over" if wait >= left else ""
            raise JudgeError(f"no answer after {attempt} attempts{late}: {error}") from error
        logger.warning("Judge attempt %d failed, next in %.1f s: %s", attempt, wait, error)
        time.sleep(wait)

    def _record(self, answer: Answer, seconds: float) -> None:
        connection = self.connection
        price = (
            answer.prompt_tokens * connection.prompt_price + answer.completion_tokens * connection.completion_price
        ) / 1e6
        with self._lock:
            usage = self._usage
            self._usage = replace(
                usage,
                answers=usage.answers + 1,
                prompt_tokens=usage.prompt_tokens + answer.prompt_tokens,
                completion_tokens=usage.completion_tokens + answer.completion_tokens,
                seconds=usage.seconds + seconds,
                slowest_seconds=max(usage.slowest_seconds, seconds),
                cost=usage.cost + price,
            )


class _LaterError(Exception):
    """An attempt failed in a way that may pass."""

    def __init__(self, message: str, *, retry_after: float | None = None, is_away: bool = False) -> None:
        super().__init__(message)
        self.retry_after, self.is_away = retry_after, is_away


def _post(
    connection: http.client.HTTPConnection, path: str, data: bytes, headers: Mapping[str, str], limit: float
) -> tuple[int, float | None, bytes]:
    """Return status, Retry-After in seconds and content; TimeoutError when `limit` (monotonic seconds) has passed."""
    sock = connection.sock
    connection.request("POST", path, body=data, headers=dict(headers))
    sock.settimeout(max(0.01, limit - time.monotonic()))
    response = connection.getresponse()
    parts, size = [], 0
    # A socket's time-out restarts with each byte; a server that drips must not outlive the limit.
    while not response.isclosed():
        sock.settimeout(max(0.01, limit - time.monotonic()))
        part = response.read1(_CHUNK)
        if not part:
            break
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise http.client.HTTPException(f"more than {MAX_ANSWER_BYTES // 2**20} MiB in one answer")
        if time.monotonic() > limit:
            raise TimeoutError
    return response.status, _retry_after(response.getheader("Retry-After")), b"".join(parts)


def _retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header, given as seconds or as a date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    return max(0.0, (moment - datetime.datetime.now(datetime.UTC)).total_seconds())


def _say(content: bytes, key: str | None) -> str:
    """Return the first characters of what a server said, without the key if it echoes it."""
    text = content.decode("utf-8", errors="replace")
    if key:
        text = text.replace(key, "***")
    text = " ".join(text.split())
    return repr(text[:_SHOWN]) if text else "nothing"


def _read_answer(content: bytes, key: str | None) -> Answer:
    try:
        reply = json.loads(content)
        choice = reply["choices"][0]
        text = choice["message"]["content"]
        usage = reply.get("usage") or {}
        tokens = tuple((choice.get("logprobs") or {}).get("content") or ())
        counts = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _LaterError(f"the reply is no chat completion: {_say(content, key)}") from error
    if not isinstance(text, str | None):
        raise _LaterError(f"the reply is no chat completion: {_say(content, key)}")
    return Answer(text or "", choice.get("finish_reason"), tokens, *counts)
