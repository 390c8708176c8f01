"""The causal roll-out: chunk after chunk from noise, on a cache of the past (Self-Forcing, arXiv:2506.08009).

    for each chunk
        for each noise level s of its plan
            x0 <- z - s * velocity(z, s, c; cache)
            z  <- (1 - s') x0 + s' * fresh noise              s' the next level; "ode": z + (s' - s) * velocity
        emit x0
        cache <- cache + keys and values of x0 at the context's noise level

The same code samples and trains: with `grad` the last call of each chunk keeps its graph, the cache is always
detached, so that a chunk learns from its own frames alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from rlhf_video.attention import Grid
from rlhf_video.attention.causal import Recorder
from rlhf_video.backbones.base import Conditioning
from rlhf_video.backbones.causal_host import RolloutState
from rlhf_video.backbones.wan import WanBackbone
from rlhf_video.diffusion.flow import interpolate
from rlhf_video.diffusion.step_plan import StepPlan
from rlhf_video.errors import ConfigError

FreshNoise = Callable[[int, int, slice], Tensor]
"""(chunk, step, frames) -> standard normal noise of the chunk's shape, for re-noising before that step."""


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """How chunks are denoised and remembered."""

    renoise: Literal["sde", "ode"] = "sde"
    """Between steps: fresh noise on the clean estimate (Self-Forcing), or the straight line of the flow."""
    context_noise: float = 0.0
    """Noise level at which a finished chunk is read into the cache, in [0, 1): 0 is the clean chunk (Self-Forcing)."""
    recache: bool = True
    """Whether finished chunks are read once more for the cache; without, the keys of the last step stay (its input is
    noisy): one call a chunk less, a little worse (arXiv:2510.08431)."""

    def __post_init__(self) -> None:
        """Check the range."""
        if not 0 <= self.context_noise < 1:
            raise ConfigError(f"rollout.context_noise={self.context_noise} is not in [0, 1).")


@dataclass
class CallCount:
    """How often the model was called, and for how many latent frames."""

    denoising: int = 0
    recaching: int = 0
    frames: int = 0


def roll_out(
    backbone: WanBackbone,
    noise: Tensor,
    cond: Conditioning,
    plan: StepPlan,
    fresh: FreshNoise,
    *,
    config: RolloutConfig | None = None,
    guidance: float = 1.0,
    grad: bool = False,
    exit_step: int | None = None,
    cache_text: bool = False,
    count: CallCount | None = None,
) -> Iterator[Tensor]:
    """Generate a clip chunk by chunk.

    Args:
        backbone: Causal (`enable_causal`), in the role that makes the clip.
        noise: Standard normal latents of the whole clip, shape (B, C, Fl, Hl, Wl); its length may exceed any of the
            training's where the layout has a window.
        cond: Encoded prompts.
        plan: Noise levels of the chunks.
        fresh: Noise between steps; unused with "ode".
        config: How chunks are denoised and remembered.
        guidance: 1 runs one cache; another scale runs a second roll-out state for the unconditional model.
        grad: Keep the graph of each chunk's last call.
        exit_step: Stop each chunk at this call of its plan, or at its last where the plan is shorter; None runs all.
        cache_text: Project the text once per roll-out. Not while training: text layers would get no gradient.
        count: Where calls are counted.

    Yields:
        Clean latents of each chunk, shape (B, C, chunk, Hl, Wl).
    """
    config, count = config or RolloutConfig(), count if count is not None else CallCount()
    grid = backbone.latent_grid(noise)
    chunks = backbone.layout.chunks(grid.frames)
    sides = [_Side(backbone, grid, cond, cache_text)]
    if guidance != 1.0:
        sides.append(_Side(backbone, grid, Conditioning(cond.negative_embeds, cond.negative_embeds), cache_text))

    def velocity(latents: Tensor, level: float, *, record: bool) -> Tensor:
        sigma = torch.tensor(level, device=latents.device)
        both = [side.velocity(latents, sigma, record=record) for side in sides]
        return both[0] if len(both) == 1 else both[1] + guidance * (both[0] - both[1])

    for number, frames in enumerate(chunks):
        latents, levels = noise[:, :, frames], plan.levels(number)
        last = len(levels) - 1 if exit_step is None else min(exit_step, len(levels) - 1)
        is_followed = number + 1 < len(chunks)
        for step, level in enumerate(levels[: last + 1]):
            with torch.set_grad_enabled(grad and step == last):
                predicted = velocity(latents, level, record=is_followed and step == last and not config.recache)
                clean = latents - level * predicted
            count.denoising, count.frames = count.denoising + 1, count.frames + latents.shape[2]
            if step < last:
                following = levels[step + 1]
                if config.renoise == "ode":
                    latents = latents + (following - level) * predicted
                else:
                    latents = interpolate(clean, fresh(number, step + 1, frames), torch.tensor(following))
        yield clean
        if not is_followed:
            return
        if config.recache:
            with torch.no_grad():
                context = clean.detach()
                if config.context_noise:
                    level = config.context_noise
                    context = interpolate(context, fresh(number, len(levels), frames), torch.tensor(level))
                velocity(context, config.context_noise, record=True)
            count.recaching, count.frames = count.recaching + 1, count.frames + latents.shape[2]
        following_chunk = chunks[number + 1]
        for side in sides:
            side.remember(following_chunk.stop - following_chunk.start)


class _Side:
    """The conditional or the unconditional half of a guided roll-out."""

    def __init__(self, backbone: WanBackbone, grid: Grid, cond: Conditioning, cache_text: bool) -> None:
        self._backbone, self._cond, self._cache_text = backbone, cond, cache_text
        self._state: RolloutState = backbone.start_rollout(grid, cond)
        self._recorder = Recorder()

    def velocity(self, latents: Tensor, sigma: Tensor, *, record: bool) -> Tensor:
        text = Recorder() if self._cache_text and not self._state.text else None
        recorder = self._recorder if record else None
        grid = self._backbone.latent_grid(latents)
        context = self._backbone.next_chunk(self._state, grid, self._cond, recorder=recorder, text=text)
        predicted = self._backbone.velocity(latents, sigma, self._cond, context=context)
        if text is not None:
            self._state = replace(self._state, text=text.all_layers())
        return predicted

    def remember(self, next_chunk: int) -> None:
        cache = self._state.cache.extended(self._recorder.all_layers(), next_chunk=next_chunk)
        self._state, self._recorder = replace(self._state, cache=cache), Recorder()
