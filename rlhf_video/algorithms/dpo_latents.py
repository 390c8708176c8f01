"""Clips of pairs as latents, and pairs as rows: what a forward pass takes."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rlhf_video.algorithms.dpo_data import NOBODY, LabelledPair, LabelledPairs
from rlhf_video.algorithms.dpo_rows import Draw, Group, Rows, expert_sides
from rlhf_video.algorithms.world import World
from rlhf_video.backbones import BackboneSpec
from rlhf_video.data import LatentCache, read_video
from rlhf_video.data.fingerprint import weights_fingerprint
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.preferences import ClipRecord

logger = logging.getLogger(__name__)

LATENTS = ".safetensors"
"""Ending of clips that are latents already."""


class EncodedPairs:
    """Pairs whose clips are on disk as latents; each content is encoded once, by one of the processes."""

    def __init__(self, pairs: LabelledPairs, world: World, folder: Path) -> None:
        """Name the latents; nothing is encoded yet.

        Args:
            pairs: The pairs of one file.
            world: Its backbone encodes.
            folder: Where latents are kept.
        """
        self.labelled, self._world, self._cache = pairs, world, LatentCache(folder)
        self._vae = weights_fingerprint(world.backbone.vae)
        self.num_segments = max(len(pair.preference) for pair in pairs.pairs)
        weights = [pair.weight for pair in pairs.pairs]
        self._mean_weight = sum(weights) / len(weights)
        world.encode_prompts(pairs.prompts)

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.labelled)

    @property
    def pairs(self) -> tuple[LabelledPair, ...]:
        """The pairs themselves."""
        return self.labelled.pairs

    def clip_key(self, clip: ClipRecord) -> str:
        """Return a name that changes with whatever changes a clip's latents."""
        return clip.sha256 if clip.path.endswith(LATENTS) else f"{self._vae}-{clip.sha256}"

    @torch.no_grad()
    def encode(self) -> None:
        """Encode what is not on disk yet, then compare the shapes of each pair; call it on every process.

        Raises:
            DataError: A clip cannot be decoded, or the two clips of a pair differ in size or length.
        """
        backbone, distribution = self._world.backbone, self._world.distribution
        clips = {self.clip_key(clip): clip for pair in self.pairs for clip in (pair.chosen, pair.rejected)}
        missing = [key for key, clip in clips.items() if not clip.path.endswith(LATENTS) and key not in self._cache]
        todo = distribution.broadcast_object(missing)
        for key in todo[distribution.rank :: distribution.num_processes]:
            video = read_video(self.labelled.file(clips[key]))[0]
            self._cache.write(key, backbone.encode(video[None])[0])
        distribution.barrier()
        logger.info("Latents of %d clips, %d of them encoded now", len(clips), len(todo))
        self._check_shapes()

    def rows(self, wanted: Sequence[tuple[int, int]], draw: Draw) -> Rows:
        """Return pairs at draws of noise, on the model's device.

        Args:
            wanted: (index of a pair, number of its draw) of each row.
            draw: How noise is drawn.
        """
        backbone, pairs = self._world.backbone, [self.pairs[index] for index, _ in wanted]
        chosen, rejected = ([self._latents(clip) for clip in clips] for clips in zip(*_clips(pairs), strict=True))
        drawn = [draw(p.key, n, x.shape) for p, (_, n), x in zip(pairs, wanted, chosen, strict=True)]
        sigma = torch.stack([level for level, _ in drawn]).float()
        sides = expert_sides(sigma, backbone.boundary_sigma)
        kinds = [(tuple(x.shape), side) for x, side in zip(chosen, sides, strict=True)]
        groups = []
        for kind in dict.fromkeys(kinds):
            places = [place for place, other in enumerate(kinds) if other == kind]
            spec, length, device = backbone.spec, kind[0][1], backbone.device
            clean = {
                name: torch.stack([latents[i] for i in places]).to(device)
                for name, latents in (("chosen", chosen), ("rejected", rejected))
            }
            groups.append(
                Group(
                    places,
                    {"chosen": clean["chosen"], "rejected": clean["rejected"]},
                    torch.stack([drawn[i][1] for i in places]).to(device),
                    sigma[places].to(device),
                    backbone.encode_prompts([pairs[i].prompt for i in places]),
                    torch.stack([self._membership(pairs[i], length, spec) for i in places]).to(device),
                )
            )
        return Rows(
            torch.tensor([index for index, _ in wanted]),
            torch.tensor([number for _, number in wanted]),
            sigma.to(backbone.device),
            torch.tensor([self._padded(pair.preference) for pair in pairs]).to(backbone.device),
            torch.tensor([pair.weight / self._mean_weight for pair in pairs]).to(backbone.device),
            tuple(groups),
        )

    def num_kinds(self) -> int:
        """Return how many forward passes a batch may need: shapes of latents, times experts."""
        shapes = {tuple(self._latents(pair.chosen).shape) for pair in self.pairs}
        return len(shapes) * (1 if self._world.backbone.boundary_sigma is None else 2)

    def _latents(self, clip: ClipRecord) -> Tensor:
        if clip.path.endswith(LATENTS):
            return _read_latents(self.labelled.file(clip), self._world.backbone.spec)
        return self._cache.read([self.clip_key(clip)])[0]

    def _membership(self, pair: LabelledPair, length: int, spec: BackboneSpec) -> Tensor:
        """Return how much of each latent frame belongs to each segment, shape (segments, Fl)."""
        rows = [latent_membership(stretch, length, spec) for stretch in pair.stretches] or [torch.ones(length)]
        empty = torch.zeros(length)
        return torch.stack([*rows, *([empty] * (self.num_segments - len(rows)))])

    def _padded(self, preference: Sequence[float]) -> list[float]:
        return [*preference, *([NOBODY] * (self.num_segments - len(preference)))]

    def _check_shapes(self) -> None:
        problems = []
        for pair in self.pairs:
            shapes = [tuple(self._latents(clip).shape) for clip in (pair.chosen, pair.rejected)]
            length = self._world.backbone.spec.num_frames(shapes[0][1])
            if shapes[0] != shapes[1]:
                problems.append(f"{pair.chosen.path} and {pair.rejected.path} have latents {shapes[0]} and {shapes[1]}")
            elif any(stop > length for _, stop in pair.stretches):
                problems.append(f"a segment of {pair.chosen.path} ends behind its {length} frames")
        if problems:
            raise DataError(
                f"{self.labelled.field}: {len(problems)} of {len(self)} pairs do not fit: {'; '.join(problems[:5])}. "
                "Both clips of a pair share noise, so they must be of one size and length: leave these pairs out."
            )


def latent_membership(stretch: tuple[int, int], length: int, spec: BackboneSpec) -> Tensor:
    """Return the share of each latent frame's pixel frames that lie in a stretch, shape (length,).

    Args:
        stretch: Pixel frames [start, stop).
        length: Latent frames of the clip.
        spec: Knows which pixel frames a latent frame stands for (Wan: the first one for 1, every other for 4).
    """
    shares = []
    for index in range(length):
        frames = spec.pixel_frames(slice(index, index + 1))
        inside = min(frames.stop, stretch[1]) - max(frames.start, stretch[0])
        shares.append(max(inside, 0) / (frames.stop - frames.start))
    return torch.tensor(shares)


def check_uniform_passes(pairs: Sequence[EncodedPairs], world: World) -> None:
    """Refuse what would let processes of a sharded model make different numbers of passes and wait for ever.

    Raises:
        ConfigError: The model is sharded, and clips differ in size or there are two experts.
    """
    kind = world.distribution.kind
    if kind in ("fsdp2", "deepspeed") and any(part.num_kinds() > 1 for part in pairs):
        raise ConfigError(
            f"Clips of several sizes, or a model of two experts, need as many forward passes on every process, which "
            f"{kind} cannot promise: use plain data-parallel processes, or clips of one size and one expert."
        )


def _clips(pairs: Sequence[LabelledPair]) -> list[tuple[ClipRecord, ClipRecord]]:
    return [(pair.chosen, pair.rejected) for pair in pairs]


def _read_latents(file: Path, spec: BackboneSpec) -> Tensor:
    """Read a clip that is latents already.

    Raises:
        DataError: It is no safetensors file with one tensor "latents" of the model's channels.
    """
    try:
        with safe_open(file, framework="pt") as handle:
            latents: Tensor = handle.get_tensor("latents").float()
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"Latents '{file}' cannot be read ({error}): write them again, or leave the pair out."
        ) from error
    if latents.ndim != 4 or latents.shape[0] != spec.latent_channels:
        raise DataError(
            f"Latents '{file}' have shape {tuple(latents.shape)}: this model's are ({spec.latent_channels}, latent "
            "frames, latent height, latent width)."
        )
    return latents
