"""What is computed once per prompt and reused over frames, clips and steps; threads may share it."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from rewards.errors import RewardError

ValueT = TypeVar("ValueT")


class PromptCache(Generic[ValueT]):
    """Values by prompt; the least recently used leaves first."""

    def __init__(self, size: int) -> None:
        """Start empty.

        Args:
            size: Values kept; 0 keeps none.

        Raises:
            RewardError: Negative size.
        """
        if size < 0:
            raise RewardError(f"cache_size must be 0 or more, got {size}.")
        self._size = size
        self._values: OrderedDict[str, ValueT] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        """Leave behind what cannot travel to another process."""
        return {key: value for key, value in vars(self).items() if key != "_lock"}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Come back with a lock of one's own."""
        vars(self).update(state)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many values are kept."""
        return len(self._values)

    def get(self, prompt: str, make: Callable[[str], ValueT]) -> ValueT:
        """Return the value of a prompt, made where it is not kept; two threads at once may both make it."""
        with self._lock:
            value = self._values.pop(prompt, None)
        if value is None:
            value = make(prompt)
        with self._lock:
            self._values[prompt] = value
            while len(self._values) > self._size:
                self._values.popitem(last=False)
        return value
