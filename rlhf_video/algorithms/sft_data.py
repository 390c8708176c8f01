"""Given clips of fine-tuning: found and measured before a model is loaded, then as latents with their prompts."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from rlhf_video.algorithms.clip_latents import ClipLatents
from rlhf_video.algorithms.clip_maker import clip_shape, video_shape
from rlhf_video.algorithms.config_sections import SamplingConfig
from rlhf_video.algorithms.sft_config import SftConfig
from rlhf_video.algorithms.world import World
from rlhf_video.attention import Grid
from rlhf_video.backbones import BackboneSpec, VideoShape
from rlhf_video.data import ClipSize, ListedClip, TokenBuckets, read_clip_list, video_size
from rlhf_video.data.buckets import shortened
from rlhf_video.errors import DataError
from rlhf_video.runtime import deck_batch


@dataclass(frozen=True)
class ClipFiles:
    """Listed clips that are all there and fit the model, with their sizes."""

    field: str
    """Config field that names the list, for messages."""
    clips: tuple[ListedClip, ...]
    sizes: tuple[ClipSize, ...]

    @classmethod
    def find(
        cls, path: Path, sampling: SamplingConfig, spec: BackboneSpec, *, field: str, mixed: bool = False
    ) -> "ClipFiles":
        """Read a list and the size of each of its clips; no model is needed and no picture is decoded.

        Args:
            path: As `read_clip_list` takes it.
            sampling: Size of the clips.
            spec: The model's strides.
            field: Config field that names the list, for messages.
            mixed: Whether clips may have any size the model takes, in place of the sampling size alone.

        Raises:
            DataError: The list does not fit, or clips are missing, cannot be decoded or do not fit in size; all of
                them are named.
            ConfigError: The sampling size does not fit the model.
        """
        clips = read_clip_list(path, field=field)
        missing = [f"'{clip.file}'" for clip in clips if not clip.file.is_file()]
        if missing:
            raise DataError(
                f"{field}: {len(missing)} of {len(clips)} clips are missing: {shortened(missing)}. Generate them "
                "again, or take them off the list."
            )
        files = cls(field, clips, _sizes(clips, field))
        spec.latent_shape(clip_shape(sampling, 1))
        if mixed:
            files._check_strides(spec)
        else:
            files._check_equal(sampling)
        return files

    def grids(self, spec: BackboneSpec) -> list[Grid]:
        """Return the transformer's tokens of each clip along frames, height and width."""
        return [spec.token_grid(video_shape(size)) for size in self.sizes]

    def _check_equal(self, size: SamplingConfig) -> None:
        wanted = ClipSize(size.num_frames, size.height, size.width)
        self._refuse(
            (
                f"'{clip.file}' has shape {_video_shape(found)}"
                for clip, found in zip(self.clips, self.sizes, strict=True)
                if found != wanted
            ),
            f"the sampling size is {_video_shape(wanted)} (frames, channels, height, width): make the clips and the "
            "section `sampling` agree, or set batch.token_budget to train on clips of mixed sizes",
        )

    def _check_strides(self, spec: BackboneSpec) -> None:
        fits = {size: fitting_size(size, spec) for size in set(self.sizes)}
        self._refuse(
            (
                f"'{clip.file}' has {size}, {f'{fits[size]} would fit' if fits[size] else 'it is too small'}"
                for clip, size in zip(self.clips, self.sizes, strict=True)
                if fits[size] != size
            ),
            f"{spec.model_class} takes {spec.temporal_stride}k + 1 frames and sides that are multiples of "
            f"{spec.spatial_stride * spec.patch_size[1]} (height) and {spec.spatial_stride * spec.patch_size[2]} "
            "(width): cut or resize these clips, or take them off the list",
        )

    def _refuse(self, unfit: Iterable[str], why: str) -> None:
        named = list(unfit)
        if named:
            raise DataError(
                f"{self.field}: {len(named)} of {len(self.clips)} clips do not fit: {shortened(named)}; {why}."
            )


def fitting_size(size: ClipSize, spec: BackboneSpec) -> ClipSize | None:
    """Return the largest size inside a clip that the model takes; None where the clip is too small for any.

    Args:
        size: Of the clip, at least one frame.
        spec: The model's strides.
    """
    frames = spec.num_latent_frames(size.num_frames) // spec.patch_size[0] * spec.patch_size[0]
    height, width = (
        side // (spec.spatial_stride * patch) * spec.spatial_stride * patch
        for side, patch in zip(size[1:], spec.patch_size[1:], strict=True)
    )
    return ClipSize(spec.num_frames(frames), height, width) if min(frames, height, width) > 0 else None


def clip_buckets(config: SftConfig, files: ClipFiles, spec: BackboneSpec) -> TokenBuckets | None:
    """Return the batches of clips of mixed sizes; None where all have the sampling size.

    Raises:
        ConfigError: A clip alone exceeds `batch.token_budget`.
    """
    if config.batch.token_budget is None:
        return None
    names = [f"'{clip.file}'" for clip in files.clips]
    return TokenBuckets(files.grids(spec), config.batch.token_budget, seed=config.seed, names=names)


def dealer(config: SftConfig, files: ClipFiles, buckets: TokenBuckets | None) -> Callable[[int], list[int]]:
    """Return step -> clips of that step's global batch, a pure function."""
    if buckets is not None:
        return buckets.batch
    count, seed = config.batch.global_clips, config.seed
    return lambda step: deck_batch(len(files.clips), count, step=step, seed=seed, name="clip order")


class EncodedClips:
    """Listed clips with their latents on disk."""

    def __init__(self, files: ClipFiles, world: World, folder: Path) -> None:
        """Hash the files and encode their prompts; no clip is encoded yet.

        Args:
            files: What to read.
            world: Its backbone encodes.
            folder: Where latents are kept.
        """
        self._latents = ClipLatents(
            [clip.file for clip in files.clips],
            files.sizes,
            backbone=world.backbone,
            distribution=world.distribution,
            folder=folder,
            field=files.field,
        )
        self._field = files.field
        self.prompts = tuple(clip.prompt for clip in files.clips)
        lines = "\n".join(f"{key}\t{prompt}" for key, prompt in zip(self._latents.keys, self.prompts, strict=True))
        self.sha256 = hashlib.sha256(lines.encode()).hexdigest()
        world.encode_prompts(self.prompts)

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.prompts)

    def check_apart(self, other: "EncodedClips") -> None:
        """Refuse files that are in both lists.

        Raises:
            DataError: Names one of them.
        """
        shared = set(self._latents.keys) & set(other._latents.keys)
        if shared:
            file = next(f for f, key in zip(self._latents.files, self._latents.keys, strict=True) if key in shared)
            raise DataError(
                f"{self._field} and {other._field} share {len(shared)} clips, for example '{file}': a loss on trained "
                "clips proves nothing, take them off one list."
            )

    def encode(self) -> None:
        """Encode what is not on disk yet; see `ClipLatents.encode`."""
        self._latents.encode()

    def latents(self, indices: Sequence[int]) -> Tensor:
        """Return clean latents of clips of one size; see `ClipLatents.latents`."""
        return self._latents.latents(indices)

    def shape(self, indices: Sequence[int]) -> VideoShape:
        """Return the size of a batch of clips of one size."""
        return self._latents.shape(indices)


def _sizes(clips: tuple[ListedClip, ...], field: str) -> tuple[ClipSize, ...]:
    """Return the size of each clip, or name all that cannot be read."""
    sizes, problems = [], []
    for clip in clips:
        try:
            sizes.append(video_size(clip.file))
        except DataError as error:
            problems.append(str(error).rstrip("."))
    if problems:
        raise DataError(f"{field}: {len(problems)} of {len(clips)} clips cannot be read: {shortened(problems)}.")
    return tuple(sizes)


def _video_shape(size: ClipSize) -> tuple[int, int, int, int]:
    return (size.num_frames, 3, size.height, size.width)
