"""How long a clip takes to make: from clips that are there, or from one denoising step of a probe."""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from rlhf_video.algorithms.generate import MANIFEST, GenerateConfig, attention_plan, clip_shape, load_generator
from rlhf_video.algorithms.generate_causal import causal_latents, clip_guidance, clip_recipe
from rlhf_video.attention import AttentionPlan
from rlhf_video.backbones import VideoBackbone
from rlhf_video.backbones.causal_recipe import CausalRecipe
from rlhf_video.data import load_prompts
from rlhf_video.diffusion.samplers import sample
from rlhf_video.diffusion.sigmas import flow_sigmas

_LEAST_GAPS = 2  # between batches: of one, nobody knows whether it held a pause
_WARM = 1.0  # seconds; a first call below this is repeated, since it holds what happens once


@dataclass(frozen=True)
class Pace:
    """Seconds for a clip, and where they come from."""

    seconds: float
    source: str


def recorded_pace(config: GenerateConfig) -> Pace | None:
    """Return the pace at which the clips that are there were written, by the times of their files.

    Median over whole batches, so that pauses between calls do not count. Times of files that were copied are those of
    the copying.

    Returns:
        None where fewer than three whole batches are there.
    """
    manifest = config.output_dir / MANIFEST
    if not manifest.is_file():
        return None
    files = [config.output_dir / clip["file"] for clip in json.loads(manifest.read_text())["clips"]]
    times = [file.stat().st_mtime for file in files if file.is_file()]
    size = config.batch_size
    ends = [max(times[first : first + size]) for first in range(0, len(times) - size + 1, size)]
    gaps = [after - before for before, after in pairwise(ends) if after > before]
    if len(gaps) < _LEAST_GAPS:
        return None
    return Pace(statistics.median(gaps) / size, f"times of the {len(times)} files that are there")


@torch.no_grad()
def probed_pace(config: GenerateConfig, *, budget_s: float = 20.0) -> Pace:
    """Return the pace that one denoising step and one decoding foretell; loads the model and writes nothing.

    Clips of few frames come first. Where the whole clip would take longer than the budget, its step is extrapolated: by
    a line and a square in the number of latent frames through two sizes (attention is the square), or by length alone
    through one, which is a lower bound.

    Args:
        config: What would be generated.
        budget_s: Seconds for one step beyond which clips of the size asked for are not tried, > 0.

    Raises:
        BackboneError: The model folder does not fit.
        AdapterError: The adapter does not fit.
        ConfigError: The sizes do not fit the model.
    """
    plan, recipe = attention_plan(config), clip_recipe(config)
    if recipe is not None:
        return _causal_pace(config, recipe, load_generator(config, plan))
    probe = _Probe(config, load_generator(config, plan), plan)
    whole = probe.num_latent
    steps: dict[int, float] = {}
    latent = 1
    while True:
        steps[latent] = probe.step(latent)
        if latent == whole:
            break
        following = whole if steps[latent] * (whole / latent) ** 2 <= budget_s else min(2 * latent, whole)
        if steps[latent] * (following / latent) ** 2 > budget_s:
            break
        latent = following
    decoding = probe.decoding(latent) * whole / latent
    sampling = probe.encoding() + config.num_steps * _extrapolated(steps, whole)
    return Pace(sampling / config.batch_size + decoding, probe.source(steps))


class _Probe:
    """Times the parts of making a batch, each in seconds."""

    def __init__(self, config: GenerateConfig, backbone: VideoBackbone, plan: AttentionPlan | None) -> None:
        prompts = load_prompts(config.prompts).prompts
        self._config, self._backbone, self._plan = config, backbone, plan
        self.num_latent = backbone.spec.num_latent_frames(config.num_frames)
        self._texts = [prompts[number % len(prompts)] for number in range(config.batch_size)]
        self._cond = backbone.encode_prompts(self._texts, config.negative_prompt)
        self._sigmas = flow_sigmas(config.num_steps, config.shift or backbone.spec.default_shift)[:2]

    def encoding(self) -> float:
        return _warm_seconds(lambda: self._backbone.encode_prompts(self._texts, self._config.negative_prompt))

    def step(self, latent: int) -> float:
        """Time one step of a batch with so many latent frames; shorter clips have dense attention."""
        backbone, guidance = self._backbone, clip_guidance(self._config, None)
        plan = self._plan if latent == self.num_latent else None
        backbone.apply_attention(plan, backend=backbone.attention_backend)
        noise = self._noise(latent, self._config.batch_size)

        def velocity(latents: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            return backbone.velocity(latents, sigma, self._cond, guidance=guidance)

        return _warm_seconds(lambda: sample(velocity, noise, self._sigmas))

    def decoding(self, latent: int) -> float:
        noise = self._noise(latent, 1)
        return _warm_seconds(lambda: self._backbone.decode(noise))

    def source(self, steps: dict[int, float]) -> str:
        """Say how the seconds of a step are known."""
        *others, last = sorted(steps)
        if last == self.num_latent:
            return f"one step of a batch measured, times {self._config.num_steps}, and one decoding"
        frames = [str(self._backbone.spec.num_frames(latent)) for latent in (*others[-1:], last)]
        kind = "" if self._plan is None else ", by dense attention"
        of_all = f"of {self._config.num_frames} frames"
        if len(frames) == 1:
            return f"a lower bound: one step of {frames[0]} {of_all}, by length alone{kind}"
        return f"extrapolated from one step of {' and of '.join(frames)} {of_all}{kind}"

    def _noise(self, latent: int, batch: int) -> torch.Tensor:
        config = replace(self._config, num_frames=self._backbone.spec.num_frames(latent))
        return self._backbone.noise(clip_shape(config, batch), [torch.Generator().manual_seed(i) for i in range(batch)])


def _causal_pace(config: GenerateConfig, recipe: CausalRecipe, backbone: VideoBackbone) -> Pace:
    """Return the pace that a roll-out of two chunks foretells, call by call; later chunks see more of the past."""
    spec, steps = backbone.spec, config.num_steps
    whole = spec.num_latent_frames(config.num_frames)
    short = min(2 * recipe.layout.chunk_frames, whole)
    prompts = load_prompts(config.prompts).prompts
    cond = backbone.encode_prompts([prompts[i % len(prompts)] for i in range(config.batch_size)])
    shorter = replace(config, num_frames=spec.num_frames(short))
    seeds = range(config.batch_size)
    source = f"a roll-out of {shorter.num_frames} of {config.num_frames} frames and one decoding"
    if short < whole and backbone.policy_plan is not None:  # its windows need not fit two chunks
        backbone.apply_attention(None, backend=backbone.attention_backend)
        source += ", by dense attention"
    sampling = _warm_seconds(lambda: causal_latents(shorter, recipe, backbone, cond, seeds))
    noise = backbone.noise(clip_shape(shorter, 1), torch.Generator().manual_seed(0))
    decoding = _warm_seconds(lambda: backbone.decode(noise)) * whole / short
    calls = recipe.num_evaluations(steps, whole) / recipe.num_evaluations(steps, short)
    return Pace(sampling * calls / config.batch_size + decoding, source)


def _warm_seconds(call: Callable[[], object]) -> float:
    seconds = _seconds(call)
    return _seconds(call) if seconds < _WARM else seconds


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _extrapolated(steps: dict[int, float], whole: int) -> float:
    """Return the seconds of a whole step from those of shorter ones."""
    *others, last = sorted(steps)
    if last == whole or not others:
        return steps[last] * whole / last
    before = others[-1]
    square = max(0.0, (steps[last] / last - steps[before] / before) / (last - before))
    return (steps[last] / last + square * (whole - last)) * whole
