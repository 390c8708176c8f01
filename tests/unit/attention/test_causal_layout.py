"""Which frames a chunk sees: compared with a list that is walked through as a roll-out walks."""

import itertools

import pytest
import torch
from torch import Tensor

from rlhf_video.attention.causal_layout import CausalLayout, token_mask
from rlhf_video.errors import ConfigError

LAYOUTS = [
    CausalLayout(chunk_frames=chunk, window_frames=window, sink_frames=sink)
    for chunk, window, sink in itertools.product((1, 2, 3), (None, 4, 5, 9), (0, 1, 2, 3))
    if window is None or window >= chunk + sink
]


def walked(layout: CausalLayout, num_frames: int) -> Tensor:
    """Return who sees whom, by throwing out the oldest frame behind the sink until a chunk finds room."""
    seen = torch.zeros(num_frames, num_frames, dtype=torch.bool)
    window: list[int] = []
    for start in range(0, num_frames, layout.chunk_frames):
        chunk = list(range(start, min(start + layout.chunk_frames, num_frames)))
        while layout.window_frames is not None and len(window) + len(chunk) > layout.window_frames:
            window.pop(layout.sink_frames)
        window += chunk
        for frame in chunk:
            seen[frame, window] = True
    return seen


@pytest.mark.parametrize("num_frames", [3, 6, 7, 11])
def test_a_frame_sees_what_a_rolling_window_leaves(num_frames: int) -> None:
    for layout in LAYOUTS:
        assert torch.equal(layout.visible(num_frames), walked(layout, num_frames)), layout


def test_a_window_as_long_as_the_clip_is_all_of_the_past() -> None:
    whole = CausalLayout(chunk_frames=2).visible(6)
    for window in (6, 7, 100):
        for sink in (0, 2):
            layout = CausalLayout(chunk_frames=2, window_frames=window, sink_frames=sink)
            assert torch.equal(layout.visible(6), whole)
    assert not torch.equal(CausalLayout(chunk_frames=2, window_frames=4).visible(6), whole)


def test_no_frame_sees_a_later_chunk_or_more_than_the_window() -> None:
    for layout in LAYOUTS:
        seen = layout.visible(11)
        chunk = torch.arange(11) // layout.chunk_frames
        assert not (seen & (chunk[None] > chunk[:, None])).any()
        assert bool(seen[chunk[:, None] == chunk[None]].all())
        assert int(seen.sum(1).max()) <= (layout.window_frames or 11)
        assert bool(seen[:, : layout.sink_frames][chunk >= chunk[max(layout.sink_frames - 1, 0)]].all())


def test_one_chunk_over_the_clip_sees_everything() -> None:
    assert bool(CausalLayout(chunk_frames=6).visible(6).all())


def test_the_last_chunk_may_be_shorter() -> None:
    layout = CausalLayout(chunk_frames=3, window_frames=4)
    assert layout.chunks(7) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert layout.visible(7)[6].tolist() == [False] * 3 + [True] * 4  # a short chunk leaves more room for the past


def test_a_noised_chunk_sees_itself_and_the_clean_past() -> None:
    for layout in LAYOUTS:
        clean = layout.visible(7)
        both = layout.visible_after_clean(7)
        assert torch.equal(both[:7, :7], clean)
        assert not both[:7, 7:].any()
        chunk = torch.arange(7) // layout.chunk_frames
        own = chunk[:, None] == chunk[None]
        assert torch.equal(both[7:, 7:], own)
        assert torch.equal(both[7:, :7] | own, clean)
        assert not (both[7:, :7] & own).any()


def test_a_mask_of_frames_becomes_one_of_tokens() -> None:
    frames = torch.tensor([[True, False], [True, True]])
    block = torch.ones(3, 3, dtype=torch.bool)
    assert torch.equal(token_mask(frames, 3), torch.kron(frames.int(), block.int()).bool())


@pytest.mark.parametrize(
    ("chunk", "window", "sink", "message"),
    [
        (3, 2, 0, r"window_frames=2 is shorter than a chunk of 3 .* use at least 3"),
        (2, 4, 3, r"chunk of 2 and a sink of 3 frames: use at least 5"),
        (0, None, 0, r"chunk_frames=0 must be at least 1"),
        (2, None, -1, r"sink_frames=-1 at least 0"),
    ],
)
def test_a_layout_without_room_is_refused(chunk: int, window: int | None, sink: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CausalLayout(chunk_frames=chunk, window_frames=window, sink_frames=sink)


def test_a_clip_shorter_than_a_chunk_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"2 latent frames is shorter than a chunk of 3.*at most 2"):
        CausalLayout(chunk_frames=3).visible(2)
