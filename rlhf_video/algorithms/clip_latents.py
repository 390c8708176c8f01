"""Clip files as latents: each content is encoded once, by one of the processes, in a folder that runs may share."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rlhf_video.algorithms.clip_maker import video_shape
from rlhf_video.backbones import VideoBackbone, VideoShape
from rlhf_video.data import ClipSize, LatentCache, encoder_fingerprint, latent_key, read_video, sha256_file
from rlhf_video.errors import DataError
from rlhf_video.runtime import Distribution

logger = logging.getLogger(__name__)


class ClipLatents:
    """Latents of clip files; a file is known by its content: copies share an entry, a changed file has a new one."""

    def __init__(
        self,
        files: Sequence[Path],
        sizes: Sequence[ClipSize],
        *,
        backbone: VideoBackbone,
        distribution: Distribution,
        folder: Path,
        field: str,
    ) -> None:
        """Hash the files; nothing is encoded yet.

        Args:
            files: Clips, which exist.
            sizes: Of each, as `video_size` tells them.
            backbone: Encodes.
            distribution: The processes that share the work.
            folder: Where latents are kept.
            field: Config field that names the clips, for messages.
        """
        self.files, self.sizes = tuple(files), tuple(sizes)
        self._backbone, self._distribution, self._field = backbone, distribution, field
        self._cache = LatentCache(folder)
        encoder, dtype = encoder_fingerprint(backbone.vae), next(backbone.vae.parameters()).dtype
        self.keys = tuple(
            latent_key(sha256_file(file), encoder=encoder, size=size, dtype=dtype)
            for file, size in zip(files, sizes, strict=True)
        )

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.files)

    @torch.no_grad()
    def encode(self) -> None:
        """Encode what is missing or damaged, one clip at a time; call it on every process.

        Raises:
            DataError: A clip cannot be decoded, or has another size than its file says.
        """
        distribution = self._distribution
        numbers = {key: number for number, key in reversed(list(enumerate(self.keys)))}
        wanted = [number for key, number in numbers.items() if self._must_encode(key, number)]
        todo = sorted(number for part in distribution.gather_objects(wanted) for number in part)
        for number in todo[distribution.rank :: distribution.num_processes]:
            self._cache.write(self.keys[number], self._backbone.encode(self._read(number)[None])[0])
        distribution.barrier()
        logger.info("Latents of %d clips in %s, %d of them encoded now", len(self), self._cache.folder, len(todo))

    def shape(self, indices: Sequence[int]) -> VideoShape:
        """Return the size of a batch of clips that are all of one size."""
        (size,) = {self.sizes[index] for index in indices}
        return video_shape(size, len(indices))

    def latents(self, indices: Sequence[int]) -> Tensor:
        """Return clean latents of clips of one size, shape (len(indices), channels, Fl, Hl, Wl), on the model's device.

        Raises:
            DataError: An entry is missing or damaged; it names the file.
        """
        return self._cache.read([self.keys[index] for index in indices]).to(self._backbone.device)

    def _must_encode(self, key: str, number: int) -> bool:
        """Return whether an entry of this process's share is missing or damaged."""
        if number % self._distribution.num_processes != self._distribution.rank:
            return False
        if key in self._cache and not self._cache.is_whole(key):
            logger.warning("The cached latents of '%s' are damaged: encoding the clip again", self.files[number])
            return True
        return key not in self._cache

    def _read(self, number: int) -> Tensor:
        video, size = read_video(self.files[number])[0], self.sizes[number]
        if tuple(video.shape) != (size.num_frames, 3, size.height, size.width):
            raise DataError(
                f"{self._field}: '{self.files[number]}' decodes to {len(video)} frames of {video.shape[2]}x"
                f"{video.shape[3]}, its stream says {size}: the file is damaged or cut, write it again."
            )
        return video
