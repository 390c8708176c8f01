"""The four kinds of windows, by name.

| kind | keys of a token | from |
|---|---|---|
| full | all | |
| local | its own box of the grid; borders may be shifted | Swin, arXiv:2103.14030; Video Swin, arXiv:2106.13230 |
| band | its chunk and `halo` tokens on both sides, in one of six axis orders per head | EasyAnimate, arXiv:2405.18991 |
| tile | a box of tiles around its own tile | sliding tile attention, arXiv:2502.04507 |
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from rlhf_video.attention.band_window import Band
from rlhf_video.attention.box_windows import Local, Tile
from rlhf_video.attention.grid import Grid
from rlhf_video.attention.window_spec import Spans, WindowSpec
from rlhf_video.errors import ConfigError


@dataclass(frozen=True)
class Full(WindowSpec):
    """Every token sees every token."""

    kind: ClassVar[str] = "full"

    def check(self, grid: Grid) -> None:
        """Accept every grid."""

    def spans(self, grid: Grid) -> Iterator[Spans]:
        """Yield one group of all tokens."""
        every = torch.arange(grid.num_tokens)[None, :, None]
        yield Spans(every, every)

    def attends(self, grid: Grid) -> Tensor:
        """Return all True."""
        return torch.ones(1, grid.num_tokens, grid.num_tokens, dtype=torch.bool)


_KINDS: dict[str, type[WindowSpec]] = {spec.kind: spec for spec in (Full, Local, Band, Tile)}


def window_from_json(values: Mapping[str, object]) -> WindowSpec:
    """Return the window that `WindowSpec.to_json` described.

    Raises:
        ConfigError: The kind or a field is unknown, a field is missing, or a value does not fit.
    """
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ConfigError(f"Unknown window kind {kind!r}. Known: {', '.join(_KINDS)}.")
    spec = _KINDS[kind]
    known = {field.name for field in fields(spec)}  # type: ignore[arg-type]
    given = {name: value for name, value in values.items() if name != "kind"}
    if unknown := sorted(set(given) - known):
        raise ConfigError(f"A {kind} window has no field '{unknown[0]}'. Known: {', '.join(sorted(known)) or 'none'}.")
    try:
        return spec(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})
    except TypeError as error:
        raise ConfigError(f"{json.dumps(dict(values))} does not describe a {kind} window: {error}.") from error
