"""Tensors by key, one file each: a clip is encoded or generated once, a killed run goes on, runs may share a folder."""

import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from rlhf_video.data.files import write_atomic
from rlhf_video.data.fingerprint import weights_fingerprint
from rlhf_video.data.video import ClipSize
from rlhf_video.errors import DataError

_NAME = "latents"
_CHECKSUM = "crc32"


def encoder_fingerprint(vae: nn.Module) -> str:
    """Return 24 hex digits that change with anything of an autoencoder that changes its latents.

    Args:
        vae: A diffusers autoencoder; its config holds the statistics that latents are normalised by.
    """
    config = cast(Any, vae).config
    facts = {name: value for name, value in config.items() if not name.startswith("_")}  # no paths, no versions
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
    return f"{weights_fingerprint(vae)}{digest[:12]}"


def latent_key(file_sha256: str, *, encoder: str, size: ClipSize, dtype: torch.dtype) -> str:
    """Return the name of a clip's latents: equal names have equal content, whoever wrote it.

    Args:
        file_sha256: Of the clip's file.
        encoder: From `encoder_fingerprint`.
        size: Pixels that were encoded.
        dtype: Precision of the autoencoder.
    """
    facts = json.dumps([file_sha256, encoder, list(size), str(dtype)])
    return hashlib.sha256(facts.encode()).hexdigest()


class LatentCache:
    """A folder of tensors by key; processes and runs that write the same key at once write the same file."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which appears with the first tensor."""
        self.folder = folder

    def __contains__(self, key: str) -> bool:
        """Return whether a tensor is there (files appear whole or not at all)."""
        return self._file(key).is_file()

    def is_whole(self, key: str) -> bool:
        """Return whether a tensor is there and is what was written; the whole file is read."""
        try:
            self._load(key, None)
        except DataError:
            return False
        return True

    def write(self, key: str, value: Tensor) -> None:
        """Keep a tensor, with its checksum.

        Raises:
            OSError: The disk is full or cannot be written.
        """
        value = value.detach().cpu().contiguous()
        write_atomic(self._file(key), save({_NAME: value}, metadata={_CHECKSUM: _checksum(value)}))

    def read(self, keys: Sequence[str]) -> Tensor:
        """Return tensors of one shape, joined along a new first axis.

        Raises:
            DataError: One is missing or damaged.
        """
        return torch.stack([self._load(key, None) for key in keys])

    def read_rows(self, keys: Sequence[str], rows: Sequence[int]) -> Tensor:
        """Return one row along the first axis of each tensor, joined along a new first axis; only those are read.

        Raises:
            DataError: One is missing or cannot be read; the checksum is of whole tensors and is not looked at.
        """
        return torch.stack([self._load(key, row) for key, row in zip(keys, rows, strict=True)])

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _load(self, key: str, row: int | None) -> Tensor:
        file = self._file(key)
        try:
            with safe_open(file, framework="pt") as handle:
                value: Tensor = handle.get_tensor(_NAME) if row is None else handle.get_slice(_NAME)[row]
                noted = handle.metadata()
        except (SafetensorError, OSError) as error:
            raise DataError(f"Cached latents {file} cannot be read ({error}): delete the file and resume.") from error
        if row is None and (noted is None or noted.get(_CHECKSUM) != _checksum(value)):
            raise DataError(
                f"Cached latents {file} cannot be read (their checksum is another): delete the file and resume."
            )
        return value


def _checksum(value: Tensor) -> str:
    return f"{zlib.crc32(value.contiguous().view(torch.uint8).numpy().data):08x}"
