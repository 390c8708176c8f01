"""Simulated raters: each consents, and then asks for a pair, fetches both clips, thinks, votes and sends it again.

A closed loop: a rater asks for the next pair only after the last vote was answered, as people do.
"""

import asyncio
import logging
import ssl
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from app.web.sessions import TEST_HEADER
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.settings import check_range

logger = logging.getLogger(__name__)
ANSWER_LIMIT_S = 30.0
_SENDINGS = 5  # of one vote, where no answer or a 5xx comes; the browser's outbox goes on for ever
_PAUSE_S = 1.0
_ANSWERS = ("left", "same", "right")
_WATCHED = 0.9  # of the least watching time; the server insists on 0.8


@dataclass(frozen=True, kw_only=True)
class LoadPlan:
    """What to do to a server."""

    url: str
    """Of the arena, for example http://127.0.0.1:7860."""
    study: str
    """Slug."""
    token: str
    """Proves that the raters are tests (`app/web/sessions.py`)."""
    raters: int = 100
    """How many at once."""
    think_s: float = 10.0
    """Mean of the exponential time between the clips and the vote; at least as long as the study asks to watch."""
    duration_s: float = 120.0
    """From the first request to the last new pair."""
    seed: int = 0
    """Of thinking times and answers."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: A number out of its range, or an address without a scheme.
        """
        check_range("raters", self.raters, least=1)
        check_range("think", self.think_s, least=0.0)
        check_range("duration", self.duration_s, above=0.0)
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"The address '{self.url}' must start with http:// or https://.")


@dataclass
class Seen:
    """What the raters saw."""

    latencies: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Seconds of each answered request, by kind: consent, assignment, clip, vote, retry."""
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How often each kind got each status; 0 where no answer came."""
    acknowledged: dict[str, str] = field(default_factory=dict)
    """Vote -> assignment: all that the server said were stored."""
    stored_twice: int = 0
    """Votes that were sent again and called new again, or got another time."""
    finished: int = 0
    """Raters for whom nothing was left."""
    seconds: float = 0.0
    """From the first request to the last answer."""

    @property
    def server_errors(self) -> int:
        """Requests that were answered by 5xx, or not at all."""
        return sum(count for (_, status), count in self.statuses.items() if status >= 500 or status == 0)

    @property
    def refused(self) -> int:
        """Requests that were answered by 4xx."""
        return sum(count for (_, status), count in self.statuses.items() if 400 <= status < 500)


async def apply_load(plan: LoadPlan) -> Seen:
    """Run all raters until the time is over.

    Args:
        plan: Whom to ask, how much.

    Returns:
        What they saw.

    Raises:
        DataError: Nobody answers there, the key is of another arena, or there is no such open study.
    """
    seen = Seen()
    started = time.perf_counter()
    # A context of its own per client would cost each some ten milliseconds of reading certificates.
    certificates: ssl.SSLContext | bool = ssl.create_default_context() if plan.url.startswith("https:") else False
    limits = httpx.Limits(max_connections=6)  # of one host, as browsers have them
    clients = [
        httpx.AsyncClient(
            base_url=plan.url,
            headers={TEST_HEADER: plan.token},
            verify=certificates,
            timeout=ANSWER_LIMIT_S,
            limits=limits,
            trust_env=False,
        )
        for _ in range(plan.raters)
    ]
    try:
        await _check(plan, clients[0])
        raters = [_Rater(plan, client, seen, number) for number, client in enumerate(clients)]
        await asyncio.gather(*(rater.take_part(started + plan.duration_s) for rater in raters))
    finally:
        await asyncio.gather(*(client.aclose() for client in clients))
    seen.seconds = time.perf_counter() - started
    return seen


async def _check(plan: LoadPlan, client: httpx.AsyncClient) -> None:
    """Refuse in words what would fail a hundred times."""
    try:
        reply = await client.get("/api/v1/session")
        studies = reply.json()["studies"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"No arena answers at {plan.url} ({type(error).__name__}): start one with serve.") from error
    open_ones = [study["slug"] for study in studies if study["is_open"]]
    if plan.study not in open_ones:
        known = ", ".join(open_ones) or "none"
        raise DataError(f"The arena at {plan.url} has no open study '{plan.study}'. Open ones: {known}.")


class _Rater:
    """One simulated person with a browser."""

    def __init__(self, plan: LoadPlan, client: httpx.AsyncClient, seen: Seen, number: int) -> None:
        self._plan, self._client, self._seen = plan, client, seen
        self._rng = np.random.default_rng([plan.seed, number])

    async def take_part(self, until: float) -> None:
        """Consent and vote until the time is over or nothing is left."""
        await asyncio.sleep(self._rng.uniform(0.0, min(self._plan.think_s, self._plan.duration_s / 4)))  # not in step
        if not await self._consent():
            return
        while time.perf_counter() < until:
            reply = await self._send("assignment", "POST", "/api/v1/assignments", json={"study": self._plan.study})
            if reply is None or reply.status_code >= 400:
                await asyncio.sleep(_PAUSE_S)
                continue
            if reply.status_code == 204:
                self._seen.finished += 1
                return
            pair = reply.json()
            await asyncio.gather(*(self._fetch(pair[side]) for side in ("left", "right")))
            think_s = max(float(self._rng.exponential(self._plan.think_s)), _least_wait(pair))
            if time.perf_counter() + think_s > until:
                return  # the pair goes to somebody else when its lease is over
            await asyncio.sleep(think_s)
            await self._vote(pair, think_s)

    async def _consent(self) -> bool:
        study = await self._send("session", "GET", "/api/v1/session")
        versions = {each["slug"]: each["consent_version"] for each in study.json()["studies"]} if study else {}
        body = {"version": versions.get(self._plan.study, "1")}
        reply = await self._send("consent", "POST", "/api/v1/consent", json=body)
        if reply is not None and reply.status_code == 403:
            raise DataError(
                f"The arena at {self._plan.url} does not take the key of this data folder: its votes would count as a "
                "person's. Give --data, the folder that it serves."
            )
        return reply is not None and reply.status_code == 200

    async def _fetch(self, clip: Mapping[str, Any]) -> None:
        await self._send("clip", "GET", clip["sources"][0]["url"], headers={"Range": "bytes=0-"})

    async def _vote(self, pair: Mapping[str, Any], think_s: float) -> None:
        body = self._ballot(pair, think_s)
        for _ in range(_SENDINGS):
            first = await self._send("vote", "POST", "/api/v1/votes", json=body)
            if first is not None and first.status_code < 500:
                break
            await asyncio.sleep(_PAUSE_S)
        if first is None or first.status_code not in (200, 201):
            return
        self._seen.acknowledged[body["vote_id"]] = pair["assignment"]
        again = await self._send("retry", "POST", "/api/v1/votes", json=body)
        if again is not None and again.status_code < 400:
            is_same = again.status_code == 200 and again.json()["stored_at"] == first.json()["stored_at"]
            self._seen.stored_twice += not is_same

    def _ballot(self, pair: Mapping[str, Any], think_s: float) -> dict[str, Any]:
        names: Sequence[str] = [question["name"] for question in pair["questions"]]
        return {
            "vote_id": str(uuid.uuid4()),
            "assignment": pair["assignment"],
            "token": pair["token"],
            "revision": pair["revision"],
            "answers": {name: str(self._rng.choice(_ANSWERS)) for name in names},
            "watched_ms": dict.fromkeys(("left", "right"), 1000.0 * think_s),
            "decision_ms": 1000.0 * think_s,
            "app_version": "loadtest",
        }

    async def _send(self, kind: str, method: str, path: str, **options: Any) -> httpx.Response | None:
        """Send one request and note how it went; None where no answer came."""
        started = time.perf_counter()
        try:
            reply = await self._client.request(method, path, **options)
        except httpx.HTTPError as error:
            self._seen.statuses[kind, 0] += 1
            logger.warning("No answer to %s: %s", kind, type(error).__name__)
            return None
        self._seen.latencies[kind].append(time.perf_counter() - started)
        self._seen.statuses[kind, reply.status_code] += 1
        return reply


def _least_wait(pair: Mapping[str, Any]) -> float:
    """Return how long the server wants both clips watched, in seconds."""
    longest = max(pair[side]["num_frames"] / pair[side]["fps"] for side in ("left", "right"))
    return float(min(pair["min_watch_s"], longest)) * _WATCHED
