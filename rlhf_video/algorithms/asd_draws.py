"""What chance decides in one update of distillation: prompts, numbers of steps, noise and levels, by name alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlhf_video.algorithms.asd_config import AsdConfig
from rlhf_video.diffusion.flow import interpolate
from rlhf_video.diffusion.sigmas import shift_sigma
from rlhf_video.runtime import deck_batch, generator_for

if TYPE_CHECKING:
    from rlhf_video.algorithms.asd_setup import AsdParts


@dataclass(frozen=True)
class Batch:
    """Clips of one forward pass."""

    places: tuple[int, ...]
    """In the global batch; they name the noise."""
    prompts: tuple[str, ...]
    """One for each."""
    clips: tuple[int, ...]
    """Of the teacher's or the given clips, where they play real; else numbers of the prompts."""


def better_steps(trained: Sequence[int], num_steps: int) -> int | None:
    """Return the next larger trained number of steps, n + 1 where all are trained; None for the largest."""
    return min((count for count in trained if count > num_steps), default=None)


class Draws:
    """One update of the critics (a number) or of the student (None): the same on one process and on several."""

    def __init__(self, config: AsdConfig, parts: "AsdParts", step: int, update: int | None) -> None:
        self._config, self._parts = config, parts
        self._names: tuple[int | str, ...] = ("train", step, "student" if update is None else update)
        trained, adversarial = sorted(config.steps.trained), config.adversarial
        self.num_steps = trained[self._integer(len(trained), "number of steps", step)]
        """n: one for the critics and the student of a step."""
        longest = max(self.num_steps, config.steps.first_chunk or 0)
        self._exit = self._integer(longest, "exit", step) if config.steps.exit == "random" else None
        self.better: int | str | None = None
        """What plays real for the discriminator: more steps than n, "teacher" or "data"; None where nothing is."""
        if adversarial.weight > 0:
            own = adversarial.real == "student"
            self.better = better_steps(trained, self.num_steps) if own else adversarial.real
        prompts = parts.real_clips.prompts if parts.real_clips is not None else parts.world.suites.train.prompts
        count = config.batch.global_clips
        number = step * (config.fake.updates + 1) + (config.fake.updates if update is None else update)
        order = deck_batch(len(prompts), count, step=number, seed=config.seed)
        share = list(parts.learner.distribution.shard_indices(count))
        self.share = len(share)
        """Clips of this process."""
        self.batches = [
            Batch(tuple(places), tuple(prompts[order[p]] for p in places), tuple(order[p] for p in places))
            for places in config.batch.micro_batches(share)
        ]
        """Them in equal pieces."""

    def _integer(self, count: int, *names: int | str) -> int:
        return int(torch.randint(count, (), generator=generator_for(self._config.seed, *names)))

    def roll_out(self, batch: Batch, num_steps: int, *, grad: bool = False, name: str = "roll-out") -> Tensor:
        """Return the student's clean latents."""
        return self._parts.student.clips(
            batch.prompts, batch.places, num_steps, *self._names, name, grad=grad, exit_step=self._exit
        )

    def real(self, batch: Batch) -> Tensor | None:
        """Return what plays real, without a graph; None where the discriminator has nothing to compare."""
        if self.better is None:
            return None
        if self._parts.real_clips is not None:
            return self._parts.real_clips.latents(batch.clips)
        assert isinstance(self.better, int)
        # its own noise, as in ASD's algorithm 1; all of its steps
        return self._parts.student.clips(batch.prompts, batch.places, self.better, *self._names, "more steps")

    def noise(self, batch: Batch, *names: str) -> Tensor:
        """Return standard normal noise of the clips' shape."""
        return self._parts.world.maker.noise(batch.places, *self._names, *names)

    def levels(self, batch: Batch, name: str) -> Tensor:
        """Return a noise level for each clip: uniform, shifted, within the bounds of `matching`; shape (batch,)."""
        bounds = self._config.matching
        names = (*self._names, name, "level")  # of its own: the noise of the same name would begin with this number
        free = [torch.rand((), generator=generator_for(self._config.seed, *names, place)) for place in batch.places]
        shifted = shift_sigma(torch.stack(free), self._parts.world.shift)
        return shifted.clamp(bounds.min_sigma, bounds.max_sigma).to(self._parts.backbone.device)

    def noised(self, batch: Batch, real: Tensor, fake: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return (noised latents, levels) of both inputs of the discriminator."""
        settings = self._config.adversarial
        sigma, noise = self.levels(batch, "discriminator"), self.noise(batch, "discriminator")
        real_sigma = sigma if settings.shares_level else self.levels(batch, "discriminator, real")
        real_noise = noise if settings.shares_noise else self.noise(batch, "discriminator, real")
        return (interpolate(real, real_noise, real_sigma), real_sigma), (interpolate(fake, noise, sigma), sigma)

    def perturbations(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return standard normal noise for the penalties at the real and at the student's samples."""
        return self.noise(batch, "penalty, real"), self.noise(batch, "penalty, fake")
