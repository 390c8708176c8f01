"""The clips of pairs: found and measured before a model is loaded, then as latents on disk."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from rlhf_video.algorithms.clip_latents import ClipLatents
from rlhf_video.algorithms.clip_maker import video_shape
from rlhf_video.algorithms.dpo_config import DpoConfig
from rlhf_video.algorithms.dpo_data import LabelledPair, LabelledPairs
from rlhf_video.algorithms.world import World
from rlhf_video.attention import Grid
from rlhf_video.backbones import BackboneSpec
from rlhf_video.data import ClipSize, TokenBuckets, video_size
from rlhf_video.data.buckets import shortened
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.preferences import ClipRecord
from rlhf_video.runtime import deck_batch

LATENTS = ".safetensors"
"""Ending of clips that are latents already: one tensor "latents", (channels, Fl, Hl, Wl), normalised."""


@dataclass(frozen=True)
class PairClips:
    """Pairs whose clips are all there and fit each other and the model."""

    labelled: LabelledPairs
    sizes: Mapping[str, ClipSize]
    """Path of a clip in its record -> size in pixels (of latents: of what they decode to)."""

    @classmethod
    def find(cls, labelled: LabelledPairs, config: DpoConfig, spec: BackboneSpec) -> "PairClips":
        """Read the size of every clip; no picture is decoded.

        Args:
            labelled: The pairs of one file, whose clips are there.
            config: Whether clips may have any size the model takes (`batch.token_budget`), or the sampling size alone.
            spec: The model's strides.

        Raises:
            DataError: Clips cannot be read, or do not fit each other or the model; all of them are named.
        """
        sizes, broken = {}, []
        for clip in {clip.path: clip for pair in labelled.pairs for clip in pair.clips}.values():
            try:
                sizes[clip.path] = _size(labelled.file(clip), spec)
            except DataError as error:
                broken.append(str(error))
        found = cls(labelled, sizes)
        found._refuse(broken, "write these clips again, or leave their pairs out")
        found._check_sizes(config, spec)
        return found

    def size(self, pair: LabelledPair) -> ClipSize:
        """Return the size of both clips of a pair."""
        return self.sizes[pair.chosen.path]

    def grids(self, spec: BackboneSpec) -> list[Grid]:
        """Return the transformer's tokens of a clip of each pair."""
        return [spec.token_grid(video_shape(self.size(pair))) for pair in self.labelled.pairs]

    def _check_sizes(self, config: DpoConfig, spec: BackboneSpec) -> None:
        pairs, sampling = self.labelled.pairs, config.sampling
        self._refuse(
            (
                f"'{p.chosen.path}' has {self.sizes[p.chosen.path]}, '{p.rejected.path}' {self.sizes[p.rejected.path]}"
                for p in pairs
                if self.sizes[p.chosen.path] != self.sizes[p.rejected.path]
            ),
            "both clips of a pair share noise, so they must be of one size and length: cut one, or leave the pairs out",
        )
        self._refuse(
            (
                f"a segment of '{pair.chosen.path}' ends at frame {stop} of {self.size(pair).num_frames}"
                for pair in pairs
                for _, stop in pair.stretches
                if stop > self.size(pair).num_frames
            ),
            "segments are [start, stop) in pixel frames: correct the labels",
        )
        wanted = ClipSize(sampling.num_frames, sampling.height, sampling.width)
        if config.batch.token_budget is None:
            self._refuse(
                (f"'{p.chosen.path}' has {self.size(p)}" for p in pairs if self.size(p) != wanted),
                f"the sampling size is {wanted}: make the clips and the section `sampling` agree, or set "
                "batch.token_budget to train on pairs of mixed sizes",
            )
        unfit = []
        for size in sorted(set(self.sizes.values())):
            try:
                spec.latent_shape(video_shape(size))
            except ConfigError as error:
                unfit.append(f"{size}: {error}")
        self._refuse(unfit, "cut or resize these clips, or leave their pairs out")

    def _refuse(self, unfit: Iterable[str], why: str) -> None:
        named = list(unfit)
        if named:
            field, path = self.labelled.field, self.labelled.store.path
            raise DataError(f"{field} '{path}': {len(named)} clips or pairs do not fit: {shortened(named)}; {why}.")


@dataclass(frozen=True)
class Deal:
    """Which pairs a step trains, and for the how-manieth time each."""

    visits: Callable[[int], list[tuple[int, int]]]
    """Step -> (index of a pair, number of its visit from 0) over the global batch; a pure function."""
    num_epochs: int
    """How often a pair is visited at most."""


def deal_pairs(config: DpoConfig, clips: PairClips, spec: BackboneSpec) -> Deal:
    """Return how pairs are dealt to steps: from a reshuffled deck, or by buckets of one size.

    Raises:
        ConfigError: A pair alone exceeds `batch.token_budget`.
    """
    total, size = len(clips.labelled), config.batch.global_pairs
    if config.batch.token_budget is None:

        def visits(step: int) -> list[tuple[int, int]]:
            order = deck_batch(total, size, step=step, seed=config.seed, name="pair order")
            return [(index, (step * size + place) // total) for place, index in enumerate(order)]

        return Deal(visits, -(-config.num_steps * size // total))
    shapes = [(2 * config.draws_per_pair, *grid) for grid in clips.grids(spec)]
    names = [f"'{pair.chosen.path}'" for pair in clips.labelled.pairs]
    buckets = TokenBuckets(shapes, config.batch.token_budget, seed=config.seed, names=names)
    epoch = buckets.num_batches
    return Deal(lambda step: [(i, step // epoch) for i in buckets.batch(step)], -(-config.num_steps // epoch))


class PairLatents:
    """Clean latents of the clips of pairs, by path; videos are encoded once, latents are read as they are."""

    def __init__(self, clips: PairClips, world: World, folder: Path) -> None:
        """Hash the files; nothing is encoded yet.

        Args:
            clips: What to read.
            world: Its backbone encodes.
            folder: Where latents of videos are kept.
        """
        self._clips, self._spec = clips, world.backbone.spec
        records = {clip.path: clip for pair in clips.labelled.pairs for clip in pair.clips}
        videos = [clip for clip in records.values() if not clip.path.endswith(LATENTS)]
        self._places = {clip.path: place for place, clip in enumerate(videos)}
        self._encoded = ClipLatents(
            [clips.labelled.file(clip) for clip in videos],
            [clips.sizes[clip.path] for clip in videos],
            backbone=world.backbone,
            distribution=world.distribution,
            folder=folder,
            field=clips.labelled.field,
        )

    def encode(self) -> None:
        """Encode what is not on disk yet; see `ClipLatents.encode`."""
        self._encoded.encode()

    def key(self, clip: ClipRecord) -> str:
        """Return a name that changes with whatever changes a clip's latents."""
        place = self._places.get(clip.path)
        return clip.sha256 if place is None else self._encoded.keys[place]

    def read(self, clip: ClipRecord) -> Tensor:
        """Return clean latents, shape (channels, Fl, Hl, Wl), float32.

        Raises:
            DataError: The file is missing or damaged.
        """
        place = self._places.get(clip.path)
        if place is not None:
            return self._encoded.latents([place])[0]
        file = self._clips.labelled.file(clip)
        try:
            with safe_open(file, framework="pt") as handle:
                latents: Tensor = handle.get_tensor("latents")
        except (SafetensorError, OSError) as error:
            raise DataError(f"Latents '{file}' cannot be read ({error}): write them again.") from error
        return latents.float()


def _size(file: Path, spec: BackboneSpec) -> ClipSize:
    """Return the size of a video, or of what latents decode to.

    Raises:
        DataError: The file cannot be read, or holds no latents of this model.
    """
    if file.suffix != LATENTS:
        return video_size(file)
    try:
        with safe_open(file, framework="pt") as handle:
            shape = tuple(handle.get_slice("latents").get_shape())
    except (SafetensorError, OSError) as error:
        raise DataError(f"Latents '{file}' cannot be read ({error})") from error
    if len(shape) != 4 or shape[0] != spec.latent_channels:
        raise DataError(
            f"Latents '{file}' have shape {shape}, this model's ({spec.latent_channels}, latent frames, latent height, "
            "latent width)"
        )
    return ClipSize(spec.num_frames(shape[1]), spec.spatial_stride * shape[2], spec.spatial_stride * shape[3])
