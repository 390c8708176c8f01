"""Who an admin is: by password and cookie, or by the name that a proxy in front of the arena puts into a header.

A proxy's header is believed as it comes. So `admin_header` may only be set where the proxy overwrites that header in
every request, whatever the browser sent, and where nothing but the proxy reaches the arena's port.
"""

from collections.abc import Mapping

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.admin_password import is_password
from app.arena_state import Arena
from app.database.audit_log import append_entry
from app.voting.tokens import TokenError
from app.web.api_errors import ApiError
from app.web.cookies import ADMIN_COOKIE
from app.web.limits import limited
from app.web.sessions import arena_of

LASTS_S = 12 * 3600
router = APIRouter(prefix="/api/v1/admin")


class LoginBody(BaseModel):
    """An admin's password."""

    model_config = ConfigDict(extra="forbid")
    password: str = Field(min_length=1, max_length=1024)


def admin_name(arena: Arena, *, cookies: Mapping[str, str], headers: Mapping[str, str]) -> str | None:
    """Return which admin a request is from; None where from none.

    Args:
        arena: Whose admin.
        cookies: Of the request.
        headers: Of the request; their names' case must not matter (Starlette's and Gradio's do so).
    """
    if arena.config.admin_header is not None:
        name = headers.get(arena.config.admin_header, "").strip()
        if name:
            return name[:64]
    token = cookies.get(ADMIN_COOKIE)
    if token is None or arena.config.admin_password is None:
        return None
    try:
        is_ours = arena.signer.read(token) == ("admin", _password_mark(arena))
    except TokenError:
        return None
    return "admin" if is_ours else None


def admin_of(request: Request) -> str | None:
    """Return which admin a request is from; None where from none."""
    return admin_name(arena_of(request), cookies=request.cookies, headers=request.headers)


def require_admin(request: Request) -> str:
    """Return which admin a request is from.

    Raises:
        ApiError: 401 for everybody else.
    """
    name = admin_of(request)
    if name is None:
        raise ApiError(401, "not_admin", "This is for the organisers: log in first.")
    return name


@router.post("/login", dependencies=[limited("login")])
def login(request: Request, response: Response, body: LoginBody) -> dict[str, str]:
    """Give an admin's browser its cookie."""
    arena = arena_of(request)
    stored = arena.config.admin_password
    if stored is None or not is_password(body.password, stored):
        raise ApiError(401, "not_admin", "That is not the password.")
    arena.writer.run(
        lambda session: append_entry(session, actor="admin", action="admin.logged_in", subject="admin", details={})
    )
    response.set_cookie(
        ADMIN_COOKIE,
        arena.signer.sign("admin", _password_mark(arena), lasts_s=LASTS_S),
        max_age=LASTS_S,
        httponly=True,
        samesite="strict",
        secure=arena.config.is_https,
        path="/",
    )
    return {"admin": "admin"}


@router.post("/logout")
def logout(response: Response) -> dict[str, None]:
    """Take the cookie away; a copy of it ends with its 12 hours, or when the password is changed."""
    response.delete_cookie(ADMIN_COOKIE, path="/")
    return {"admin": None}


def _password_mark(arena: Arena) -> str:
    """Return what a cookie says of the password it was given for: a new password ends old sessions."""
    return arena.signer.keyed_hash("admin", arena.config.admin_password or "")[:32]
