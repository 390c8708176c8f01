"""The student of distillation: chunked roll-outs whose noise depends on the clip and the draw's name alone."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rlhf_video.algorithms.asd_config import AsdConfig
from rlhf_video.algorithms.world import World
from rlhf_video.backbones.causal_recipe import RECIPE_KEY, CausalRecipe
from rlhf_video.backbones.causal_rollout import roll_out
from rlhf_video.backbones.wan import WanBackbone
from rlhf_video.lora.roles import role


class Student:
    """Makes clips with the student's adapter, in training and in validation alike."""

    def __init__(self, config: AsdConfig, world: World) -> None:
        """Make the model causal and take the run's validation over.

        Args:
            config: The run.
            world: Its model and noise.

        Raises:
            ConfigError: The model cannot be causal, or the clip is shorter than a chunk.
        """
        assert isinstance(world.backbone, WanBackbone)
        self.backbone: WanBackbone = world.backbone
        self._config, self._world = config, world
        self.backbone.enable_causal(config.causal)
        config.causal.chunks(self.backbone.spec.num_latent_frames(config.sampling.num_frames))
        world.maker.student = self.sampler(config.steps.validated)

    def clips(
        self,
        prompts: Sequence[str],
        indices: Sequence[int],
        num_steps: int,
        *names: int | str,
        noise: Tensor | None = None,
        grad: bool = False,
        exit_step: int | None = None,
        enhanced: bool = True,
    ) -> Tensor:
        """Return clean latents (batch, channels, Fl, Hl, Wl) of a roll-out; clip i depends on seed, names, indices[i].

        Args:
            prompts: One for each clip.
            indices: Numbers of the clips' noise.
            num_steps: Calls of a chunk.
            names: What the noise is for.
            noise: Starting noise where it is not the run's own for these names.
            grad: Keep the graph of each chunk's last call.
            exit_step: See `roll_out`.
            enhanced: Whether the first chunk gets its extra steps.
        """
        maker = self._world.maker
        start = maker.noise(indices, *names) if noise is None else noise

        def fresh(chunk: int, step: int, frames: slice) -> Tensor:
            return maker.noise(indices, *names, "renoise", chunk, step)[:, :, frames]

        plan = self._config.steps.plan(num_steps, shift=self._world.shift, enhanced=enhanced)
        cond = self.backbone.encode_prompts(prompts)
        with role(self.backbone, "student"), torch.set_grad_enabled(grad):
            chunks = roll_out(
                self.backbone,
                start,
                cond,
                plan,
                fresh,
                config=self._config.rollout,
                grad=grad,
                exit_step=exit_step,
                cache_text=not grad,
            )
            return torch.cat(list(chunks), dim=2)

    def recipe(self) -> dict[str, object]:
        """Return what an adapter's header must say for others to generate alike."""
        config, longer = self._config, self._config.continuation
        num_frames = config.sampling.num_frames if longer is None else longer.num_frames
        trains_every_level = config.warmup is not None and config.warmup.kind == "teacher_forcing"
        recipe = CausalRecipe(
            layout=config.causal,
            rollout=config.rollout,
            shift=self._world.shift,
            steps=() if trains_every_level else tuple(sorted(config.steps.trained)),
            first_chunk_steps=config.steps.first_chunk,
            schedule=config.steps.schedule,
            longest=config.steps.longest,
            num_latent_frames=self.backbone.spec.num_latent_frames(num_frames),
        )
        return {RECIPE_KEY: recipe.to_json()}

    def sampler(self, num_steps: int, *, enhanced: bool = True) -> "_Sampler":
        """Return how validation samples the student at a number of steps."""
        return _Sampler(self, num_steps, enhanced)


class _Sampler:
    """A `StudentSampler` at one number of steps."""

    def __init__(self, student: Student, num_steps: int, enhanced: bool) -> None:
        self._student, self._num_steps, self._enhanced = student, num_steps, enhanced

    def __call__(self, prompts: Sequence[str], noise: Tensor, indices: Sequence[int], purpose: str) -> Tensor:
        return self._student.clips(prompts, indices, self._num_steps, purpose, noise=noise, enhanced=self._enhanced)
