"""What preference optimisation needs before its first step: pairs, prompts, scores, model, start and reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rlhf_video.algorithms.dpo_clips import Deal, PairClips
from rlhf_video.algorithms.dpo_config import DpoConfig
from rlhf_video.algorithms.dpo_data import PairParts
from rlhf_video.algorithms.dpo_loss import PairErrors
from rlhf_video.algorithms.dpo_pairs import EncodedPairs, check_uniform_passes
from rlhf_video.algorithms.dpo_reference import KnownReference, Reference, reference_fingerprint
from rlhf_video.algorithms.dpo_rows import Draw, Rows, training_draw
from rlhf_video.algorithms.learner import AdapterState, Learner
from rlhf_video.algorithms.reported_rewards import ReportedRewards
from rlhf_video.algorithms.suites import Suites, first_prompts
from rlhf_video.algorithms.world import World, check_windows, load_model
from rlhf_video.backbones import VideoBackbone
from rlhf_video.data import PromptSuite, load_prompts
from rlhf_video.errors import AdapterError, DataError
from rlhf_video.lora import FrozenAdapter, LoraConfig, recorded_attention
from rlhf_video.lora.files import adapter_sha256, read_adapter_folder, trained_size
from rlhf_video.lora.joining import AdapterWeights, embedded, joined, merge_into_base
from rlhf_video.runtime import Distribution


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
        shared = set(parts.validation.prompts) & set(test.prompts)
        if shared:
            raise DataError(
                f"prompts.test shares {len(shared)} prompts with the held-out pairs, for example '{min(shared)}': "
                "remove them from one of the two, what is tuned on held-out pairs is not unseen in the test."
            )
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


@dataclass(frozen=True)
class Trained:
    """Everything that an optimiser step touches."""

    config: DpoConfig
    world: World
    learner: Learner
    pairs: EncodedPairs
    held_out: EncodedPairs | None
    reference: Reference
    known: KnownReference | None
    """The reference's errors at the fixed draws; None computes them in every step."""
    start: Start
    draw: Draw

    def rows(self, visits: Sequence[tuple[int, int]]) -> Rows:
        """Return every visited pair at its draws: those of one visit next to one another.

        Args:
            visits: (index of a pair, number of its visit from 0).
        """
        count, fixed = self.config.draws_per_pair, self.config.reference.fixed_draws
        numbers = [(index, visit * count + number) for index, visit in visits for number in range(count)]
        return self.pairs.rows([(i, n if fixed is None else n % fixed) for i, n in numbers], self.draw)

    def piece(self, visits: Sequence[tuple[int, int]], places: Sequence[int]) -> tuple[Rows, Tensor]:
        """Return a process's micro-batch, and which of its rows only fill a share up: computed, not counted.

        Args:
            visits: (index of a pair, number of its visit) over the global batch.
            places: In the global batch, from `cut_padded`.
        """
        count = len(visits)
        rows = self.rows([visits[place % count] for place in places])
        is_fill = torch.tensor([place >= count for place in places for _ in range(self.config.draws_per_pair)])
        return rows, is_fill.to(rows.sigma.device)

    def reference_errors(self, rows: Rows) -> PairErrors:
        """Return the reference's errors: looked up, or computed now."""
        return self.reference.errors(rows) if self.known is None else self.known.errors(rows)

    def files(self) -> dict[str, str | None]:
        """Return config field -> hash of what a resumed run must find again."""
        held_out = None if self.held_out is None else self.held_out.sha256
        return {"pairs.train": self.pairs.sha256, "pairs.validation": held_out, "reference": self.start.fingerprint}


@dataclass(frozen=True)
class Opened:
    """What was checked and loaded; nothing is encoded yet and no adapter attached."""

    world: World
    pairs: EncodedPairs
    held_out: EncodedPairs | None
    start: Start

    def begin(self, config: DpoConfig, deal: Deal) -> Trained:
        """Encode the clips, attach the adapter and compute what the reference is asked for; call it on every process.

        Raises:
            DataError: A clip cannot be decoded.
            AdapterError: The start or the reference does not fit the run's adapter.
        """
        for part in (self.pairs, self.held_out):
            if part is not None:
                part.encode()
        world = self.world
        learner = Learner(config, world.backbone, world.distribution, advice="Lower optim.learning_rate or loss.beta")
        reference = Reference(config, world, self.start.begin(config, learner))
        draw = training_draw(config.noise_levels, seed=config.seed, shift=world.shift)
        known = None
        if config.reference.cache is not None:
            known = KnownReference(
                config, world, reference, self.pairs, draw,
                num_epochs=deal.num_epochs, fingerprint=self.start.fingerprint,
            )  # fmt: skip
        return Trained(config, world, learner, self.pairs, self.held_out, reference, known, self.start, draw)


def open_run(
    config: DpoConfig, parts: PairParts, clips: PairClips, held_out: PairClips | None, distribution: Distribution
) -> Opened:
    """Check what the user gave, cheapest first, then load the model, with its start adapter.

    Raises:
        DataError, RewardError, AdapterError, BackboneError, ConfigError: From the parts, in this order.
    """
    suites = load_suites(config, parts)
    reported = ReportedRewards.build(config.rewards, config.judge, config.guards)
    adapters = _read_adapters(config)
    backbone = load_model(config, distribution)
    for adapter in adapters.values():
        backbone.match_attention(adapter.attention, "check")
    weights = {name: adapter.weights for name, adapter in adapters.items()}
    is_merged = config.reference.kind == "merged"
    if is_merged:
        merge_into_base(backbone, weights["start"])
    world = World(config, suites, reported, backbone, distribution)
    sha256 = adapters["reference"].sha256 if "reference" in adapters else None
    start = Start(
        weights.get("start"), weights.get("reference"), is_merged, reference_fingerprint(config, world, sha256)
    )
    folder = config.pairs.latents or config.output_dir / "latents"
    for part in (clips, held_out):
        if part is not None:
            check_windows(world.backbone, part.sizes.values(), field=part.labelled.field)
    pairs = EncodedPairs(clips, world, folder)
    unseen = None if held_out is None else EncodedPairs(held_out, world, folder)
    check_uniform_passes([part for part in (pairs, unseen) if part is not None], world)
    return Opened(world, pairs, unseen, start)


@dataclass(frozen=True)
class _GivenAdapter:
    """An adapter that the config names."""

    weights: AdapterWeights
    attention: Mapping[str, object] | None
    """The plan that it was trained under."""
    sha256: str


def _read_adapters(config: DpoConfig) -> dict[str, _GivenAdapter]:
    """Return "start" and "reference", where the config names them."""
    settings = config.reference
    folders = {"start": settings.start_adapter}
    if settings.kind == "adapter":
        folders["reference"] = settings.adapter or settings.start_adapter
    return {name: _read(folder, config) for name, folder in folders.items() if folder is not None}


def _read(folder: Path, config: DpoConfig) -> _GivenAdapter:
    """Read an adapter.

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
    weights = AdapterWeights(state, trained_size(metadata))
    return _GivenAdapter(weights, recorded_attention(metadata), adapter_sha256(folder))


def _short(name: str) -> str:
    """Return what a Hub id and a local copy of one model share."""
    return Path(name).name.lower().removesuffix("-diffusers")
