"""Plans by name: which layers of a model are windowed, and how.

| preset | windowed layers | window | from |
|---|---|---|---|
| `full` | none | | |
| `hybrid_middle` | the middle half | band, six directions | EasyAnimate, arXiv:2405.18991 |
| `all_but_edges` | the middle three quarters | band, six directions | ours, EasyAnimate's with fewer dense layers |
| `local_shift` | all but first and last | local, every other one shifted by half | Video Swin, arXiv:2106.13230 |
| `tile3` | all | tile, 3 tiles along each axis | sliding tile attention, arXiv:2502.04507 |
"""

import difflib
import logging
from collections.abc import Callable
from typing import Literal, get_args

from rlhf_video.attention.band_window import Band
from rlhf_video.attention.box_windows import Local
from rlhf_video.attention.grid import Grid
from rlhf_video.attention.plan import AttentionPlan
from rlhf_video.attention.planner import check_density, plan_band, plan_local, plan_tile
from rlhf_video.attention.window_spec import WindowSpec
from rlhf_video.attention.windows import Full
from rlhf_video.errors import ConfigError

logger = logging.getLogger(__name__)

PresetName = Literal["full", "hybrid_middle", "all_but_edges", "local_shift", "tile3"]
PRESETS: tuple[PresetName, ...] = get_args(PresetName)

LOCAL_DENSITY = 1 / 6
"""Density of `local_shift`, ours: gentler than the band, since Swin windows retrofit worst (see `_local_shift`)."""
TILE_DENSITY = 0.2
"""Density of `tile3`, ours: what 3 tiles along each axis come to on Wan's grids (0.15 to 0.2)."""


def preset_plan(
    name: str, *, num_layers: int, num_heads: int, grid: Grid, density: float | None = None
) -> AttentionPlan:
    """Return the plan of a preset for one model and one grid.

    Models of any depth have at least one windowed layer, except under `full`.

    Args:
        name: One of `PRESETS`.
        num_layers: Self-attention layers of the model.
        num_heads: Heads of each.
        grid: Video tokens along frames, height and width; windows divide it.
        density: Target density of the windowed layers, in (0, 1]; None: the preset's own, or the nearest there is.

    Returns:
        The plan, checked against model and grid.

    Raises:
        ConfigError: The preset is unknown, takes no density, or has no window for this grid and density.
    """
    check_preset(name)
    if num_layers < 1:
        raise ConfigError(f"num_layers={num_layers} must be 1 or more.")
    if name == "full" and density is not None:
        raise ConfigError("The attention preset 'full' computes all pairs: leave density out, or take another preset.")
    if density is not None:
        check_density(density)
    layers = _MAKERS[name](num_layers, grid, density)
    plan = AttentionPlan(num_heads, layers)
    plan.check(num_layers=num_layers, num_heads=num_heads, grid=grid)
    if not plan.is_full and all(window.covers(grid) for window in plan.layers_of_window):
        logger.warning(
            "Attention preset '%s': its windows cover the whole clip of %s tokens, nothing is saved.", name, grid
        )
    return plan


def check_preset(name: str) -> None:
    """Refuse an unknown preset.

    Raises:
        ConfigError: Names the nearest and all.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise ConfigError(f"Unknown attention preset '{name}'.{hint} Known: {', '.join(PRESETS)}.")


def middle_layers(num_layers: int, num_windowed: int) -> range:
    """Return the windowed layers, in the middle; an odd dense layer goes to the front.

    EasyAnimate's ablation: windows in the first half cost most (FVD 460, in the middle 352, in the second half 354).
    """
    count = min(num_layers, max(1, num_windowed))
    first = (num_layers - count + 1) // 2
    return range(first, first + count)


def _full(num_layers: int, grid: Grid, density: float | None) -> tuple[WindowSpec, ...]:
    """Leave every layer as it is."""
    return (Full(),) * num_layers


def _hybrid_middle(num_layers: int, grid: Grid, density: float | None) -> tuple[WindowSpec, ...]:
    """Window the middle half, layers 12 to 35 of 48, as EasyAnimate (arXiv:2405.18991, ablation of the position).

    Its window of one frame to both sides has density 2 / frames: 10.5 times fewer pairs at Wan's 21 latent frames.
    """
    return _windowed(num_layers, middle_layers(num_layers, num_layers // 2), _band(grid, density))


def _all_but_edges(num_layers: int, grid: Grid, density: float | None) -> tuple[WindowSpec, ...]:
    """Window the middle three quarters: the first and the last eighth stay dense."""
    return _windowed(num_layers, middle_layers(num_layers, num_layers * 3 // 4), _band(grid, density))


def _band(grid: Grid, density: float | None) -> Band:
    return Band(chunk=1.0, halo=0.5) if density is None else plan_band(grid, density)


def _local_shift(num_layers: int, grid: Grid, density: float | None) -> tuple[WindowSpec, ...]:
    """Alternate plain and half-shifted windows between a dense first and a dense last layer.

    Hard windows in every layer retrofit badly: VBench 75.5 after fine-tuning, 82.7 dense (Swin in STA,
    arXiv:2502.04507). Sparse models keep their first layers dense for the same reason (SVG, arXiv:2502.01776).
    """
    plain = plan_local(grid, density or LOCAL_DENSITY, strict=density is not None)
    half = tuple(window // 2 if window < size else 0 for window, size in zip(plain.window, grid, strict=True))
    if not any(half):
        raise ConfigError(
            f"No local window of density {density or LOCAL_DENSITY:.3g} on the grid {grid} can be shifted by half (its "
            "cut axes are prime). Take 'tile3' or 'hybrid_middle', or another density or clip size."
        )
    shifted = Local(plain.window, shift=(half[0], half[1], half[2]))
    layers: list[WindowSpec] = [Full()] * num_layers
    for place, layer in enumerate(middle_layers(num_layers, num_layers - 2)):
        layers[layer] = shifted if place % 2 else plain
    return tuple(layers)


def _tile3(num_layers: int, grid: Grid, density: float | None) -> tuple[WindowSpec, ...]:
    """Give every layer a box of 3 tiles along each axis around each tile, as sliding tile attention does.

    Its dense layers are dense steps instead (12 of 50): set `dense_sigmas`.
    """
    return (plan_tile(grid, density or TILE_DENSITY, boxes=(3,), strict=density is not None),) * num_layers


def _windowed(num_layers: int, windowed: range, window: WindowSpec) -> tuple[WindowSpec, ...]:
    return tuple(window if layer in windowed else Full() for layer in range(num_layers))


_MAKERS: dict[str, Callable[[int, Grid, float | None], tuple[WindowSpec, ...]]] = {
    "full": _full,
    "hybrid_middle": _hybrid_middle,
    "all_but_edges": _all_but_edges,
    "local_shift": _local_shift,
    "tile3": _tile3,
}
