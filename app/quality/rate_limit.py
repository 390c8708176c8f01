"""Token buckets in memory: how often somebody may do something, generous for people and dull for scripts.

One process holds them. Several servers behind one proxy let through as many times more.
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Action = Literal["vote", "assignment", "consent", "login"]


@dataclass(frozen=True)
class Bucket:
    """How much at once, and how much in the long run."""

    burst: float
    """Requests that may come at once."""
    per_s: float
    """Requests that may come again each second."""


RATER_LIMITS: dict[Action, Bucket] = {"vote": Bucket(60, 0.5), "assignment": Bucket(60, 0.5)}
"""Of one browser: a vote every two seconds all day. Risk begins far below; this only protects the server."""
NETWORK_LIMITS: dict[Action, Bucket] = {
    "vote": Bucket(1000, 100.0),
    "assignment": Bucket(1000, 100.0),
    "consent": Bucket(200, 0.2),
    "login": Bucket(5, 1 / 60),
}
"""Of one address: 100 raters of a school behind it, all at once. Logins cost 16 MiB and 50 ms each, and are guesses."""
MOST_KEYS = 100_000


class RateLimiter:
    """Counts by key; keys that were not seen for longest are forgotten first."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, most_keys: int = MOST_KEYS) -> None:
        """Start with full buckets.

        Args:
            clock: Seconds, never going back.
            most_keys: Buckets held at most.
        """
        self._clock = clock
        self._most_keys = most_keys
        self._levels: OrderedDict[tuple[str, ...], tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, key: tuple[str, ...], bucket: Bucket) -> int:
        """Take one request out of a bucket.

        Args:
            key: Whose bucket, and for what.
            bucket: Its size.

        Returns:
            0 where it may go on; else after how many seconds to ask again, at least 1, and nothing was taken.
        """
        with self._lock:
            now = self._clock()
            level, then = self._levels.pop(key, (bucket.burst, now))
            level = min(bucket.burst, level + (now - then) * bucket.per_s)
            missing = 1.0 - level
            self._levels[key] = (level if missing > 0 else level - 1.0, now)
            if len(self._levels) > self._most_keys:
                self._levels.popitem(last=False)
        return max(1, math.ceil(missing / bucket.per_s)) if missing > 0 else 0
