"""How a judge behind HTTP is reached, and what it has cost."""

import dataclasses
import difflib
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import get_type_hints

from rewards.errors import RewardError

_VALUES: dict[object, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str | None: ((str, NoneType), "a text or null"),
}


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How to reach a judge, and what its tokens cost."""

    base_url: str
    """Address of the server with or without /v1, for example "http://localhost:8000"."""
    model: str
    """Name under which the server offers the model (vLLM: --served-model-name, by default its Hub id)."""
    api_key_env: str | None = None
    """Environment variable that holds the API key; None sends none. The key itself is never stored or logged."""
    attempt_seconds: float = 120.0
    """Longest wait for one HTTP exchange."""
    deadline_seconds: float = 300.0
    """Longest time for one clip, all attempts and waits together, from the moment it has one of the places."""
    max_attempts: int = 5
    """HTTP exchanges per clip, the first included."""
    backoff_seconds: float = 1.0
    """First wait; each next one is twice as long, at most 30 s, times a random factor in [0.5, 1]."""
    concurrency: int = 8
    """Questions that may be open at the same time, over all threads that use this judge."""
    prompt_price: float = 0.0
    """Price of a million prompt tokens, in any currency; 0 for a server of your own."""
    completion_price: float = 0.0
    """Price of a million generated tokens."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            RewardError: No http(s) address, a password inside it, an empty model, or a number out of range.
        """
        url = urllib.parse.urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
            raise RewardError(f"base_url={self.base_url!r} is no server: give one such as 'http://localhost:8000'.")
        if url.username or url.password:
            raise RewardError("base_url must not hold a user or password: name a variable with api_key_env instead.")
        if not self.model:
            raise RewardError("model is empty: give the name that the server lists under /v1/models.")
        for name in ("attempt_seconds", "deadline_seconds", "max_attempts", "concurrency"):
            if not vars(self)[name] > 0:
                raise RewardError(f"{name} must be above 0, got {vars(self)[name]}.")
        for name in ("backoff_seconds", "prompt_price", "completion_price"):
            if not vars(self)[name] >= 0:
                raise RewardError(f"{name} must be 0 or more, got {vars(self)[name]}.")


def connect(base_url: str, model: str, extra: Mapping[str, object] | None = None) -> Connection:
    """Read a connection as a config writes it.

    Args:
        base_url: Address of the server.
        model: Name of the model there.
        extra: Other fields of `Connection`, for example {deadline_seconds: 60, concurrency: 16}.

    Raises:
        RewardError: An unknown field or a value of the wrong type or range.
    """
    fields = [field.name for field in dataclasses.fields(Connection) if field.name not in ("base_url", "model")]
    hints = get_type_hints(Connection)
    if not isinstance(extra, Mapping | None):
        raise RewardError(f"connection must be fields such as {{concurrency: 16}}, got {extra!r}.")
    given = dict(extra or {})
    for name, value in given.items():
        if name not in fields:
            close = difflib.get_close_matches(str(name), fields, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise RewardError(f"connection has no field {name!r}.{hint} Known: {', '.join(fields)}.")
        allowed, wanted = _VALUES[hints[name]]
        if type(value) not in allowed:
            raise RewardError(f"connection: {name} must be {wanted}, got {value!r}.")
    return Connection(base_url=base_url, model=model, **given)  # type: ignore[arg-type]  # checked above


@dataclass(frozen=True)
class JudgeUsage:
    """What a judge has cost so far."""

    answers: int = 0
    """Questions that the server answered."""
    cache_hits: int = 0
    """Questions that the cache answered."""
    invalid: int = 0
    """Clips that got no verdict."""
    requests: int = 0
    """HTTP exchanges, repeated ones included."""
    retries: int = 0
    """Repeated ones among them."""
    prompt_tokens: int = 0
    """Sum over the answers."""
    completion_tokens: int = 0
    """Sum over the answers."""
    seconds: float = 0.0
    """Time that questions were open, summed over questions, waits included."""
    slowest_seconds: float = 0.0
    """Longest time that one answer took."""
    cost: float = 0.0
    """Tokens times prices, in the currency of the prices."""

    def __str__(self) -> str:
        """Return one line for a log."""
        mean = self.seconds / max(1, self.answers)
        return (
            f"{self.answers} answers, {self.cache_hits} from the cache, {self.invalid} clips invalid; {self.requests} "
            f"requests ({self.retries} repeated), {mean:.2f} s per answer, slowest {self.slowest_seconds:.2f} s; "
            f"{self.prompt_tokens} + {self.completion_tokens} tokens, cost {self.cost:.4f}"
        )
