"""Who a request is from, by its cookie."""

import ipaddress
from datetime import UTC, datetime

from fastapi import Request, Response

from app.arena_state import Arena
from app.web.cookies import RATER_COOKIE

_YEAR_S = 365 * 24 * 3600


def arena_of(request: Request) -> Arena:
    """Return the arena that serves a request."""
    arena: Arena = request.app.state.arena
    return arena


def session_cookie(request: Request) -> str | None:
    """Return a request's cookie."""
    return request.cookies.get(RATER_COOKIE)


def set_session_cookie(response: Response, arena: Arena, value: str) -> None:
    """Give a browser its cookie: out of reach for scripts and for other sites' requests."""
    response.set_cookie(
        RATER_COOKIE, value, max_age=_YEAR_S, httponly=True, samesite="lax", secure=arena.config.is_https, path="/"
    )


def network_hash(request: Request, arena: Arena) -> str | None:
    """Return a keyed hash of the caller's address and the day: it tells two networks apart, and forgets by tomorrow."""
    if request.client is None:
        return None
    return arena.signer.keyed_hash("network", _network(request.client.host), datetime.now(UTC).date().isoformat())


def _network(host: str) -> str:
    """Return an address; of IPv6 the half that names a subscriber, who has 2^64 addresses to choose from."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host  # a socket's name
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped or ipaddress.ip_network((address, 64), strict=False))
    return str(address)
