"""What autograd holds for backward passes over time, where nothing else counts it: on a CPU."""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class LiveBytes:
    """Bytes of the storages that autograd holds for backward, each counted once: now, and at most so far.

    A block that is recomputed in its backward pass (gradient checkpointing) holds its inputs; what its recomputation
    holds for a moment is not seen.
    """

    def __init__(self, ignored: Iterable[Tensor]) -> None:
        """Start at zero.

        Args:
            ignored: Tensors that exist anyway and are not counted, such as parameters and buffers.
        """
        self._ignored = {tensor.untyped_storage().data_ptr() for tensor in ignored}
        self._holders, self._now, self.peak = Counter[int](), 0, 0

    def measure(self, call: Callable[[], object]) -> int:
        """Run something with its backward passes; return the most bytes that were held, over all calls."""
        with saved_tensors_hooks(self._pack, lambda holder: holder[0]):
            call()
        return self.peak

    def _pack(self, tensor: Tensor) -> "_Holder":
        storage = tensor.untyped_storage()
        pointer, size = storage.data_ptr(), storage.nbytes()
        holder = _Holder([tensor])
        if pointer not in self._ignored:
            self._now += size if self._holders[pointer] == 0 else 0
            self._holders[pointer] += 1
            weakref.finalize(holder, self._release, pointer, size)
            self.peak = max(self.peak, self._now)
        return holder

    def _release(self, pointer: int, size: int) -> None:
        self._holders[pointer] -= 1
        self._now -= size if self._holders[pointer] == 0 else 0


class _Holder(list[Tensor]):
    """A list that can be weakly referenced."""
