"""Every error of the API is {error: {code, message}}: the code for the browser, the message for the rater."""

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from app.database.writer import DatabaseUnavailableError
from app.voting.votes import BallotRefusedError
from rlhf_video.errors import DataError

logger = logging.getLogger(__name__)
STATUS = {"foreign": 403, "conflict": 409, "expired": 410, "invalid": 422, "watched_too_little": 422}


class ApiError(Exception):
    """A request that is refused."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers


def error_response(
    status: int, code: str, message: str, *, headers: dict[str, str] | None = None, **more: object
) -> JSONResponse:
    """Return the answer for an error."""
    return JSONResponse({"error": {"code": code, "message": message}, **more}, status, headers)


def install_handlers(app: FastAPI) -> None:
    """Turn exceptions of the routes into answers."""

    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> JSONResponse:
        return error_response(error.status, error.code, str(error), headers=error.headers)

    @app.exception_handler(BallotRefusedError)
    async def ballot_refused(_: Request, error: BallotRefusedError) -> JSONResponse:
        stored = error.stored and {"vote_id": error.stored.id, "revision": error.stored.revision}
        return error_response(STATUS[error.code], error.code, str(error), stored=stored)

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        code = "unknown" if error.status_code == 404 else "invalid"
        return error_response(error.status_code, code, error.detail, headers=dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        return error_response(422, "invalid", f"{where or 'body'}: {first['msg']}")

    @app.exception_handler(DatabaseUnavailableError)
    @app.exception_handler(OperationalError)  # of a reader, who has no writer to say it
    @app.exception_handler(InterfaceError)
    @app.exception_handler(PoolTimeoutError)
    async def unavailable(request: Request, error: Exception) -> JSONResponse:
        logger.warning("%s %s: %s", request.method, request.url.path, error)
        return error_response(
            503,
            "busy",
            "The arena cannot store anything right now; your browser tries again.",
            headers={"Retry-After": "5"},
        )

    @app.exception_handler(DataError)
    async def data_error(_: Request, error: DataError) -> JSONResponse:
        return error_response(409, "conflict", str(error))
