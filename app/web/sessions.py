"""Who a request is from, by its cookie."""

import ipaddress
from datetime import UTC, datetime

from fastapi import Request, Response

from app.arena_state import Arena
from app.voting.tokens import TokenError
from app.web.api_errors import ApiError
from app.web.cookies import RATER_COOKIE

TEST_HEADER = "X-Arena-Test"
"""Carries a token that says `TEST_WORD`, signed with the key of the data folder: the caller's votes never count."""
TEST_WORD = "test"
PANEL_HEADER = "X-Panel-Person"
"""Carries, URL-encoded, the panel's id of who sits at the browser now; its cookie may be of somebody before them."""
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


def panel_hash(arena: Arena, person: str | None) -> str | None:
    """Return a keyed hash of a panel's id of a person; None where there is none."""
    return arena.signer.keyed_hash("panel", person) if person else None


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


def is_test(request: Request, arena: Arena) -> bool:
    """Return whether the caller is a test, which only somebody who can read the data folder can make.

    Raises:
        ApiError: The token is not of this arena's key, or too old: a test must not go on as a person.
    """
    token = request.headers.get(TEST_HEADER)
    if token is None:
        return False
    try:
        fits = arena.signer.read(token) == (TEST_WORD,)
    except (TokenError, ValueError):
        fits = False
    if not fits:
        raise ApiError(403, "foreign", "This token of a test is not signed with the key of this arena, or too old.")
    return True
