"""Given clips as latents: each file is encoded once per run directory, by one of the processes."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rlhf_video.algorithms.world import World
from rlhf_video.data import LatentCache, ListedClip, read_clip_list, sha256_file
from rlhf_video.data.fingerprint import weights_fingerprint
from rlhf_video.errors import DataError

logger = logging.getLogger(__name__)


class EncodedClips:
    """Listed clips with their latents on disk; a file is known by its content."""

    def __init__(self, clips: Sequence[ListedClip], world: World, folder: Path, *, field: str) -> None:
        """Check that every file is there and that the first one fits; nothing is encoded yet.

        Args:
            clips: What to read.
            world: Its backbone encodes, its sampling size is what clips must have.
            folder: Where latents are kept.
            field: Config field that names the list, for messages.

        Raises:
            DataError: A file is missing, or the first one cannot be decoded or has another size.
        """
        self._clips, self._world, self._cache, self._field = tuple(clips), world, LatentCache(folder), field
        missing = [clip.file for clip in clips if not clip.file.is_file()]
        if missing:
            raise DataError(
                f"{field}: {len(missing)} of {len(clips)} clips are missing, first '{missing[0]}': generate them "
                "again, or take them off the list."
            )
        clips[0].read(self._size(), field=field)
        # A killed run may be started again with another autoencoder: its latents must not be taken for this one's.
        vae = weights_fingerprint(world.backbone.vae)
        self._keys = tuple(f"{vae}-{sha256_file(clip.file)}" for clip in clips)
        self.prompts = tuple(clip.prompt for clip in clips)
        lines = "\n".join(f"{key}\t{clip.prompt}" for key, clip in zip(self._keys, clips, strict=True))
        self.sha256 = hashlib.sha256(lines.encode()).hexdigest()
        world.encode_prompts(self.prompts)

    @classmethod
    def open(cls, path: Path, world: World, folder: Path, *, field: str) -> "EncodedClips":
        """Read a list of clips; arguments and errors as above and as `read_clip_list`."""
        return cls(read_clip_list(path, field=field), world, folder, field=field)

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self._clips)

    def check_apart(self, other: "EncodedClips") -> None:
        """Refuse files that are in both lists.

        Raises:
            DataError: Names one of them.
        """
        shared = set(self._keys) & set(other._keys)
        if shared:
            file = next(clip.file for clip, key in zip(self._clips, self._keys, strict=True) if key in shared)
            raise DataError(
                f"{self._field} and {other._field} share {len(shared)} clips, for example '{file}': a loss on trained "
                "clips proves nothing, take them off one list."
            )

    @torch.no_grad()
    def encode(self) -> None:
        """Encode what is not on disk yet, one clip at a time; call it on every process.

        Raises:
            DataError: A clip cannot be decoded or has another size.
        """
        backbone, distribution = self._world.backbone, self._world.distribution
        todo = distribution.broadcast_object(
            [n for n, key in enumerate(self._keys) if key not in self._cache and self._keys.index(key) == n]
        )
        for number in todo[distribution.rank :: distribution.num_processes]:
            video = self._clips[number].read(self._size(), field=self._field)
            self._cache.write(self._keys[number], backbone.encode(video[None])[0])
        distribution.barrier()
        logger.info("Latents of %d clips, %d of them encoded now", len(self), len(todo))

    def latents(self, indices: Sequence[int]) -> Tensor:
        """Return clean latents, shape (len(indices), channels, Fl, Hl, Wl), on the model's device."""
        return self._cache.read([self._keys[index] for index in indices]).to(self._world.backbone.device)

    def _size(self) -> tuple[int, int, int, int]:
        size = self._world.config.sampling
        return (size.num_frames, 3, size.height, size.width)
