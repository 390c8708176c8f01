"""What distillation needs before its first step: prompts, scores, model, roles, and where the student starts."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from rlhf_video.algorithms.asd_config import AsdConfig
from rlhf_video.algorithms.asd_critics import Adversary, FakeScore
from rlhf_video.algorithms.asd_losses import RewardLoss
from rlhf_video.algorithms.asd_student import Student
from rlhf_video.algorithms.continuation import Continuation
from rlhf_video.algorithms.generated_clips import GeneratedClips
from rlhf_video.algorithms.learner import Learner, StepMetrics
from rlhf_video.algorithms.reported_rewards import ReportedRewards
from rlhf_video.algorithms.sft_data import ClipFiles, EncodedClips
from rlhf_video.algorithms.suites import Suites, first_prompts
from rlhf_video.algorithms.watch import Part
from rlhf_video.algorithms.world import World, load_model
from rlhf_video.backbones.causal_recipe import CausalRecipe
from rlhf_video.backbones.wan import WanBackbone
from rlhf_video.data import load_prompts
from rlhf_video.errors import AdapterError, ConfigError
from rlhf_video.lora.files import adapter_sha256, read_adapter_folder, recorded_attention, trained_size
from rlhf_video.lora.joining import AdapterWeights, embedded
from rlhf_video.runtime import Distribution

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AsdParts:
    """Everything that an optimiser step uses."""

    world: World
    backbone: WanBackbone
    student: Student
    learner: Learner
    fake: FakeScore
    adversary: Adversary | None
    """None where the adversarial weight is 0."""
    reward: RewardLoss | None
    """None where the reward's weight is 0."""
    real_clips: GeneratedClips | EncodedClips | None
    """What plays real, where that is not the student itself."""
    continuation: Continuation | None
    """Longer clips, where there are any."""
    files: Mapping[str, str | None]
    """Config field -> sha256 of what lies there; a resumed run must find the same."""

    @property
    def saved(self) -> dict[str, Part]:
        """What a checkpoint holds beside the student."""
        return {"fake": self.fake, **({} if self.adversary is None else {"adversary": self.adversary})}

    def collect(self, collected: Tensor, losses: Mapping[str, Tensor], share: int, metrics: StepMetrics) -> None:
        """Add the gradients of losses to the leaf, and no other parameter; log loss and gradient norm of each.

        Args:
            collected: The leaf.
            losses: Name -> loss of each clip, shape (batch,), weighted.
            share: Clips of this process, over which the loss is a mean.
            metrics: Where numbers go.
        """
        collected.grad = torch.zeros_like(collected)
        for name, values in losses.items():
            (gradient,) = torch.autograd.grad(values.sum() / share, collected)
            collected.grad += gradient
            metrics.add(f"loss/{name}", values)
            metrics.add(f"grad/{name}", gradient.flatten(1).norm(dim=1) * share)


def load_suites(config: AsdConfig) -> Suites:
    """Read the prompt files.

    Raises:
        DataError: A file is missing, empty or malformed, or two share a prompt.
        ConfigError: More prompts are asked for than there are.
    """
    prompts = config.prompts
    suites = Suites(
        load_prompts(prompts.train),
        first_prompts(load_prompts(prompts.validation), config.validation.num_prompts, "validation.num_prompts"),
        first_prompts(load_prompts(prompts.test), config.test.num_prompts, "test.num_prompts")
        if prompts.test is not None
        else None,
    )
    suites.check_disjoint()
    return suites


def open_world(config: AsdConfig, distribution: Distribution) -> World:
    """Check what the user gave, cheapest first, then load the model.

    Raises:
        DataError, RewardError, BackboneError, ConfigError: From the parts, in this order.
    """
    if distribution.kind in ("fsdp2", "deepspeed"):
        raise ConfigError(
            f"Distillation trains several adapters and heads with optimisers of their own, which {distribution.kind} "
            "does not hold: use configs/accelerate/single.yaml or ddp.yaml (the base is shared, one GPU of 40 GB holds "
            "Wan 1.3B)."
        )
    suites = load_suites(config)
    reported = ReportedRewards.build(config.rewards, config.judge, config.guards)
    backbone = load_model(config, distribution)
    if not isinstance(backbone, WanBackbone):
        raise ConfigError(f"Causal distillation is built for Wan, not for {backbone.spec.model_class}.")
    return World(config, suites, reported, backbone, distribution)


def open_student(config: AsdConfig, world: World) -> tuple[Student, Learner]:
    """Make the model causal, attach the student and give it its start.

    Raises:
        AdapterError: The start does not fit.
        ConfigError: The layout does not fit the clip.
    """
    student = Student(config, world)
    learner = Learner(config, world.backbone, world.distribution)
    if config.init is not None:
        fresh = world.distribution.full_adapter_state(world.backbone)
        learner.load_published(embedded(_read(config.init, config, world), fresh, config.lora))
    return student, learner


def open_parts(config: AsdConfig, world: World) -> AsdParts:
    """Attach every role; the student first, the critics as fresh adapters and heads. The teacher's clips come last.

    Raises:
        AdapterError: `init` does not fit.
        RewardError: A trained reward does not fit.
        ConfigError: The layout does not fit the clip.
    """
    assert isinstance(world.backbone, WanBackbone)
    files = files_of(config, world)
    student, learner = open_student(config, world)
    distribution = world.distribution
    fake = FakeScore(config, world.backbone, distribution)
    adversary = Adversary(config, world.backbone, distribution) if config.adversarial.weight > 0 else None
    reward = RewardLoss(config.reward, world.backbone) if config.reward.weight > 0 else None
    continuation = open_continuation(config, world, student, files)
    real_clips: GeneratedClips | EncodedClips | None = None
    if adversary is not None and config.adversarial.clips is not None:
        real_clips = given_clips(config, world, config.adversarial.clips, field="adversarial.clips")
        real_clips.encode()
        files["adversarial.clips"] = real_clips.sha256
    elif adversary is not None and config.adversarial.real == "teacher":
        real_clips = generated_clips(config, world, world.suites.train.prompts, keeps_states=False)
    return AsdParts(
        world=world,
        backbone=world.backbone,
        student=student,
        learner=learner,
        fake=fake,
        adversary=adversary,
        reward=reward,
        real_clips=real_clips,
        continuation=continuation,
        files=files,
    )


def generated_clips(config: AsdConfig, world: World, prompts: Sequence[str], *, keeps_states: bool) -> GeneratedClips:
    """Return clips of the teacher, made now where they are not there yet."""
    return GeneratedClips(config, world, prompts, purpose="teacher's clips", keeps_states=keeps_states)


def given_clips(
    config: AsdConfig, world: World, path: Path, *, field: str, num_frames: int | None = None
) -> EncodedClips:
    """Return clips from files, of the sampling size or of another length; none is encoded yet.

    Raises:
        DataError: The list or a clip is missing, cannot be read, or has another size.
    """
    size = config.sampling if num_frames is None else replace(config.sampling, num_frames=num_frames)
    files = ClipFiles.find(path, size, world.backbone.spec, field=field)
    return EncodedClips(files, world, config.output_dir / "latents")


def open_continuation(
    config: AsdConfig, world: World, student: Student, files: dict[str, str | None]
) -> Continuation | None:
    """Return the loss on longer clips, and note their hash in `files`; None where the run has none.

    Raises:
        DataError: As `given_clips`.
    """
    settings = config.continuation
    if settings is None:
        return None
    clips = given_clips(config, world, settings.clips, field="continuation.clips", num_frames=settings.num_frames)
    files["continuation.clips"] = clips.sha256
    return Continuation(config, world, student, clips)


def files_of(config: AsdConfig, world: World) -> dict[str, str | None]:
    """Return config field -> sha256 of what a resumed run must find again."""
    start = None if config.init is None else adapter_sha256(config.init)
    return {"prompts.train": world.suites.train.sha256, "init": start}


def _read(folder: Path, config: AsdConfig, world: World) -> AdapterWeights:
    """Read the student's start.

    Raises:
        AdapterError: It is missing or damaged, was trained on another base, or is not causal where distillation starts
            from it.
    """
    state, metadata = read_adapter_folder(folder)
    base = Path(str(metadata.get("base", config.backbone))).name
    if base.lower() != Path(config.backbone).name.lower():
        raise AdapterError(
            f"init: the adapter '{folder}' was trained on '{metadata['base']}', this run's backbone is "
            f"'{config.backbone}': take an adapter of this base."
        )
    _compare_recipes(folder, CausalRecipe.from_metadata(metadata), config, world)
    world.backbone.match_attention(recorded_attention(metadata), "ignore")  # warns: windows may come with this stage
    return AdapterWeights(state, trained_size(metadata))


def _compare_recipes(folder: Path, recipe: CausalRecipe | None, config: AsdConfig, world: World) -> None:
    """Refuse a start that is not causal in distillation; warn where its chunks or its shift were others."""
    if recipe is None:
        if config.warmup is None:
            raise AdapterError(
                f"init: the adapter '{folder}' was not trained causally, and makes noise under a causal mask: take a "
                "causal warm-up, or make one of it with a section `warmup`."
            )
        return
    was, now = (recipe.layout.chunk_frames, recipe.shift), (config.causal.chunk_frames, world.shift)
    if was != now:
        logger.warning(
            "init: '%s' was trained with chunks of %d latent frames at shift %g, this run has %d at %g: expect it to "
            "learn longer.",
            folder,
            *was,
            *now,
        )
