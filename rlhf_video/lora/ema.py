"""Other values for the adapter's weights: their exponential moving average, or those of a frozen adapter."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from rlhf_video.errors import AdapterError, ConfigError


class Ema:
    """Keeps a slow copy of parameters: average = decay * average + (1 - decay) * parameter."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        """Start the average at the parameters' present values.

        Args:
            parameters: What is averaged; kept by reference.
            decay: In [0, 1); 0 follows the parameters exactly.

        Raises:
            ConfigError: decay is outside [0, 1).
        """
        if not 0 <= decay < 1:
            raise ConfigError(f"ema decay {decay} is not in [0, 1).")
        self._parameters = list(parameters)
        self._decay = decay
        self._average = [parameter.detach().clone() for parameter in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average one step towards the parameters."""
        for average, parameter in zip(self._average, self._parameters, strict=True):
            average.lerp_(parameter.detach(), 1 - self._decay)

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Put the average into the parameters; the trained values come back bit-equal at the end."""
        with _holding(self._parameters, self._average):
            yield


class FrozenAdapter:
    """Keeps the values that parameters have now, to run with them later while others are trained."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        """Copy the values.

        Args:
            parameters: The adapter's (shards under fsdp2); kept by reference.
        """
        self._parameters = list(parameters)
        self._values = [parameter.detach().clone() for parameter in self._parameters]

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Put the frozen values into the parameters; the trained ones come back bit-equal at the end.

        Backward never happens inside an adapter switch, and a forward pass before one cannot be back-propagated after
        it (autograd refuses): run the frozen adapter first.

        Raises:
            AdapterError: Gradients are being recorded.
        """
        if torch.is_grad_enabled():
            raise AdapterError(
                "A frozen adapter needs torch.no_grad(): backward never happens inside an adapter switch. Write "
                "`with torch.no_grad(), frozen.active(): ...`."
            )
        with _holding(self._parameters, self._values):
            yield


@contextlib.contextmanager
def _holding(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> Iterator[None]:
    """Put values into parameters; what was there comes back bit-equal at the end."""
    before = [parameter.detach().clone() for parameter in parameters]
    _write(parameters, values)
    try:
        yield
    finally:
        _write(parameters, before)


@torch.no_grad()
def _write(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
