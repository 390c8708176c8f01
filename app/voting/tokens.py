"""Signed words that a browser carries and cannot make: which assignment it may answer, which clip it may fetch.

A token names no system, prompt or file: an assignment, a side and a time.
"""

import base64
import hashlib
import hmac
import secrets
import time
from pathlib import Path

_SIGNATURE_BYTES = 16


class TokenError(Exception):
    """The token is not ours, not for this, or too old."""


class TokenSigner:
    """Signs with a key that stays in the data folder."""

    def __init__(self, key: bytes) -> None:
        """Take the key, 32 bytes."""
        self._key = key

    @classmethod
    def from_file(cls, file: Path) -> "TokenSigner":
        """Read the key, or make it, readable by its owner alone."""
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            draft = file.with_suffix(".new")
            draft.touch(mode=0o600)
            draft.write_bytes(secrets.token_bytes(32))
            draft.replace(file)
        return cls(file.read_bytes())

    def sign(self, *words: str, lasts_s: float) -> str:
        """Return a token.

        Args:
            words: What it says, without line feeds.
            lasts_s: From now.
        """
        body = "\n".join((*words, str(int(time.time() + lasts_s)))).encode()
        return base64.urlsafe_b64encode(self._signature(body) + body).decode().rstrip("=")

    def read(self, token: str) -> tuple[str, ...]:
        """Return what a token says.

        Raises:
            TokenError: Not made with this key, or too old.
        """
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except ValueError as error:
            raise TokenError("no token") from error
        signature, body = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._signature(body)):
            raise TokenError("forged")
        *words, expires = body.decode().split("\n")
        if time.time() > int(expires):
            raise TokenError("expired")
        return tuple(words)

    def keyed_hash(self, *words: str) -> str:
        """Return a hash of something that must not be stored itself, 64 hexadecimal digits."""
        return hmac.new(self._key, "\n".join(words).encode(), hashlib.sha256).hexdigest()

    def _signature(self, body: bytes) -> bytes:
        return hmac.new(self._key, body, hashlib.sha256).digest()[:_SIGNATURE_BYTES]
