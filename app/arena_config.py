"""Where an arena lives and how it is reached."""

from dataclasses import dataclass
from pathlib import Path

from app.database.engine import sqlite_url
from rlhf_video.errors import ConfigError
from rlhf_video.settings import check_range


@dataclass(frozen=True, kw_only=True)
class ArenaConfig:
    """Settings of one arena."""

    data: Path
    """Folder of everything: database, clips, the key that signs tokens, exports."""
    database_url: str | None = None
    """None for arena.sqlite in `data`; postgresql+psycopg://user@host/name for several servers."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for every network, behind a proxy that speaks https."""
    port: int = 7860
    """Port to listen on; 0 for any that is free."""
    import_folder: Path | None = None
    """Folder of this machine below which admins may import clips in the browser; None turns that off."""
    public_url: str | None = None
    """Address that raters type, for example https://arena.example.org; None for http://host:port."""
    admin_password: str | None = None
    """What `python app/arena.py init --password` printed; None closes the admin pages."""
    admin_header: str | None = None
    """Header in which a proxy names the admin it let in, for example X-Forwarded-User; None trusts no header. The
    proxy must overwrite it in every request, and nothing else may reach the port."""
    sweep_every_s: float = 60.0
    """How often the server looks for raters who do not judge (quality/risk.py); 0 for never."""

    def __post_init__(self) -> None:
        """Check the port.

        Raises:
            ConfigError: No port, or a public address without a scheme.
        """
        if not 0 <= self.port < 65536:
            raise ConfigError(f"port={self.port} must be between 0 and 65535.")
        check_range("sweep_every_s", self.sweep_every_s, least=0.0)
        if self.public_url is not None and not self.public_url.startswith(("http://", "https://")):
            raise ConfigError(f"public_url='{self.public_url}' must start with https:// (or http:// for a test).")

    @property
    def url(self) -> str:
        """Return the URL of the database."""
        return self.database_url or sqlite_url(self.data / "arena.sqlite")

    @property
    def is_https(self) -> bool:
        """Whether browsers reach it by https, so cookies can insist on it."""
        return bool(self.public_url and self.public_url.startswith("https://"))
