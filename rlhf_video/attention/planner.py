"""Windows that fit a grid: sizes are divisors of its axes, so nothing is padded, ragged or masked.

Padding is not small change: the grid of Wan at 480p, 21 x 30 x 52, padded to multiples of 4 has 49 % more pairs. A
prime axis (13 latent frames) is cut into single tokens or not at all. Every search is exhaustive and deterministic.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from rlhf_video.attention.band_window import Band
from rlhf_video.attention.box_windows import Local, Tile
from rlhf_video.attention.grid import AXIS_ORDERS, Grid
from rlhf_video.attention.plan_text import text_of_window
from rlhf_video.attention.window_spec import WindowSpec
from rlhf_video.errors import ConfigError

MIN_QUERIES, MAX_TILE = 192, 1024
"""Preferred number of queries that share keys: attention kernels compute blocks of 64 to 256 queries, so that a smaller
group leaves them idle; a larger tile only makes the window coarser."""
CLOSE, NEAR = 1.1, 1.5
"""Densities within the first factor of the target count as equal; beyond the second one a target is out of reach."""

WindowT = TypeVar("WindowT", bound=WindowSpec)


@dataclass(frozen=True)
class Choice(Generic[WindowT]):
    """A window that fits the grid, with what the planner weighs."""

    window: WindowT
    density: float
    """Share of all (query, key) pairs."""
    flaws: tuple[float, ...]
    """Compared in this order, less is better: what makes it slow, what makes it blind, how uneven it is."""


def check_density(density: float) -> None:
    """Refuse a density outside (0, 1].

    Raises:
        ConfigError: It is outside.
    """
    if not 0 < density <= 1:
        raise ConfigError(f"density={density} must be above 0 and at most 1: the share of all (query, key) pairs.")


def divisors(count: int) -> list[int]:
    """Return the divisors of a count, ascending."""
    return [size for size in range(1, count + 1) if count % size == 0]


def plan_tile(grid: Grid, density: float, *, boxes: Sequence[int] | None = None, strict: bool = True) -> Tile:
    """Return a sliding tile window with a density near the target.

    Among tiles whose density is within `CLOSE` of the target (failing that, within `NEAR`): 192 to 1024
    tokens first, then the fewest axes along which a tile sees no neighbour, then the most even share of the three axes.

    Args:
        grid: Video tokens along frames, height and width.
        density: Target share of all (query, key) pairs, in (0, 1].
        boxes: Numbers of tiles that a box may have along an axis; None: all odd ones, and all tiles of the axis.
        strict: Refuse a target that is out of reach; False takes the nearest.

    Returns:
        The window; an axis seen as a whole has tile 0, so that the window also fits a longer one.

    Raises:
        ConfigError: No tile comes within `NEAR` of the target; lists the nearest with their densities.
    """
    return _best(
        grid,
        density,
        list(divisor_tiles(grid, boxes=boxes)),
        f"tile of {_least_tile(grid)} or more tokens",
        strict=strict,
    )


def plan_local(grid: Grid, density: float, *, strict: bool = True) -> Local:
    """Return an unshifted local window with a density near the target.

    As `plan_tile`, but windows have no upper size; those that cannot be shifted by half along a cut axis come last.

    Raises:
        ConfigError: No window comes within `NEAR` of the target; lists the nearest with their densities.
    """
    return _best(grid, density, list(divisor_windows(grid)), "local window", strict=strict)


def plan_band(grid: Grid, density: float, *, strict: bool = True) -> Band:
    """Return EasyAnimate's six-direction band with chunks and halos for a target density; halo = chunk / 2.

    Raises:
        ConfigError: No chunk comes within `NEAR` of the target; lists the nearest with their densities.
    """
    return _best(grid, density, list(divisor_bands(grid)), "band", strict=strict)


def divisor_tiles(grid: Grid, *, boxes: Sequence[int] | None = None) -> Iterator[Choice[Tile]]:
    """Yield the tiles that divide a grid, with each of their boxes; arguments as for `plan_tile`.

    Tiles of less than a quarter of the preferred size are left out: they are many, and leave kernels idle.
    """
    least = _least_queries(grid)
    least_tile = _least_tile(grid)
    axes = [list(_tiles_of_axis(size, boxes)) for size in grid]
    for parts in itertools.product(*axes):
        tokens, share = math.prod(part.tile for part in parts), math.prod(part.share for part in parts)
        if tokens < least_tile:
            continue
        size = max(0.0, math.log(least / tokens), math.log(tokens / MAX_TILE))
        blind = sum(part.box == 1 and part.share < 1 for part in parts)
        tile = _triple(0 if part.share == 1 and part.box == 1 else part.tile for part in parts)
        window = Tile(tile, _triple(part.box for part in parts))
        yield Choice(window, share, (size, blind, _unevenness([part.share for part in parts])))


def divisor_windows(grid: Grid) -> Iterator[Choice[Local]]:
    """Yield the local windows that divide a grid, without shift."""
    least = _least_queries(grid)
    for sizes in itertools.product(*map(divisors, grid)):
        shares = [size / whole for size, whole in zip(sizes, grid, strict=True)]
        stuck = sum(size == 1 < whole for size, whole in zip(sizes, grid, strict=True))
        window = Local(_triple(0 if share == 1 else size for size, share in zip(sizes, shares, strict=True)))
        size = max(0.0, math.log(least / math.prod(sizes)))
        yield Choice(window, math.prod(shares), (stuck, size, _unevenness(shares)))


def divisor_bands(grid: Grid) -> Iterator[Choice[Band]]:
    """Yield the six-direction bands whose chunks divide a grid, halo = chunk / 2."""
    least = _least_queries(grid)
    for chunk in divisors(grid.num_tokens):
        window = Band(AXIS_ORDERS, chunk / grid.frame_tokens, chunk / 2 / grid.frame_tokens)
        _, _, num_keys = window.tokens(grid)
        yield Choice(window, num_keys / grid.num_tokens, (max(0.0, math.log(least / chunk)),))


@dataclass(frozen=True)
class _AxisTiles:
    """How one axis is cut: tokens of a tile, tiles of a box, share of the axis that a box covers."""

    tile: int
    box: int
    share: float


def _tiles_of_axis(size: int, boxes: Sequence[int] | None) -> Iterator[_AxisTiles]:
    for tile in divisors(size):
        count = size // tile
        fits = {box for box in (range(1, count, 2) if boxes is None else boxes) if box < count}
        if boxes is None or any(box >= count for box in boxes):
            fits.add(count)
        if tile == size:
            fits.add(1)  # one tile is the whole axis, whatever the box
        for box in sorted(fits):
            yield _AxisTiles(tile, box, tile * box / size)


def _least_queries(grid: Grid) -> int:
    """Return the smallest group of queries that is not penalised: less in clips so small that speed is no matter."""
    return min(MIN_QUERIES, max(1, grid.num_tokens // 32))


def _least_tile(grid: Grid) -> int:
    return math.ceil(_least_queries(grid) / 4)


def _unevenness(shares: Sequence[float]) -> float:
    return round(math.log(max(shares) / min(shares)), 6)


def _best(grid: Grid, density: float, choices: list[Choice[WindowT]], what: str, *, strict: bool) -> WindowT:
    """Return the choice with the fewest flaws among those close to the target density."""
    check_density(density)
    if density < 1:  # a window that covers the clip is no answer, unless the grid has no other
        choices = [choice for choice in choices if choice.density < 1] or choices

    def miss(choice: Choice[WindowT]) -> float:
        return round(abs(math.log(choice.density / density)), 6)

    def rank(choice: Choice[WindowT]) -> tuple[object, ...]:
        return (*choice.flaws, miss(choice), str(choice.window))

    for factor in (CLOSE, NEAR):
        if within := [choice for choice in choices if miss(choice) <= math.log(factor) + 1e-6]:
            return min(within, key=rank).window
    by_miss = sorted(choices, key=lambda choice: (miss(choice), rank(choice)))
    if not strict:
        return by_miss[0].window
    nearest: dict[float, Choice[WindowT]] = {}
    for choice in by_miss:
        nearest.setdefault(round(choice.density, 6), choice)
    listed = "; ".join(
        f"{share:.3g} ({text_of_window(choice.window)})" for share, choice in itertools.islice(nearest.items(), 4)
    )
    raise ConfigError(
        f"No {what} that divides the grid {grid} has a density within a factor {NEAR:g} of {density:g}. "
        f"Nearest densities: {listed}. Ask for one of these, or for another size of the clip."
    )


def _triple(values: Iterator[int]) -> tuple[int, int, int]:
    return cast("tuple[int, int, int]", tuple(values))
