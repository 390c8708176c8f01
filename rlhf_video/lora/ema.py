"""Exponential moving average of the adapter's weights."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from rlhf_video.errors import ConfigError


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
        trained = [parameter.detach().clone() for parameter in self._parameters]
        self._write(self._average)
        try:
            yield
        finally:
            self._write(trained)

    @torch.no_grad()
    def _write(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)
