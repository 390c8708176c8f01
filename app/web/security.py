"""What every request must keep to and every answer carries, whatever route it takes.

Gradio reflects any origin with credentials on a public host, fetches addresses for callers and takes uploads without a
form for them (measured with 6.31); so cross-origin writes and those routes end here.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.arena_config import ArenaConfig
from app.web.api_errors import error_response

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
"""Gradio 6 needs inline scripts and eval; nothing needs another host."""
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_GRADIO = "/gradio_api"
_GRADIO_OPEN = (
    "queue/join",
    "queue/data",
    "heartbeat/",
    "startup-events",
    "app_id",
    "theme.css",
    "reset",
    "cancel",
    "info",
)
"""What Gradio's pages ask for; all else of its API (files, uploads, proxies, calls by name, histories) is closed."""
_LARGEST_BODY = 256 * 1024


class SecurityMiddleware:
    """Refuses cross-origin writes, bodies that are not JSON, and routes of Gradio that nobody here needs."""

    def __init__(self, app: ASGIApp, *, config: ArenaConfig) -> None:
        """Wrap an application."""
        self._app = app
        self._public_origin = _origin(config.public_url) if config.public_url else None
        self._is_https = config.is_https

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        answer = self._app if refusal is None else refusal
        has_begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                self._set_headers(MutableHeaders(scope=message))
            await send(message)

        try:
            await answer(scope, receive, send_with_headers)
        except Exception:
            # What lies outside of this would answer without headers. The error itself goes on to the log.
            if not has_begun:
                failure = error_response(500, "failed", "Something went wrong on our side; nothing was stored.")
                await failure(scope, receive, send_with_headers)
            raise

    def _set_headers(self, headers: MutableHeaders) -> None:
        for name, value in _HEADERS.items():
            headers[name] = value
        if self._is_https:
            headers["Strict-Transport-Security"] = "max-age=31536000"
        for name in ("access-control-allow-origin", "access-control-allow-credentials", "server"):
            if name in headers:
                del headers[name]

    def _refusal(self, scope: Scope) -> Response | None:
        path, method, headers = scope["path"], scope["method"], Headers(scope=scope)
        if is_closed(path):
            return error_response(404, "unknown", "There is nothing here.")
        if method in _SAFE_METHODS:
            return None
        if not self._is_same_origin(headers):
            return error_response(403, "cross_origin", "This request comes from another site.")
        if path.startswith("/api/") and not _is_json(headers):
            return error_response(415, "invalid", "Send JSON (content-type: application/json).")
        length = headers.get("content-length", "")
        if not length.isdecimal() or int(length) > _LARGEST_BODY:
            return error_response(
                413, "invalid", f"At most {_LARGEST_BODY} bytes, with their number in content-length."
            )
        return None

    def _is_same_origin(self, headers: Headers) -> bool:
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return False
        origin = headers.get("origin")
        if origin is None:
            return True  # no browser leaves it out of another site's write
        if self._public_origin is not None:
            return origin == self._public_origin
        return urlsplit(origin).netloc == headers.get("host")


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


def is_closed(path: str) -> bool:
    """Return whether a path is one of Gradio's that nobody here needs.

    Args:
        path: Of the request, decoded.
    """
    inner = path.removeprefix("/admin")  # Gradio is mounted there too; /admin/login is our own
    if not inner.startswith(_GRADIO):
        return inner.startswith(("/monitoring", "/svelte/")) or path.startswith(("/login", "/logout"))
    return not inner.removeprefix(_GRADIO).removeprefix("/").startswith(_GRADIO_OPEN)


def _is_json(headers: Headers) -> bool:
    return headers.get("content-type", "").split(";")[0].strip().lower() == "application/json"
