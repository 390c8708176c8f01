"""Latents on disk, one file a clip, so that each clip is encoded or generated once and a killed run goes on."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rlhf_video.data.files import write_atomic
from rlhf_video.errors import DataError

_NAME = "latents"


class LatentCache:
    """A folder of tensors by key; all processes of a run share it."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which appears with the first tensor."""
        self.folder = folder

    def __contains__(self, key: str) -> bool:
        """Return whether a tensor is there (files appear whole or not at all)."""
        return self._file(key).is_file()

    def write(self, key: str, value: Tensor) -> None:
        """Keep a tensor.

        Raises:
            OSError: The disk is full or cannot be written.
        """
        write_atomic(self._file(key), save({_NAME: value.detach().cpu().contiguous()}))

    def read(self, keys: Sequence[str]) -> Tensor:
        """Return tensors of one shape, joined along a new first axis.

        Raises:
            DataError: One is missing or damaged.
        """
        return torch.stack([self._load(key, None) for key in keys])

    def read_rows(self, keys: Sequence[str], rows: Sequence[int]) -> Tensor:
        """Return one row along the first axis of each tensor, joined along a new first axis; only those are read."""
        return torch.stack([self._load(key, row) for key, row in zip(keys, rows, strict=True)])

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _load(self, key: str, row: int | None) -> Tensor:
        try:
            with safe_open(self._file(key), framework="pt") as handle:
                value: Tensor = handle.get_tensor(_NAME) if row is None else handle.get_slice(_NAME)[row]
        except (SafetensorError, OSError) as error:
            raise DataError(
                f"Cached latents {self._file(key)} cannot be read ({error}): delete the file and resume."
            ) from error
        return value
