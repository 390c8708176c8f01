"""The parts of a plan as a person writes them: layers as "0-7, 23-29", windows in one short line."""

import itertools
import re
from collections.abc import Iterable

from rlhf_video.attention.window_spec import WindowSpec
from rlhf_video.errors import ConfigError

MAX_LAYERS = 1024
"""More layers than any model has; a larger number in a file is a slip."""


def text_of_layers(layers: Iterable[int]) -> str:
    """Return layer numbers as ranges, both ends included; every other layer, and the like, as "1-27 by 2"."""
    layers = sorted(layers)
    steps = {after - before for before, after in itertools.pairwise(layers)}
    if len(layers) > 2 and len(steps) == 1 and steps != {1}:
        return f"{layers[0]}-{layers[-1]} by {steps.pop()}"
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def layers_from_text(text: object) -> list[int]:
    """Return the layer numbers of "0-7, 23-29", in the order in which they are written.

    Raises:
        ConfigError: It is not of this form, or a number is above `MAX_LAYERS`.
    """
    layers: list[int] = []
    for part in text.split(",") if isinstance(text, str) else [""]:
        match = re.fullmatch(r"\s*(\d{1,4})\s*(?:-\s*(\d{1,4})\s*(?:by\s+(\d{1,4})\s*)?)?", part)
        first, last, step = (int(match[1]), int(match[2] or match[1]), int(match[3] or 1)) if match else (0, -1, 1)
        if not (first <= last < MAX_LAYERS and step):
            raise ConfigError(
                f"layers={text!r} must be text with layer numbers from 0 to {MAX_LAYERS - 1} and ranges of them, as in "
                '"0-7, 23-29" or "1-27 by 2".'
            )
        layers += range(first, last + 1, step)
    return layers


def text_of_window(window: WindowSpec) -> str:
    """Return a window in one short line, as in "tile: tile 3 x 9 x 16, box 3 x 3 x 3"; 0 is a whole axis."""
    parts = []
    for name, value in window.to_json().items():
        if name == "orders" and isinstance(value, list):
            parts.append(f"{len(value)} orders" if len(value) > 1 else f"order {value[0]}")
        elif name != "kind" and value:  # no sink and no halo need no word
            parts.append(_text_of_value(name, value))
    return f"{window.kind}: {', '.join(part for part in parts if part)}" if parts else window.kind


def _text_of_value(name: str, value: object) -> str:
    if isinstance(value, list):
        return f"{name} {' x '.join(map(str, value))}" if any(value) or name != "shift" else ""
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
