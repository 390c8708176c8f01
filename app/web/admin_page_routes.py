"""The page where admins log in, and clips as admins look at them.

Logging in and out is POST /api/v1/admin/login and logout (admin_session.py); all else is app/pages/admin_*.py.
"""

from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse

from app.database.tables import Video
from app.web.api_errors import ApiError
from app.web.bodies import Id
from app.web.sessions import arena_of

router = APIRouter(prefix="/admin")
_LOGIN_PAGE = Path(__file__).with_name("admin_login.html")


@router.get("/login", response_class=HTMLResponse)
def login_page() -> str:
    """Return the page that asks for the password."""
    return _LOGIN_PAGE.read_text(encoding="utf-8")


@router.get("/clips/{video_id}", response_model=None)
def read_clip(request: Request, video_id: Id) -> FileResponse:
    """Serve a clip as raters see it."""
    arena = arena_of(request)
    with arena.reading() as session:
        video = session.get(Video, video_id)
        if video is None:
            raise ApiError(404, "unknown", "There is no such clip.")
        kind, path = next(iter(video.play_files.items()))
    file = arena.config.data / path
    if not file.is_file():
        raise ApiError(404, "unknown", "The file of this clip is missing: verify the arena.")
    return FileResponse(file, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})
