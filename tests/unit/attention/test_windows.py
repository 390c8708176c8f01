"""Windows: the spans that back-ends compute are the mask that defines them."""

import pytest
import torch

from rlhf_video.attention import Band, Full, Grid, Local, Text, Tile, WindowSpec, window_from_json
from rlhf_video.errors import ConfigError

GRID = Grid(4, 6, 8)
SPECS = [
    Full(),
    Local((2, 3, 4)),
    Local((0, 3, 0)),
    Local((2, 3, 4), shift=(1, 1, 2)),
    Local((4, 6, 8), shift=(2, 3, 4)),
    Band(),
    Band(orders=("fhw",), chunk=0.5, halo=0.25),
    Band(chunk=1.0, halo=0.5, sink_frames=1),
    Tile((1, 2, 2), (3, 3, 3)),
    Tile((2, 3, 2), (1, 2, 3)),
    Tile((1, 2, 2), (2, 9, 1)),
]


def mask_of_spans(spec: WindowSpec, grid: Grid) -> torch.Tensor:
    num_global = spec.num_global_frames * grid.frame_tokens
    mask = torch.zeros(spec.num_orders, grid.num_tokens, grid.num_tokens, dtype=torch.int)
    mask[:, :num_global] += 1
    mask[:, num_global:, :num_global] += 1
    for queries, keys in spec.spans(grid):
        for order in range(spec.num_orders):
            for query, key in zip(queries[..., order], keys[..., order], strict=True):
                mask[order, query[:, None], key[None]] += 1
    assert mask.max() == 1, "a pair is computed twice"
    return mask.bool()


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_spans_are_the_mask_and_density_counts_it(spec: WindowSpec) -> None:
    mask = spec.mask(GRID)
    assert torch.equal(mask_of_spans(spec, GRID), mask)
    assert spec.density(GRID) == pytest.approx(mask.float().mean().item(), abs=1e-6)
    assert spec.flops(GRID, num_heads=2, head_dim=8) == pytest.approx(4 * 2 * 8 * mask.sum().item() / len(mask))


def test_density_of_a_sliding_band_counts_its_mask() -> None:
    spec = Band(chunk=0, halo=0.5, sink_frames=1)
    assert spec.density(GRID) == pytest.approx(spec.mask(GRID).float().mean().item())


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_window_survives_json(spec: WindowSpec) -> None:
    assert window_from_json(spec.to_json()) == spec


def test_four_heads_take_orders_at_equal_distances() -> None:
    assert [Band().order_of_head(head, 4) for head in range(4)] == [0, 1, 3, 4]
    assert [Band().order_of_head(head, 12) for head in range(12)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


@pytest.mark.parametrize(
    ("spec", "choices"),
    [
        (Local((3, 3, 4)), "Sizes that fit: 1, 2, 4 "),
        (Tile((2, 4, 2), (3, 3, 3)), "Sizes that fit: 1, 2, 3, 6 "),
        (Band(chunk=0.7), "Nearest that fit: .*32 tokens"),
        (Band(sink_frames=4), "leaves nothing"),
    ],
)
def test_a_window_that_does_not_fit_lists_what_does(spec: WindowSpec, choices: str) -> None:
    with pytest.raises(ConfigError, match=choices):
        spec.mask(GRID)


def test_lists_and_whole_floats_of_a_json_file_make_the_same_windows() -> None:
    assert Local([2, 3, 4]) == Local((2, 3, 4))  # type: ignore[arg-type]
    assert hash(Band(orders=["fhw"], sink_frames=1.0)) == hash(Band(orders=("fhw",), sink_frames=1))  # type: ignore[arg-type]
    assert Band(sink_frames=1.0).density(GRID) == Band(sink_frames=1).density(GRID)  # type: ignore[arg-type]


def test_text_is_first_or_last() -> None:
    with pytest.raises(ConfigError, match="'first' or 'last'"):
        Text(5, "First")  # type: ignore[arg-type]
