"""Range checks that name the field."""

import math

from rlhf_video.errors import ConfigError


def check_range(
    name: str, value: float, *, least: float = -math.inf, above: float = -math.inf, below: float = math.inf
) -> None:
    """Refuse a number outside its range.

    Args:
        name: Dotted field, for the message.
        value: What was given; NaN and infinity fit no range.
        least: The smallest value that fits.
        above: A bound that the value must exceed.
        below: A bound that the value must not reach.

    Raises:
        ConfigError: The value does not fit.
    """
    if math.isfinite(value) and value >= least and above < value < below:
        return
    parts = []
    if math.isfinite(least):
        parts.append(f"at least {least:g}")
    if math.isfinite(above):
        parts.append(f"above {above:g}")
    if math.isfinite(below):
        parts.append(f"below {below:g}")
    raise ConfigError(f"{name}={value} must be {' and '.join(parts) or 'a finite number'}.")
