"""The arena's server: raters' API, clips, and the pages."""

import warnings
from typing import Any

import gradio as gr
from fastapi import FastAPI
from sqlalchemy import text

from app.arena_config import ArenaConfig
from app.arena_state import Arena
from app.pages.admin_pages import STYLE, build_admin_pages
from app.pages.rater_pages import build_rater_pages
from app.pages.theme import THEME
from app.quality.rate_limit import RateLimiter
from app.web import admin_page_routes, admin_routes, admin_session, media_routes, vote_routes
from app.web.admin_gate import AdminGate, admitted
from app.web.api_errors import install_handlers
from app.web.security import SecurityMiddleware


def create_app(arena: Arena) -> FastAPI:
    """Build the server: API and pages.

    Args:
        arena: Open for as long as the server runs.
    """
    app = create_api(arena)
    # The admin's pages first: the raters' are at "/", which every address begins with.
    _mount(app, build_admin_pages(arena), "/admin", arena.config, css=STYLE, auth_dependency=admitted)
    _mount(app, build_rater_pages(arena), "/", arena.config)
    return app


def create_api(arena: Arena) -> FastAPI:
    """Build the server without its pages, which take Gradio most of the time that a start takes."""
    app = FastAPI(title="arena", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.arena = arena
    app.state.limiter = RateLimiter()
    install_handlers(app)
    app.include_router(vote_routes.router)
    app.include_router(media_routes.router)
    app.include_router(admin_session.router)
    app.include_router(admin_routes.router)
    app.include_router(admin_page_routes.router)

    @app.get("/health")
    def health() -> dict[str, str]:
        with arena.reading() as session:
            session.execute(text("SELECT 1"))
        return {"status": "ok", "database": arena.engine.dialect.name}

    app.add_middleware(AdminGate)
    app.add_middleware(SecurityMiddleware, config=arena.config)  # outermost: its headers are on refusals too
    return app


def _mount(app: FastAPI, pages: gr.Blocks, path: str, config: ArenaConfig, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="SSR mode is not supported")  # nobody asked for it
        gr.mount_gradio_app(
            app,
            pages,
            path=path,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            max_file_size=1,
            theme=THEME,
            blocked_paths=[str(config.data)],
            **options,
        )
