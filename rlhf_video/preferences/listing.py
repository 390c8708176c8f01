"""Messages that name many things at once without filling the screen."""

from collections.abc import Sequence


def listed(items: Sequence[str], limit: int = 5) -> str:
    """Return up to `limit` items, joined by semicolons, and how many more there are."""
    more = f"; and {len(items) - limit} more" if len(items) > limit else ""
    return "; ".join(items[:limit]) + more
