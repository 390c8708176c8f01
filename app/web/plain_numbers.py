"""JSON has no NaN and no infinity: they are sent as null."""

import math
from typing import Any


def finite(value: Any) -> Any:
    """Return plain values with null for numbers that JSON cannot hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
