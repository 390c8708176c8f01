import mmap

import pytest
import torch

from rlhf_video.runtime import measure_peak, peak_memory

MEGABYTE = 2**20


def _fresh(megabytes: int) -> torch.Tensor:
    """Return memory that the allocator cannot have kept from an earlier test."""
    return torch.frombuffer(mmap.mmap(-1, megabytes * MEGABYTE), dtype=torch.uint8).fill_(1)


def test_the_peak_sees_memory_that_is_freed_again() -> None:
    with measure_peak() as measured:
        block = _fresh(100)
        del block
    assert 95 * MEGABYTE < measured.increase < 150 * MEGABYTE
    assert peak_memory("cpu") >= measured.peak


def test_a_later_small_block_has_a_smaller_peak() -> None:
    with measure_peak() as large:
        _fresh(200).sum()
    with measure_peak() as small:
        _fresh(50).sum()
    assert small.increase < large.increase


def test_the_peak_is_filled_when_the_block_fails() -> None:
    with pytest.raises(RuntimeError, match="boom"), measure_peak() as measured:  # noqa: PT012
        block = _fresh(100)
        raise RuntimeError(f"boom {block.numel()}")
    assert measured.increase > 90 * MEGABYTE


@pytest.mark.gpu
def test_the_cuda_peak_counts_tensors() -> None:
    with measure_peak("cuda") as measured:
        block = torch.ones(100 * MEGABYTE // 4, device="cuda")
        del block
    assert measured.increase == 100 * MEGABYTE
