"""What preference optimisation needs before its first step: pairs, prompts, scores, model, start and reference."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rlhf_video.algorithms.dpo_config import DpoConfig
from rlhf_video.algorithms.dpo_data import PairParts
from rlhf_video.algorithms.dpo_reference import Reference, reference_fingerprint
from rlhf_video.algorithms.learner import AdapterState, Learner
from rlhf_video.algorithms.reported_rewards import ReportedRewards
from rlhf_video.algorithms.suites import Suites, first_prompts
from rlhf_video.algorithms.world import World, load_model
from rlhf_video.backbones import VideoBackbone
from rlhf_video.data import PromptSuite, load_prompts
from rlhf_video.errors import AdapterError
from rlhf_video.lora import FrozenAdapter, LoraConfig, recorded_attention
from rlhf_video.lora.files import adapter_sha256, read_adapter_folder
from rlhf_video.lora.joining import AdapterWeights, embedded, joined, merge_into_base
from rlhf_video.preferences import refuse_shared_prompts
from rlhf_video.runtime import Distribution

logger = logging.getLogger(__name__)


def load_suites(config: DpoConfig, parts: PairParts) -> Suites:
    """Read the prompt files; the pairs' prompts are those that are trained on.

    Raises:
        DataError: A file is missing, empty or malformed, or a prompt stands where it must not.
        ConfigError: More prompts are asked for than there are.
    """
    prompts = tuple(dict.fromkeys(parts.train.prompts))
    train = PromptSuite(parts.train.store.path.stem, "1", prompts, parts.train.sha256)
    validation = first_prompts(
        load_prompts(config.prompts.validation), config.validation.num_prompts, "validation.num_prompts"
    )
    test = None
    if config.prompts.test is not None:
        test = first_prompts(load_prompts(config.prompts.test), config.test.num_prompts, "test.num_prompts")
    suites = Suites(train, validation, test)
    suites.check_disjoint()
    if test is not None and parts.validation is not None:
        refuse_shared_prompts({"held-out": parts.validation.prompts, "test": test.prompts})
    return suites


@dataclass(frozen=True)
class Start:
    """Adapters that a run begins with, and what they make of the published one."""

    start: AdapterWeights | None
    """Where training starts; already part of the base where `is_merged`."""
    reference: AdapterWeights | None
    """The frozen adapter of the reference; None where it is the base, start merged or not."""
    is_merged: bool
    fingerprint: str
    """Of the reference."""

    def begin(self, config: DpoConfig, learner: Learner) -> FrozenAdapter | None:
        """Give a fresh learner its start; return the reference's adapter. Call it on every process.

        Raises:
            AdapterError: An adapter does not fit the run's.
        """
        distribution, backbone = learner.distribution, learner.backbone
        fresh = distribution.full_adapter_state(backbone)
        frozen = None
        if self.reference is not None:
            learner.load_published(embedded(self.reference, fresh, config.lora))
            frozen = FrozenAdapter(distribution.parameters(learner.optimizer))
        begins = self.start is not None and not self.is_merged
        if begins or frozen is not None:
            learner.load_published(embedded(self.start, fresh, config.lora) if begins and self.start else fresh)
        return frozen

    def published(self, state: AdapterState, backbone: VideoBackbone, lora: LoraConfig) -> AdapterWeights:
        """Return what is saved: the trained adapter, behind the start where that is part of the base.

        Args:
            state: The trained adapter.
            backbone: Knows the default targets.
            lora: Size of the trained adapter.
        """
        targets = lora.targets or backbone.spec.lora_targets
        trained = AdapterWeights(state, LoraConfig(rank=lora.rank, alpha=lora.alpha, targets=targets))
        return joined(self.start, trained) if self.is_merged and self.start is not None else trained


def open_world(config: DpoConfig, parts: PairParts, distribution: Distribution) -> tuple[World, Start]:
    """Check what the user gave, cheapest first, then load the model, with its start adapter.

    Raises:
        DataError, RewardError, AdapterError, BackboneError, ConfigError: From the parts, in this order.
    """
    suites = load_suites(config, parts)
    reported = ReportedRewards.build(config.rewards, config.judge, config.guards)
    settings = config.reference
    folders = {"start": settings.start_adapter}
    if settings.kind == "adapter":
        folders["reference"] = settings.adapter or settings.start_adapter
    adapters = {name: _read(folder, config) for name, folder in folders.items() if folder is not None}
    backbone = load_model(config, distribution)
    for _, check_attention in adapters.values():
        check_attention(backbone)
    weights = {name: adapter for name, (adapter, _) in adapters.items()}
    if settings.kind == "merged":
        merge_into_base(backbone, weights["start"])
    world = World(config, suites, reported, backbone, distribution)
    folder = folders.get("reference")
    fingerprint = reference_fingerprint(config, world, adapter_sha256(folder) if folder is not None else None)
    return world, Start(weights.get("start"), weights.get("reference"), settings.kind == "merged", fingerprint)


def reference_of(config: DpoConfig, world: World, learner: Learner, start: Start) -> Reference:
    """Return the reference, with the learner at its start; call it on every process."""
    return Reference(config, world, start.begin(config, learner))


def _read(folder: Path, config: DpoConfig) -> tuple[AdapterWeights, Callable[[VideoBackbone], None]]:
    """Return an adapter and the check that it was trained under the model's attention plan.

    Raises:
        AdapterError: It is missing or damaged, or was trained on another base.
    """
    state, metadata = read_adapter_folder(folder)
    base = metadata.get("base")
    if base is not None and _short(str(base)) != _short(config.backbone):
        raise AdapterError(
            f"The adapter '{folder}' was trained on '{base}', this run's backbone is '{config.backbone}': take an "
            "adapter of this base, or the adapter's base."
        )
    targets = tuple(metadata["targets"])
    lora = LoraConfig(rank=int(metadata["rank"]), alpha=float(metadata["alpha"]), targets=targets)
    return AdapterWeights(state, lora), lambda backbone: backbone.match_attention(recorded_attention(metadata), "check")


def _short(name: str) -> str:
    """Return what a Hub id and a local copy of one model share."""
    return Path(name).name.lower().removesuffix("-diffusers")
