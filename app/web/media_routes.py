"""Clips by token: nothing about where a clip is from is in the address, the headers or the bytes."""

import logging
import mimetypes

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse

from app.database.tables import Assignment
from app.voting.tokens import TokenError
from app.web.api_errors import ApiError
from app.web.sessions import arena_of

logger = logging.getLogger(__name__)
router = APIRouter()


@router.api_route("/media/{token}", methods=["GET", "HEAD"], response_model=None)
def read_clip(request: Request, token: str) -> FileResponse:
    """Serve one side of an assignment, with byte ranges."""
    arena = arena_of(request)
    try:
        purpose, assignment_id, side, kind = arena.signer.read(token)
    except (TokenError, ValueError) as error:
        raise ApiError(404, "foreign", "There is no such clip, or its time is over: reload the page.") from error
    if purpose != "clip":
        raise ApiError(404, "foreign", "There is no such clip.")
    with arena.reading() as session:
        assignment = session.get_one(Assignment, assignment_id)
        is_a = (side == "left") == assignment.a_is_left
        video = assignment.pair.a if is_a else assignment.pair.b
        file = arena.config.data / video.play_files[kind]
    if not file.is_file():
        logger.error("The clip %s is missing: run `python app/arena.py verify`", file)
        raise ApiError(404, "missing", "This clip cannot be shown: please report the pair.")
    # Private: the address is for one rater. Immutable: it always names the same bytes.
    headers = {"Cache-Control": "private, max-age=3600, immutable", "X-Content-Type-Options": "nosniff"}
    return FileResponse(file, media_type=kind or mimetypes.guess_type(file)[0], headers=headers)
