"""What chance gives each clip of an optimiser step: its noise level, and whether its prompt is dropped."""

import torch
from torch import Tensor

from rlhf_video.algorithms.config_sections import NoiseLevelConfig
from rlhf_video.diffusion.sigmas import random_sigma, shift_sigma, sigma_quantiles
from rlhf_video.runtime import generator_for


def training_sigmas(
    config: NoiseLevelConfig, count: int, *, seed: int, step: int, shift: float, boundary: float | None
) -> Tensor:
    """Return the noise levels of a step, each fixed by seed, step and its place in the global batch alone.

    With two experts a step trains one of them, chosen as often as a free draw would fall to it: so a batch needs one
    transformer, on every process the same.

    Args:
        config: Distribution.
        count: Clips of the global batch.
        seed: The run's seed.
        step: Optimiser step.
        shift: Sigma shift.
        boundary: Noise level from which up the first expert is responsible; None for one transformer.

    Returns:
        Levels in [0, 1], shape (count,).
    """

    def draw(generator: torch.Generator) -> Tensor:
        free = random_sigma(generator, config.distribution, mean=config.mean, deviation=config.deviation)
        return shift_sigma(free, shift)

    is_high = boundary is not None and bool(draw(generator_for(seed, "expert", step)) >= boundary)
    levels = []
    for place in range(count):
        generator = generator_for(seed, "noise level", step, place)
        level = draw(generator)
        while boundary is not None and bool(level >= boundary) is not is_high:
            level = draw(generator)
        levels.append(level)
    return torch.stack(levels)


def trajectory_rows(sigmas: Tensor, count: int, *, seed: int, step: int, boundary: float | None) -> list[int]:
    """Return which state of its sampler's trajectory each clip of a step trains on; with two experts, of one of them.

    Args:
        sigmas: The sampler's levels, shape (num_steps + 1,); the last state, clean, is never chosen.
        count: Clips of the global batch.
        seed: The run's seed.
        step: Optimiser step.
        boundary: As for `training_sigmas`.
    """
    rows = list(range(len(sigmas) - 1))
    if boundary is not None:
        chosen = int(torch.randint(len(rows), (), generator=generator_for(seed, "expert", step)))
        is_high = bool(sigmas[chosen] >= boundary)
        rows = [row for row in rows if bool(sigmas[row] >= boundary) is is_high]
    return [
        rows[int(torch.randint(len(rows), (), generator=generator_for(seed, "trajectory", step, place)))]
        for place in range(count)
    ]


def measured_sigmas(config: NoiseLevelConfig, count: int, *, shift: float) -> Tensor:
    """Return the noise levels at which held-out clips are measured, shape (count,): the quantiles of training's."""
    return shift_sigma(sigma_quantiles(count, config.distribution, mean=config.mean, deviation=config.deviation), shift)


def dropped_prompts(share: float, count: int, *, seed: int, step: int) -> list[bool]:
    """Return which clips of a step train without their prompt."""
    return [
        float(torch.rand((), generator=generator_for(seed, "prompt dropout", step, place))) < share
        for place in range(count)
    ]
