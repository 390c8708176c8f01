"""Rate limits of routes: by browser where it has a cookie, and by network."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Depends, Request

from app.quality.rate_limit import NETWORK_LIMITS, RATER_LIMITS, Action, RateLimiter
from app.voting.raters import cookie_hash
from app.web.api_errors import ApiError
from app.web.sessions import arena_of, is_test, network_hash, session_cookie


def limited(action: Action) -> Any:
    """Return the dependency that answers 429 to whoever does this too often."""
    return Depends(_check(action))


def _check(action: Action) -> Callable[[Request], Awaitable[None]]:
    async def check(request: Request) -> None:
        limiter: RateLimiter = request.app.state.limiter
        if is_test(request, arena_of(request)):  # a load test is a hundred raters at one address
            return
        cookie, network = session_cookie(request), network_hash(request, arena_of(request))
        waits = []
        if cookie is not None and action in RATER_LIMITS:
            waits.append(limiter.wait_s((action, "rater", cookie_hash(cookie)), RATER_LIMITS[action]))
        if network is not None and action in NETWORK_LIMITS:
            waits.append(limiter.wait_s((action, "network", network), NETWORK_LIMITS[action]))
        seconds = max(waits, default=0)
        if seconds:
            raise ApiError(
                429, "rate_limited", f"Too many requests: try again in {seconds} s.", {"Retry-After": str(seconds)}
            )

    return check
