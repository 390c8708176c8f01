"""An attention plan: a window for each layer of a model, and the noise levels at which all of them are off.

As JSON, layers that share a window stand together and all are counted from 0:

    {"format": 1, "num_heads": 12, "dense_sigmas": [0.8, 1.0],
     "windows": [{"layers": "0-7, 23-29", "window": {"kind": "full"}},
                 {"layers": "8-22", "window": {"kind": "local", "window": [3, 0, 0], "shift": [0, 0, 0]}}]}
"""

import functools
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rlhf_video.attention.grid import Grid
from rlhf_video.attention.plan_text import layers_from_text, text_of_layers, text_of_window
from rlhf_video.attention.window_spec import WindowSpec
from rlhf_video.attention.windows import Full, window_from_json
from rlhf_video.errors import ConfigError

FORMAT = 1
"""Version of the JSON form."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AttentionPlan:
    """Which keys the video tokens see in each self-attention layer of one model."""

    num_heads: int
    """Heads of each layer; they are cut into groups that read the axes in different orders."""
    layers: tuple[WindowSpec, ...]
    """Window of each layer, first layer first."""
    dense_sigmas: tuple[float, float] | None = None
    """Lowest and highest noise level at which every layer is dense, both included; (0.8, 1.0) is the first, noisiest
    fifth of a schedule without shift. None: the windows are always on."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: There is no head or no layer, a layer is no window, or the noise levels are no range in [0, 1].
        """
        object.__setattr__(self, "layers", tuple(self.layers))
        if type(self.num_heads) is not int or self.num_heads < 1:
            raise ConfigError(f"num_heads={self.num_heads!r} of an attention plan must be a whole number of 1 or more.")
        if not self.layers:
            raise ConfigError("An attention plan needs a window for at least one layer.")
        for number, window in enumerate(self.layers):
            if not isinstance(window, WindowSpec):
                raise ConfigError(f"Layer {number} of the attention plan is {window!r}: use Full, Local, Band or Tile.")
        if self.dense_sigmas is not None:
            object.__setattr__(self, "dense_sigmas", checked_sigmas(self.dense_sigmas))

    @property
    def num_layers(self) -> int:
        """Number of self-attention layers."""
        return len(self.layers)

    @property
    def is_full(self) -> bool:
        """Whether every layer is `Full`: the model as it is."""
        return all(isinstance(window, Full) for window in self.layers)

    @property
    def layers_of_window(self) -> dict[WindowSpec, tuple[int, ...]]:
        """Each different window, in the order of first use, with the layers that have it."""
        groups: dict[WindowSpec, tuple[int, ...]] = {}
        for number, window in enumerate(self.layers):
            groups[window] = (*groups.get(window, ()), number)
        return groups

    @property
    def fingerprint(self) -> str:
        """16 hex digits that two plans share exactly when they are equal."""

        def number(text: str) -> float:
            return float(text) + 0.0  # 1 and 1.0 are one number, and so are 0.0 and -0.0

        plain = json.loads(json.dumps(self.to_json()), parse_int=number, parse_float=number)
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode("ascii")).hexdigest()[:16]

    def is_dense_at(self, sigma: float) -> bool:
        """Return whether the windows are off at a noise level in [0, 1]."""
        return self.dense_sigmas is not None and self.dense_sigmas[0] <= sigma <= self.dense_sigmas[1]

    def check(self, *, num_layers: int, num_heads: int, grid: Grid | None = None) -> None:
        """Refuse a model, or a grid of its tokens, that the plan does not fit.

        Fewer heads than a window has axis orders are no mistake: the heads take orders at equal distances
        (`WindowSpec.order_of_head`), which is logged once.

        Raises:
            ConfigError: Another depth or head count, or a window that does not fit the grid; it names the layers.
        """
        if num_layers != self.num_layers:
            raise ConfigError(
                f"An attention plan for {self.num_layers} layers does not fit a model of {num_layers}: take the model "
                f"it was made for, or make one with preset_plan(..., num_layers={num_layers})."
            )
        if num_heads != self.num_heads:
            raise ConfigError(
                f"An attention plan for {self.num_heads} heads does not fit a model of {num_heads}: its windows give "
                f"each group of heads an axis order. Make one with preset_plan(..., num_heads={num_heads})."
            )
        for window, layers in self.layers_of_window.items():
            if num_heads < window.num_orders:
                _log_fewer_heads(num_heads, window.num_orders)
            if grid is not None:
                try:
                    window.check(grid)
                except ConfigError as error:
                    raise ConfigError(f"Attention plan, {_named(layers)}: {error}") from error

    def density(self, grid: Grid) -> float:
        """Return the share of all (query, key) pairs that are computed with the windows on, mean over layers.

        Raises:
            ConfigError: A window does not fit the grid.
        """
        windows = self.layers_of_window.items()
        return sum(window.density(grid) * len(layers) for window, layers in windows) / self.num_layers

    def flops(self, grid: Grid, *, head_dim: int) -> int:
        """Return floating-point operations of one forward pass for one clip: all layers' attention, no projections.

        Raises:
            ConfigError: A window does not fit the grid.
        """
        windows = self.layers_of_window.items()
        return sum(
            len(layers) * window.flops(grid, num_heads=self.num_heads, head_dim=head_dim) for window, layers in windows
        )

    def describe(self, grid: Grid) -> str:
        """Return a table for people: layers, their window, its density and its gain in attention.

        Raises:
            ConfigError: A window does not fit the grid.
        """
        rows = [("layers", "window", "density", "fewer FLOPs")]
        for window, layers in self.layers_of_window.items():
            rows.append((text_of_layers(layers), text_of_window(window), *_density_texts(window.density(grid))))
        rows.append(("all", f"{self.num_heads} heads, {grid} tokens", *_density_texts(self.density(grid))))
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        lines = [f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:>7}  {row[3]:>11}" for row in rows]
        if self.dense_sigmas is not None:
            lines.append("dense at noise levels {:g} to {:g}".format(*self.dense_sigmas))
        return "\n".join(lines)

    def to_json(self) -> dict[str, object]:
        """Return plain values for a JSON file or an adapter's metadata; `from_json` reads them."""
        return {
            "format": FORMAT,
            "num_heads": self.num_heads,
            "dense_sigmas": None if self.dense_sigmas is None else list(self.dense_sigmas),
            "windows": [
                {"layers": text_of_layers(layers), "window": window.to_json()}
                for window, layers in self.layers_of_window.items()
            ],
        }

    @classmethod
    def from_json(cls, values: object) -> Self:
        """Return the plan that `to_json` described.

        Raises:
            ConfigError: A key is unknown or missing, a layer has no window or two, or a value does not fit.
        """
        plan = _mapping("An attention plan", values, ("format", "num_heads", "windows"), ("dense_sigmas",))
        if plan["format"] != FORMAT:
            raise ConfigError(
                f"This attention plan has format {plan['format']!r}, this version reads {FORMAT}: "
                "read it with the version that wrote it."
            )
        entries, sigmas = plan["windows"], plan.get("dense_sigmas")
        if not isinstance(entries, list):
            raise ConfigError(f"'windows' of an attention plan must be a list, got {entries!r}.")
        windows: dict[int, WindowSpec] = {}
        for entry in entries:
            item = _mapping("An entry of 'windows'", entry, ("layers", "window"))
            window = window_from_json(_mapping("A window", item["window"], ("kind",), None))
            for layer in layers_from_text(item["layers"]):
                if layer in windows:
                    raise ConfigError(f"Layer {layer} has two windows in the attention plan: keep one.")
                windows[layer] = window
        if missing := sorted(set(range(max(windows, default=-1) + 1)) - set(windows)):
            raise ConfigError(f"The attention plan has no window for {_named(missing)}: add it, for example as 'full'.")
        layers = tuple(windows[layer] for layer in range(len(windows)))
        return cls(plan["num_heads"], layers, sigmas)  # type: ignore[arg-type]  # checked in __post_init__

    def save(self, path: Path) -> None:
        """Write the plan as a JSON file."""
        path.write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a plan from a JSON file.

        Raises:
            ConfigError: There is no such file, it is no JSON, or it holds no plan that fits; it names the file.
        """
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ConfigError(
                f"The attention plan {path} cannot be read ({error.strerror}): check the path."
            ) from error
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        except ValueError as error:
            raise ConfigError(f"The attention plan {path} is no JSON: {error}.") from error


def checked_sigmas(sigmas: object) -> tuple[float, float]:
    """Return a range of noise levels as two numbers.

    Raises:
        ConfigError: It is no pair with 0 <= low <= high <= 1.
    """
    if isinstance(sigmas, tuple | list) and len(sigmas) == 2 and all(type(sigma) in (int, float) for sigma in sigmas):
        low, high = map(float, sigmas)
        if 0 <= low <= high <= 1:
            return low, high
    raise ConfigError(
        f"dense_sigmas={sigmas!r} must be the lowest and the highest noise level to keep dense, in [0, 1]: "
        "[0.8, 1.0] keeps the noisiest fifth dense, null keeps the windows always on."
    )


@functools.cache
def _log_fewer_heads(num_heads: int, num_orders: int) -> None:
    """Log, once for each pair of counts, that some axis orders have no head."""
    logger.info("%d heads take %d of the window's %d axis orders, at equal distances", num_heads, num_heads, num_orders)


def _mapping(
    what: str, values: object, required: tuple[str, ...], optional: tuple[str, ...] | None = ()
) -> Mapping[str, object]:
    """Return a JSON object after a check of its keys; `optional=None` allows any."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{what} must be a JSON object, got {values!r}.")
    if missing := [key for key in required if key not in values]:
        raise ConfigError(f"{what} needs '{missing[0]}', it has {', '.join(map(str, values)) or 'nothing'}.")
    known = (*required, *(optional or ()))
    if optional is not None and (unknown := [str(key) for key in values if key not in known]):
        raise ConfigError(f"{what} has no '{unknown[0]}'. Known: {', '.join(known)}.")
    return values


def _named(layers: tuple[int, ...] | list[int]) -> str:
    return f"layer{'s' if len(layers) > 1 else ''} {text_of_layers(layers)}"


def _density_texts(density: float) -> tuple[str, str]:
    return f"{density:.1%}", f"{1 / density:.1f}x"
