"""What admins see, in Gradio: pages of their own at /admin, which name systems; the gate keeps everybody else out."""

from collections.abc import Callable
from pathlib import Path

import gradio as gr

from app.arena_state import Arena
from app.pages.admin_boards import boards_page
from app.pages.admin_exports import exports_page
from app.pages.admin_health import health_page
from app.pages.admin_raters import raters_page
from app.pages.admin_rewards import rewards_page
from app.pages.admin_studies import studies_page

STYLE = (Path(__file__).with_name("admin.css")).read_text() + (Path(__file__).with_name("board.css")).read_text()
PAGES: tuple[tuple[str, str, Callable[[gr.Blocks, Arena], None]], ...] = (
    ("Raters", "raters", raters_page),
    ("Rewards", "rewards", rewards_page),
    ("Exports and lineage", "exports", exports_page),
    ("Leaderboard", "board", boards_page),
    ("Audit and health", "health", health_page),
)
"""Name, address below /admin/, and what is on it; studies are on /admin/ itself."""
_LOG_OUT = '<p class="log-out"><button type="button">Log out</button></p>'
_ON_LOG_OUT = """element.querySelector("button").addEventListener("click", async () => {
  const json = { "content-type": "application/json" };
  await fetch("/api/v1/admin/logout", { method: "POST", headers: json, body: "{}" });
  location.assign("/admin/login");
});"""


def build_admin_pages(arena: Arena) -> gr.Blocks:
    """Return the pages.

    Args:
        arena: Open for as long as the server runs.
    """
    with gr.Blocks(title="Arena: admin", analytics_enabled=False) as pages:
        gr.Navbar(main_page_name="Studies")
        _log_out()
        studies_page(pages, arena)
    for name, path, add in PAGES:
        with pages.route(name, f"/{path}"):
            gr.Navbar(main_page_name="Studies")
            _log_out()
            add(pages, arena)
    return pages


def _log_out() -> None:
    # No form: with our referrer policy a browser hides where a form comes from, so it would be refused as foreign.
    gr.HTML(_LOG_OUT, js_on_load=_ON_LOG_OUT, apply_default_css=False)
