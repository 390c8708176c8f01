"""Clips by token: nothing about where a clip is from is in the address, the headers or the bytes."""

import logging
import mimetypes
import os

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from sqlalchemy import bindparam, select
from sqlalchemy.orm import aliased

from app.database.tables import Assignment, Pair, Video
from app.voting.tokens import TokenError
from app.web.api_errors import ApiError
from app.web.sessions import arena_of

logger = logging.getLogger(__name__)
router = APIRouter()
_A, _B = aliased(Video), aliased(Video)
_FILES = (
    select(Assignment.a_is_left, _A.play_files, _B.play_files)
    .join(Pair, Pair.id == Assignment.pair_id)
    .join(_A, _A.id == Pair.a_id)
    .join(_B, _B.id == Pair.b_id)
    .where(Assignment.id == bindparam("assignment"))
)
"""One statement, built once: clips are most of the requests."""


class _Clip(FileResponse):
    chunk_size = 512 * 1024  # every chunk is a hop to a thread and back; the default of 64 KiB makes many of them

    def set_stat_headers(self, stat_result: os.stat_result) -> None:
        # Not the time of the file: clips come in one system at a time, and spoiled copies last.
        self.headers["content-length"] = str(stat_result.st_size)

    def _should_use_range(self, http_if_range: str) -> bool:
        return http_if_range == self.headers["etag"]  # Starlette's own asks for the time, too


@router.api_route("/media/{token}", methods=["GET", "HEAD"], response_model=None)
def read_clip(request: Request, token: str) -> _Clip:
    """Serve one side of an assignment, with byte ranges."""
    arena = arena_of(request)
    try:
        purpose, assignment_id, side, kind = arena.signer.read(token)
    except (TokenError, ValueError) as error:
        raise ApiError(404, "foreign", "There is no such clip, or its time is over: reload the page.") from error
    if purpose != "clip":
        raise ApiError(404, "foreign", "There is no such clip.")
    with arena.reading() as session:
        a_is_left, files_a, files_b = session.execute(_FILES, {"assignment": assignment_id}).one()
    files = files_a if (side == "left") == a_is_left else files_b
    file = arena.config.data / files[kind]
    if not file.is_file():
        logger.error("The clip %s is missing: run `python app/arena.py verify`", file)
        raise ApiError(404, "missing", "This clip cannot be shown: please report the pair.")
    # Private: the address is for one rater. Immutable: it always names the same bytes.
    headers = {
        "Cache-Control": "private, max-age=3600, immutable",
        "ETag": f'"{arena.signer.keyed_hash("clip", file.stem)[:32]}"',  # the name is the hash of the content
        "X-Content-Type-Options": "nosniff",
    }
    return _Clip(file, media_type=kind or mimetypes.guess_type(file)[0], headers=headers)
