"""The admin's password is kept as a salted scrypt hash."""

import base64
import hashlib
import hmac
import secrets

_COST = {"n": 2**14, "r": 8, "p": 1}  # 16 MiB and about 50 ms, as RFC 7914 advises for logins


def hash_password(password: str) -> str:
    """Return what is written into the config."""
    salt = secrets.token_bytes(16)
    return f"scrypt${base64.b64encode(salt).decode()}${base64.b64encode(_derive(password, salt)).decode()}"


def is_password(password: str, stored: str) -> bool:
    """Return whether a password is the one that was hashed; a text that is no such hash fits none."""
    try:
        kind, salt, key = stored.split("$")
        expected = base64.b64decode(key, validate=True)
        return kind == "scrypt" and hmac.compare_digest(_derive(password, base64.b64decode(salt)), expected)
    except ValueError:
        return False


def _derive(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, **_COST)
