"""What the server costs this machine: its memory and its processor time, as Linux counts them."""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_LISTENS = "0A"  # state of a socket in /proc/net/tcp


@dataclass(frozen=True)
class Usage:
    """What a process has used so far."""

    memory_mib: float
    """Resident."""
    cpu_s: float
    """Of all its threads, in its own code and in the kernel's."""


def find_server(url: str) -> int | None:
    """Return the process that listens at an address of this machine; None where it is elsewhere or cannot be seen."""
    parts = urlsplit(url)
    if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        return None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    sockets = _listening(port)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            opened = {str(link.readlink()) for link in (folder / "fd").iterdir()}
        except OSError:  # it has ended, or is somebody else's
            continue
        if opened & sockets:
            return int(folder.name)
    return None


def usage_of(process: int) -> Usage | None:
    """Return what a process has used; None where it has ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        # After the name, which may hold blanks: user and system time are the 12th and 13th.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    ticks = int(fields[11]) + int(fields[12])
    return Usage(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, ticks / os.sysconf("SC_CLK_TCK"))


def _listening(port: int) -> set[str]:
    found = set()
    for file in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in file.read_text().splitlines()[1:] if file.exists() else ():
            fields = line.split()
            if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found
