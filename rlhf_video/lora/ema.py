"""Exponential moving average of the adapter's weights."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

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

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of the average by position, for a checkpoint."""
        return {f"{index:04d}": average.clone() for index, average in enumerate(self._average)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ConfigError: The number or a shape of the tensors differs.
        """
        if len(state) != len(self._average):
            raise ConfigError(f"EMA state has {len(state)} tensors, the adapter {len(self._average)}.")
        for average, value in zip(self._average, (state[key] for key in sorted(state)), strict=True):
            if average.shape != value.shape:
                raise ConfigError(f"EMA state has shape {tuple(value.shape)} where {tuple(average.shape)} is needed.")
            average.copy_(value)
