"""Pairs as rows: latents, noise, prompts and labels of what one forward pass takes."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rlhf_video.algorithms.dpo_clips import PairClips, PairLatents
from rlhf_video.algorithms.dpo_data import NOBODY, LabelledPair
from rlhf_video.algorithms.dpo_rows import Draw, Group, Rows
from rlhf_video.algorithms.world import World
from rlhf_video.backbones import BackboneSpec
from rlhf_video.errors import ConfigError
from rlhf_video.preferences import ClipRecord


class EncodedPairs:
    """Pairs with their clips as latents on disk."""

    def __init__(self, clips: PairClips, world: World, folder: Path) -> None:
        """Hash the clips and encode the prompts; no clip is encoded yet.

        Args:
            clips: The pairs of one file.
            world: Its backbone encodes.
            folder: Where latents are kept.
        """
        self.clips, self._world = clips, world
        self._latents = PairLatents(clips, world, folder)
        self.num_segments = max(len(pair.preference) for pair in self.pairs)
        weights = [pair.weight for pair in self.pairs]
        self._mean_weight = sum(weights) / len(weights)
        world.encode_prompts(clips.labelled.prompts)

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pairs)

    @property
    def pairs(self) -> tuple[LabelledPair, ...]:
        """The pairs themselves."""
        return self.clips.labelled.pairs

    @property
    def sha256(self) -> str:
        """Return a hash of labels, prompts and the clips' contents."""
        keys = [self.key(clip) for pair in self.pairs for clip in pair.clips]
        return hashlib.sha256("\n".join([self.clips.labelled.sha256, *keys]).encode()).hexdigest()

    def key(self, clip: ClipRecord) -> str:
        """Return a name that changes with whatever changes a clip's latents."""
        return self._latents.key(clip)

    def encode(self) -> None:
        """Encode what is not on disk yet; call it on every process."""
        self._latents.encode()

    def num_kinds(self) -> int:
        """Return how many forward passes a batch may need: sizes of clips, times experts."""
        experts = 1 if self._world.backbone.boundary_sigma is None else 2
        return len(set(self.clips.sizes.values())) * experts

    def rows(self, wanted: Sequence[tuple[int, int]], draw: Draw) -> Rows:
        """Return pairs at draws of noise, on the model's device.

        Args:
            wanted: (index of a pair, number of its draw) of each row.
            draw: How noise is drawn.
        """
        backbone, pairs = self._world.backbone, [self.pairs[index] for index, _ in wanted]
        chosen = [self._latents.read(pair.chosen) for pair in pairs]
        rejected = [self._latents.read(pair.rejected) for pair in pairs]
        drawn = [draw(p.key, number, x.shape) for p, (_, number), x in zip(pairs, wanted, chosen, strict=True)]
        sigma = torch.stack([level for level, _ in drawn]).float()
        boundary = backbone.boundary_sigma
        kinds = [(tuple(x.shape), boundary is None or bool(s >= boundary)) for x, s in zip(chosen, sigma, strict=True)]

        def group(places: list[int]) -> Group:
            length, device = chosen[places[0]].shape[1], backbone.device
            return Group(
                places,
                torch.stack([chosen[place] for place in places]).to(device),
                torch.stack([rejected[place] for place in places]).to(device),
                torch.stack([drawn[place][1] for place in places]).to(device),
                sigma[places].to(device),
                self._world.condition([pairs[place].prompt for place in places], [False] * len(places)),
                torch.stack([self._membership(pairs[place], length) for place in places]).to(device),
            )

        return Rows(
            torch.tensor([index for index, _ in wanted]),
            torch.tensor([number for _, number in wanted]),
            sigma.to(backbone.device),
            torch.tensor([self.padded(pair.preference) for pair in pairs]).to(backbone.device),
            torch.tensor([self.bad(pair) for pair in pairs]).to(backbone.device),
            torch.tensor([pair.weight / self._mean_weight for pair in pairs]).to(backbone.device),
            tuple(group([i for i, other in enumerate(kinds) if other == kind]) for kind in dict.fromkeys(kinds)),
        )

    def _membership(self, pair: LabelledPair, length: int) -> Tensor:
        """Return how much of each latent frame belongs to each segment, shape (segments, Fl)."""
        spec = self._world.backbone.spec
        rows = [latent_membership(stretch, length, spec) for stretch in pair.stretches] or [torch.ones(length)]
        return torch.stack([*rows, *([torch.zeros(length)] * (self.num_segments - len(rows)))])

    def padded(self, preference: Sequence[float]) -> list[float]:
        """Return one number for each segment of the widest pair, NaN behind the last one."""
        return [*preference, *([NOBODY] * (self.num_segments - len(preference)))]

    def bad(self, pair: LabelledPair) -> list[bool]:
        """Return which segments of the widest pair show two bad clips."""
        return [number in pair.both_bad for number in range(self.num_segments)]


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
