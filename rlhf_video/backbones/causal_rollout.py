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
    """How often the model was called, and for how many latent frames; under guidance every call is two."""

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

    What is wrong with the arguments is said at once; chunks are made when they are asked for, and then the adapter
    that runs must be the one that ran here.

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
        cache_text: Project the text once per roll-out. Not with grad: text layers would get no gradient.
        count: Where calls are counted.

    Returns:
        Iterator over the clean latents of each chunk, shape (B, C, chunk, Hl, Wl).

    Raises:
        ConfigError: The backbone is not causal, the clip is shorter than a chunk, grad comes with cache_text, or
            exit_step is negative; later, that the adapter changed between chunks.
    """
    if grad and cache_text:
        raise ConfigError("roll_out(grad=True, cache_text=True): text layers would get no gradient; leave one out.")
    if exit_step is not None and exit_step < 0:
        raise ConfigError(f"exit_step={exit_step}: the first step is 0.")
    rollout = _Rollout(
        caches=_Caches(backbone, noise, cond, guidance, cache_text),
        noise=noise,
        plan=plan,
        fresh=fresh,
        config=config or RolloutConfig(),
        chunks=backbone.layout.chunks(backbone.latent_grid(noise).frames),
        exit_step=exit_step,
        grad=grad,
        count=count if count is not None else CallCount(),
    )
    return rollout.generate()


@dataclass(frozen=True, kw_only=True)
class _Rollout:
    """The arguments of `roll_out`."""

    caches: "_Caches"
    noise: Tensor
    plan: StepPlan
    fresh: FreshNoise
    config: RolloutConfig
    chunks: list[slice]
    exit_step: int | None
    grad: bool
    count: CallCount

    def generate(self) -> Iterator[Tensor]:
        for number, frames in enumerate(self.chunks):
            following = self.chunks[number + 1] if number + 1 < len(self.chunks) else None
            clean = self._denoise(number, frames, keep=following is not None and not self.config.recache)
            yield clean
            if following is None:
                return
            if self.config.recache:
                self._recache(number, frames, clean.detach())
            self.caches.remember(following.stop - following.start)

    def _denoise(self, number: int, frames: slice, *, keep: bool) -> Tensor:
        """Return a chunk's clean latents; `keep` records the keys and values of its last call."""
        latents, levels = self.noise[:, :, frames], self.plan.levels(number)
        if self.exit_step is not None:
            levels = levels[: self.exit_step + 1]
        for step, level in enumerate(levels):
            is_last = step + 1 == len(levels)
            with torch.set_grad_enabled(self.grad and is_last):
                predicted = self.caches.velocity(latents, level, record=keep and is_last)
                clean = latents - level * predicted
            self.count.denoising += self.caches.calls
            self.count.frames += self.caches.calls * latents.shape[2]
            if is_last:
                break
            following = levels[step + 1]
            if self.config.renoise == "ode":
                latents = latents + (following - level) * predicted
            else:
                latents = interpolate(clean, self.fresh(number, step + 1, frames), torch.tensor(following))
        return clean

    @torch.no_grad()
    def _recache(self, number: int, frames: slice, clean: Tensor) -> None:
        level, context = self.config.context_noise, clean
        if level:
            noise = self.fresh(number, len(self.plan.levels(number)), frames)
            context = interpolate(clean, noise, torch.tensor(level))
        self.caches.velocity(context, level, record=True)
        self.count.recaching += self.caches.calls
        self.count.frames += self.caches.calls * clean.shape[2]


class ForcedRollout:
    """A roll-out whose chunks are handed in from outside, for losses on given clips.

    Positions, window and sink are those of inference, at any length; the cache is detached.
    """

    def __init__(self, backbone: WanBackbone, latents: Tensor, cond: Conditioning) -> None:
        """Start with an empty past.

        Args:
            backbone: Causal, in the role that is trained.
            latents: The whole clip, shape (B, C, Fl, Hl, Wl); its size counts alone.
            cond: Encoded prompts.
        """
        self._side = _Side(backbone, backbone.latent_grid(latents), cond, cache_text=False)

    def velocity(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """Return the velocity of the next chunk, with gradient.

        Args:
            noised: Shape (B, C, chunk, Hl, Wl).
            sigma: Noise level of each clip, shape (B,).
        """
        return self._side.velocity(noised, sigma, record=False)

    @torch.no_grad()
    def remember(self, chunk: Tensor, level: float, *, next_chunk: int) -> None:
        """Make a chunk part of the past.

        Args:
            chunk: Shape (B, C, chunk, Hl, Wl), as noisy as `level` says.
            level: Noise level at which it is read.
            next_chunk: Frames of the chunk after it.
        """
        self._side.velocity(chunk, torch.tensor(level, device=chunk.device), record=True)
        self._side.remember(next_chunk)


class _Caches:
    """The model on what a roll-out remembers: one cache, or under guidance one for each of the two prompts."""

    def __init__(
        self, backbone: WanBackbone, noise: Tensor, cond: Conditioning, guidance: float, cache_text: bool
    ) -> None:
        grid = backbone.latent_grid(noise)
        self._guidance = guidance
        self._sides = [_Side(backbone, grid, cond, cache_text)]
        if guidance != 1.0:
            negative = Conditioning(cond.negative_embeds, cond.negative_embeds)
            self._sides.append(_Side(backbone, grid, negative, cache_text))

    @property
    def calls(self) -> int:
        """Forward passes of one velocity."""
        return len(self._sides)

    def velocity(self, latents: Tensor, level: float, *, record: bool) -> Tensor:
        sigma = torch.tensor(level, device=latents.device)
        velocities = [side.velocity(latents, sigma, record=record) for side in self._sides]
        if len(velocities) == 1:
            return velocities[0]
        conditional, unconditional = velocities
        return unconditional + self._guidance * (conditional - unconditional)

    def remember(self, next_chunk: int) -> None:
        for side in self._sides:
            side.remember(next_chunk)


class _Side:
    """One prompt of each clip with its cache."""

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
