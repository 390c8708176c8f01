"""Nothing below /admin answers to anybody but an admin, whatever serves it: one gate in front of every route.

Gradio leaves some routes open to everyone when a login is set (its files, its heartbeat), and its page configuration
holds the names of systems; so nobody gets as far as Gradio.
"""

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.web.admin_session import admin_of
from app.web.api_errors import error_response

LOGIN = "/admin/login"
_HOME = "/admin/"
_NAME = "arena_admin"


class AdminGate:
    """Lets admins through; sends a browser that asks for a page to the login, and refuses everything else."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        path = scope.get("path", "")
        if scope["type"] not in ("http", "websocket") or not (path == "/admin" or path.startswith(_HOME)):
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if path == LOGIN:
            await self._app(scope, receive, send)
            return
        name = admin_of(Request(scope))
        if name is None:
            await _refusal(scope)(scope, receive, send)
        elif path == "/admin":
            await RedirectResponse(_HOME, 303)(scope, receive, send)
        else:
            scope[_NAME] = name
            await self._app(scope, receive, send)


def admitted(request: Request) -> str | None:
    """Return the admin whom the gate let through; None for a request that did not pass it."""
    name: str | None = request.scope.get(_NAME)
    return name


def _refusal(scope: Scope) -> Response:
    if scope["method"] == "GET" and "text/html" in Headers(scope=scope).get("accept", ""):
        return RedirectResponse(LOGIN, 303)
    return error_response(401, "not_admin", "Log in as an admin first.")
