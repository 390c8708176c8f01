"""What recovery measures beside the comparison with the dense base: the same windows without and with the adapter."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rlhf_video.algorithms.draws import measured_sigmas
from rlhf_video.algorithms.generated_clips import GeneratedClips
from rlhf_video.algorithms.held_out_error import HeldOutError
from rlhf_video.algorithms.sft_config import SftConfig
from rlhf_video.algorithms.watch import Further
from rlhf_video.algorithms.window_recovery_passes import student_pass, teacher_pass
from rlhf_video.algorithms.world import Validated, World
from rlhf_video.diffusion.flow import interpolate, velocity_error
from rlhf_video.validation import Clips, Comparison, Scores, psnr_scores

TEACHER_ERROR = "teacher/velocity_error"
"""Name of the held-out velocity error in metrics."""
NUM_LEVELS = 4
"""Noise levels at which the velocity error of a held-out clip is measured."""


class RecoveryMeasure:
    """Measures a validation's further numbers; `Watch` calls it."""

    def __init__(self, world: World, error: HeldOutError) -> None:
        """Prepare.

        Args:
            world: The model and the scores.
            error: Held-out velocity error to the teacher.
        """
        self._world, self._error = world, error
        self._untrained: dict[str, tuple[Clips, Scores]] = {}
        self.latest: Comparison | None = None
        """The last comparison: base is the windows without the adapter."""

    def __call__(self, validated: Validated, prefix: str) -> Further:
        """Return the numbers; call it on every process, with the averaged adapter in place and the whole plan on.

        Args:
            validated: The comparison of dense base and windowed student.
            prefix: "validation", or "result" on the final prompts.
        """
        dense, student = validated.base_clips, validated.adapter_clips
        is_end = prefix == "result"
        purpose = "test" if is_end and self._world.suites.test is not None else "validation"
        if purpose not in self._untrained:
            video = self._world.maker.clips(dense.prompts, dense.seeds, purpose, 0.0)
            clips = Clips(video, dense.prompts, dense.seeds)
            self._untrained[purpose] = clips, {**self._world.score(clips), **psnr_scores(clips, dense)}
        clips, scores = self._untrained[purpose]
        recovered = {**validated.comparison.adapter, **psnr_scores(student, dense)}
        self.latest = Comparison.of(clips, scores, student, recovered)
        error = self._error.latest() if is_end else self._error.compare()  # the last step was validated
        return Further({**self.latest.metrics(prefix=f"{prefix}/recovery"), **error.metrics(prefix=prefix)})


def teacher_error(config: SftConfig, world: World, clips: GeneratedClips) -> HeldOutError:
    """Return the velocity error to the dense base on its clips of validation prompts, at fixed noise and levels."""
    levels = measured_sigmas(config.noise_levels, NUM_LEVELS, shift=world.shift)

    def error(indices: Sequence[int]) -> Tensor:
        clean = clips.latents(indices)
        cond = world.backbone.encode_prompts([clips.prompts[index] for index in indices])
        errors = []
        for number, sigma in enumerate(levels.to(clean.device)):
            state = interpolate(clean, world.maker.noise(indices, "held-out error", number), sigma)
            teacher = teacher_pass(world.backbone, state, sigma, cond, keeps_attention=False)
            student = student_pass(world.backbone, state, sigma, cond, keeps_attention=False)
            errors.append(velocity_error(student.velocity, teacher.velocity))
        return torch.stack(errors).mean(dim=0)

    return HeldOutError(
        TEACHER_ERROR,
        clips.prompts,
        error,
        backbone=world.backbone,
        distribution=world.distribution,
        batch=config.validation.batch,
    )
