"""Write files so that a killed run leaves the old one or the new one, and hash them."""

import hashlib
import os
import tempfile
from pathlib import Path

MANIFEST = "manifest.json"
"""What generate.py calls the list of its clips."""


def write_atomic(path: Path, content: bytes) -> None:
    """Write bytes beside the target, flush them to the disk, then rename; the target is never half written.

    Args:
        path: Target file; missing parent folders are made.
        content: Whole content.

    Raises:
        OSError: The disk is full or the folder is not writable, always with the target's name (a failed write alone
            does not carry one); the old file, if any, is intact.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)  # mkstemp makes files that only their owner reads
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's content.

    Args:
        path: An existing file; it is read in blocks of 1 MiB.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
