"""The reference of preference optimisation: a frozen model, and its errors, which need computing only once.

The reference's error on a clip depends on the pair and on the draw of noise alone. Where draws are fixed (their number
is `reference.fixed_draws`) the errors of all of them are computed before the first step and kept on disk under a hash
of all that they depend on: whatever changes (clips, prompt, model, adapter, attention plan, precision, seed, noise
levels) asks for another file. A kept error is the computed one bit for bit where both come from forward passes of as
many rows; otherwise matrix products round differently, by about 1e-7 of it.
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from rlhf_video.algorithms.dpo_config import DpoConfig
from rlhf_video.algorithms.dpo_data import LabelledPair
from rlhf_video.algorithms.dpo_loss import PairErrors
from rlhf_video.algorithms.dpo_pairs import EncodedPairs
from rlhf_video.algorithms.dpo_rows import Draw, Rows, pair_errors
from rlhf_video.algorithms.world import World
from rlhf_video.data import LatentCache
from rlhf_video.data.fingerprint import weights_fingerprint
from rlhf_video.lora import FrozenAdapter, adapter_off
from rlhf_video.settings import to_plain

logger = logging.getLogger(__name__)


class Reference:
    """The frozen model that gains are measured against."""

    def __init__(self, config: DpoConfig, world: World, frozen: FrozenAdapter | None) -> None:
        """Take the base, or the base with a frozen adapter.

        Args:
            config: The run.
            world: Its model.
            frozen: The reference's adapter; None for the base (into which a start adapter may be merged).
        """
        self._loss, self._backbone, self._frozen = config.loss, world.backbone, frozen

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Run as the reference; without gradient, and never between a forward pass and its backward pass."""
        switch: AbstractContextManager[None] = (
            adapter_off(self._backbone) if self._frozen is None else self._frozen.active()
        )
        with torch.no_grad(), switch:
            yield

    def errors(self, rows: Rows) -> PairErrors:
        """Return the reference's errors, computed now."""
        with self.active():
            return pair_errors(self._backbone, rows, self._loss)


class KnownReference:
    """A reference whose errors at the fixed draws are on disk."""

    def __init__(
        self,
        config: DpoConfig,
        world: World,
        reference: Reference,
        pairs: EncodedPairs,
        draw: Draw,
        *,
        num_epochs: int,
        fingerprint: str,
    ) -> None:
        """Compute what is not on disk yet, and read all; call it on every process.

        Args:
            config: The run; `reference.cache` and `reference.fixed_draws` are set.
            world: Its model.
            reference: Computes.
            pairs: What is trained on.
            draw: How noise is drawn.
            num_epochs: How often a pair is visited at most.
            fingerprint: Of the reference, from `reference_fingerprint`.
        """
        settings = config.reference
        assert settings.cache is not None and settings.fixed_draws is not None
        self._count = min(settings.fixed_draws, num_epochs * config.draws_per_pair)
        self._pairs, self._draw, self._world, self._reference = pairs, draw, world, reference
        self._cache = LatentCache(settings.cache)
        noise = [config.seed, to_plain(config.noise_levels), world.shift, config.loss.error, config.loss.reduction]
        self._facts = [fingerprint, noise]
        self._keys = [self._key(pair) for pair in pairs.pairs]
        self._fill(config.validation.batch)
        known = [self._read(key)[: self._count] for key in self._keys]
        self._errors = torch.stack(known).to(world.backbone.device)  # (pairs, draws, 2, segments)

    def errors(self, rows: Rows) -> PairErrors:
        """Return the reference's errors of rows of the fixed draws."""
        known = self._errors[rows.pairs.to(self._errors.device), rows.draws.to(self._errors.device)]
        return PairErrors(known[:, 0], known[:, 1])

    def _key(self, pair: LabelledPair) -> str:
        prompt = self._world.backbone.encode_prompts([pair.prompt]).prompt_embeds
        text = hashlib.sha256(prompt.float().cpu().numpy().tobytes()).hexdigest()
        clips = [self._pairs.key(clip) for clip in pair.clips]
        facts = [*self._facts, pair.key, text, clips, pair.stretches, self._pairs.num_segments]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _read(self, key: str) -> Tensor:
        return self._cache.read([key])[0]

    def _fill(self, batch: int) -> None:
        """Compute missing draws, pairs shared by the processes; every process makes as many forward passes."""
        distribution = self._world.distribution
        first = {key: index for index, key in reversed(list(enumerate(self._keys)))}
        known = {index: len(self._read(key)) if key in self._cache else 0 for key, index in first.items()}
        missing = {index: count for index, count in sorted(known.items()) if count < self._count}
        todo, start = distribution.broadcast_object((list(missing), min(missing.values(), default=0)))
        padded = len(todo) + -len(todo) % distribution.num_processes
        for place in distribution.shard_indices(padded):
            index = todo[place % len(todo)]
            earlier = [self._read(self._keys[index])[:start]] if start > 0 else []
            self._cache.write(self._keys[index], torch.cat([*earlier, self._of_pair(index, start, batch)]))
        distribution.barrier()
        text = "Reference errors of %d pairs at %d draws; computed now: draws %d and later of %d pairs"
        logger.info(text, len(self._keys), self._count, start, len(todo))

    def _of_pair(self, index: int, start: int, batch: int) -> Tensor:
        """Return one pair's errors from a draw on, shape (draws, 2, segments), on the CPU."""
        parts = []
        for first in range(start, self._count, batch):
            draws = range(first, min(first + batch, self._count))
            rows = self._pairs.rows([(index, number) for number in draws], self._draw)
            parts.append(torch.stack(self._reference.errors(rows), dim=1).cpu())
        return torch.cat(parts)


def reference_fingerprint(config: DpoConfig, world: World, adapter_sha256: str | None) -> str:
    """Return a hash of the frozen model, before an adapter is attached to it.

    Args:
        config: The run.
        world: Its model, a start adapter merged where there is one to merge.
        adapter_sha256: Of the reference's own adapter; None for the base.
    """
    backbone = world.backbone
    weights = [weights_fingerprint(module) for module in backbone.transformers.values()]
    facts = [weights, config.precision, backbone.attention_record(), adapter_sha256]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()
