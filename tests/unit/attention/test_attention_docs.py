"""docs/attention.md: its pictures are drawn from masks, its numbers come from the planner, its examples load."""

import json
import re
from pathlib import Path

import pytest
import yaml

from rlhf_video.attention import (
    PRESETS,
    AttentionConfig,
    AttentionPlan,
    Band,
    Full,
    Grid,
    Local,
    Tile,
    WindowSpec,
    preset_plan,
)
from rlhf_video.attention.plan_text import text_of_layers, text_of_window
from rlhf_video.settings.building import build_config

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "attention.md").read_text(encoding="utf-8")
PICTURE_GRID, QUERY = Grid(3, 6, 12), (1, 2, 4)
PICTURES: dict[str, tuple[WindowSpec, int]] = {
    "full": (Full(), 0),
    "local, window 0 x 3 x 6": (Local((0, 3, 6)), 0),
    "local, window 0 x 3 x 6, shift 0 x 1 x 3": (Local((0, 3, 6), shift=(0, 1, 3)), 0),
    'band, chunk 1, halo 0.5, order "fhw"': (Band(), 0),
    'band, chunk 1, halo 0.5, order "whf"': (Band(), 5),
    "tile 1 x 2 x 2, box 3 x 3 x 3": (Tile((1, 2, 2), (3, 3, 3)), 0),
    "tile 1 x 1 x 2, box 3 x 3 x 3": (Tile((1, 1, 2), (3, 3, 3)), 0),
}
MODELS = {  # clip -> layers, heads, grid
    "Wan 1.3B, 480p, 81 frames": (30, 12, Grid(21, 30, 52)),
    "Wan 1.3B, 720p, 81 frames": (30, 12, Grid(21, 45, 80)),
    "CogVideoX 2B, 480p, 49 frames": (30, 30, Grid(13, 30, 45)),
    "sprite-wan, 64p, 21 frames": (6, 6, Grid(6, 4, 4)),
}


def picture(window: WindowSpec, order: int) -> str:
    """Return the frames side by side: Q the query, # a token it sees, . one it does not."""
    frame, row, column = QUERY
    query = (frame * PICTURE_GRID.height + row) * PICTURE_GRID.width + column
    marks = ["#" if seen else "." for seen in window.mask(PICTURE_GRID)[order, query]]
    marks[query] = "Q"
    width, size = PICTURE_GRID.width, PICTURE_GRID.frame_tokens
    return "\n".join(
        "   ".join("".join(marks[first + line : first + line + width]) for first in range(0, len(marks), size))
        for line in range(0, size, width)
    )


def preset_rows(name: str, clip: str) -> str:
    """Return a preset's row on one clip."""
    num_layers, num_heads, grid = MODELS[clip]
    plan = preset_plan(name, num_layers=num_layers, num_heads=num_heads, grid=grid)
    windows = "; ".join(
        f"{text_of_layers(layers)}: {text_of_window(window)}, {window.density(grid):.1%}"
        for window, layers in plan.layers_of_window.items()
        if not isinstance(window, Full)
    )
    density = plan.density(grid)
    return f"| `{name}` | {clip} | {windows} | {density:.1%} | {1 / density:.1f}x |"


def bound(grid: Grid, density: float) -> float:
    """Return how much faster one forward pass of Wan 1.3B can be: all but attention stays, per layer and token."""
    width, feed_forward, text = 1536, 8960, 512
    attention = 4 * grid.num_tokens * width
    rest = 12 * width**2 + 4 * text * width + 4 * width * feed_forward
    return (attention + rest) / (density * attention + rest)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_the_masks(name: str) -> None:
    assert f"{name}\n{picture(*PICTURES[name])}\n" in TEXT


@pytest.mark.parametrize("clip", MODELS)
@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "full"])
def test_rows_of_presets_are_what_the_planner_says(preset: str, clip: str) -> None:
    assert preset_rows(preset, clip) in TEXT.splitlines()


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "full"])
def test_bounds_of_the_whole_model_are_arithmetic(preset: str) -> None:
    cells = [f"`{preset}`"]
    for clip in ("Wan 1.3B, 480p, 81 frames", "Wan 1.3B, 720p, 81 frames"):
        num_layers, num_heads, grid = MODELS[clip]
        plan = preset_plan(preset, num_layers=num_layers, num_heads=num_heads, grid=grid)
        cells.append(f"{bound(grid, plan.density(grid)):.2f}x")
    assert f"| {' | '.join(cells)} |" in TEXT.splitlines()


def test_the_sections_of_configs_load() -> None:
    sections = re.findall(r"```yaml\n(attention:.*?)```", TEXT, flags=re.DOTALL)
    assert len(sections) >= 2
    for section in sections:
        build_config(AttentionConfig, yaml.safe_load(section)["attention"])


def test_the_plan_file_loads_and_is_what_a_plan_writes() -> None:
    (block,) = re.findall(r"```json\n(.*?)```", TEXT, flags=re.DOTALL)
    plan = AttentionPlan.from_json(json.loads(block))
    assert plan.to_json() == json.loads(block)
    assert plan.num_layers == 30
