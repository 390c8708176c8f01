"""What distillation measures beside the comparison with its teacher: every number of steps, with and without help."""

from collections.abc import Sequence

from torch import Tensor

from rlhf_video.algorithms.asd_config import AsdConfig
from rlhf_video.algorithms.asd_student import Student
from rlhf_video.algorithms.clip_maker import StudentSampler
from rlhf_video.algorithms.outcome import score_views
from rlhf_video.algorithms.story import Story
from rlhf_video.algorithms.watch import Further
from rlhf_video.algorithms.world import Validated, World
from rlhf_video.diffusion.samplers import sample
from rlhf_video.diffusion.sigmas import flow_sigmas
from rlhf_video.lora.roles import role
from rlhf_video.validation import Clips, Comparison, CurveView, FurtherComparison


class StepsMeasure:
    """Compares the student with the teacher at every trained number of steps, once, at the end; `Watch` calls it."""

    def __init__(self, config: AsdConfig, world: World, student: Student) -> None:
        self._config, self._world, self._student = config, world, student
        self.comparisons: dict[str, Comparison] = {}
        """"2 steps, first chunk 4" -> teacher against student; "teacher cut to 2 steps" -> teacher against itself."""

    def __call__(self, validated: Validated, prefix: str) -> Further:
        """Return the numbers; call it on every process, with the averaged adapter in place.

        Args:
            validated: The comparison of teacher and student at `steps.validated`.
            prefix: "validation", or "result" on the final prompts.
        """
        if prefix != "result":
            return Further()
        base, maker = validated.base_clips, self._world.maker
        purpose = "test" if self._world.suites.test is not None else "validation"
        before, numbers = maker.student, dict[str, float]()
        try:
            for name, sampler in self._samplers().items():
                maker.student = sampler
                video = maker.clips(base.prompts, base.seeds, purpose, 1.0)
                clips = Clips(video, base.prompts, base.seeds)
                comparison = Comparison.of(base, validated.comparison.base, clips, self._world.score(clips))
                self.comparisons[name] = comparison
                numbers |= comparison.metrics(prefix=f"{prefix}/{name.replace(' ', '_').replace(',', '')}")
        finally:
            maker.student = before
        return Further(numbers)

    def _samplers(self) -> dict[str, StudentSampler]:
        steps, samplers = self._config.steps, dict[str, StudentSampler]()
        for count in sorted(steps.trained, reverse=True):
            plain = _name(count)
            if steps.first_chunk is not None and steps.first_chunk > count:
                samplers[f"{plain}, first chunk {steps.first_chunk}"] = self._student.sampler(count)
            samplers[plain] = self._student.sampler(count, enhanced=False)
            samplers[f"teacher cut to {plain}"] = _CutTeacher(self._world, self._student, count)
        return samplers


class _CutTeacher:
    """The guided teacher with as few steps as the student."""

    def __init__(self, world: World, student: Student, num_steps: int) -> None:
        self._world, self._student = world, student
        self._sigmas = flow_sigmas(num_steps, world.shift).to(student.backbone.device)

    def __call__(self, prompts: Sequence[str], noise: Tensor, indices: Sequence[int], purpose: str) -> Tensor:
        with role(self._student.backbone, "teacher"):
            return sample(self._world.maker.velocity(prompts), noise, self._sigmas)


def _name(num_steps: int) -> str:
    return f"{num_steps} step{'s' if num_steps > 1 else ''}"


def story(config: AsdConfig, world: World, measure: StepsMeasure) -> Story:
    """Return what tells a distillation from other methods on cards and reports."""
    views = score_views
    steps = config.steps
    further = tuple(
        FurtherComparison(
            title=f"Teacher against {name}",
            lead=f"The teacher's {config.sampling.num_steps} guided steps against: {name}.",
            comparison=comparison,
            views=views(comparison, world.reported.roles),
            names=("teacher", name),
        )
        for name, comparison in measure.comparisons.items()
    )
    method, sentence = _method(config)
    return Story(
        method=method,
        title="Causal warm-up" if config.warmup is not None else "Causal few-step distillation",
        sentence=f"{sentence}, {list(steps.trained)} steps, chunks of {config.causal.chunk_frames} latent frames",
        data=_data(config, world),
        curves=(
            CurveView(
                title="Student's losses",
                y_label="loss",
                metrics={
                    "matching": "loss/matching",
                    "adversarial": "loss/adversarial",
                    "warm-up": "loss/warmup",
                    "continuation": "loss/continuation",
                },
            ),
            CurveView(
                title="Critics' losses",
                y_label="loss",
                metrics={"fake score": "loss/fake_score", "discriminator": "loss/discriminator"},
            ),
            CurveView(
                title="Logit gap, real minus student", y_label="logits", metrics={"gap": "adversarial/logit_gap"}
            ),
            CurveView(
                title="Gradients on the sample",
                y_label="norm",
                metrics={"matching": "grad/matching", "adversarial": "grad/adversarial", "reward": "grad/reward"},
            ),
            CurveView(title="Gradient norm", y_label="before clipping", metrics={"adapter": "grad/norm"}),
        ),
        sides=("teacher", _name(steps.validated)),
        notes=(
            f"The teacher is the base, {config.sampling.num_steps} steps with guidance {config.sampling.guidance:g}.",
            *(() if config.init is None else (f"The student started from the adapter `{config.init}`.",)),
        ),
        further=further,
        card={"steps": {name: comparison.to_json() for name, comparison in measure.comparisons.items()}},
    )


def _method(config: AsdConfig) -> tuple[str, str]:
    """Return the run's method as a name and as a phrase with its papers."""
    if config.warmup is not None:
        kind = "the teacher's sampling paths" if config.warmup.kind == "trajectory" else "teacher forcing"
        return "causal_warmup", f"causal warm-up on {kind} (arXiv:2412.07772)"
    matching = "distribution matching (arXiv:2311.18828, arXiv:2506.08009)"
    if not config.adversarial.weight:
        return "self_forcing", f"self-forcing with {matching}"
    real = {"student": "its own samples of more steps", "teacher": "the teacher's clips", "data": "given clips"}
    against = real[config.adversarial.real]
    return "asd", f"adversarial self-distillation (arXiv:2511.01419) against {against}, with {matching}"


def _data(config: AsdConfig, world: World) -> str:
    """Return what the run learned from: prompts, and clips where there were any."""
    suite, adversarial, long = world.suites.train, config.adversarial, config.continuation
    parts = [f"{len(suite)} prompts of {suite.name} (sha256 {suite.sha256[:12]})"]
    if config.warmup is None and adversarial.weight and adversarial.clips is not None:
        parts = [f"clips of {config.sampling.num_frames} frames with their prompts ({adversarial.clips})"]
    elif long is None:
        parts.insert(0, "no clips")
    if long is not None:
        parts.append(f"clips of {long.num_frames} frames ({long.clips})")
    return ", ".join(parts)
