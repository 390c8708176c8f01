"""Settings of pair building; every default names its source."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from rlhf_video.algorithms.config_sections import RewardTermConfig, SamplingConfig
from rlhf_video.algorithms.reported_rewards import check_keys
from rlhf_video.attention import AttentionConfig
from rlhf_video.errors import ConfigError
from rlhf_video.preferences.pairing import (
    AllPairsConfig,
    BestWorstConfig,
    OmniScoreConfig,
    Pairing,
    ParetoConfig,
    ScoredClip,
    SplitConfig,
    VotesConfig,
    all_pairs,
    best_worst,
    omniscore,
    pareto,
)
from rlhf_video.settings import check_range, to_plain

Source = Literal["generated", "real_vs_generated", "partial_renoising", "votes"]

_NEEDS: dict[str, tuple[str, ...]] = {
    "generated": ("backbone", "prompts", "rewards", "rule"),
    "real_vs_generated": ("backbone", "clips"),
    "partial_renoising": ("backbone", "rewards"),
    "votes": ("pairs",),
}
"""Fields that a source cannot do without."""
_IGNORES: dict[str, tuple[str, ...]] = {
    "generated": ("clips", "pairs"),
    "real_vs_generated": ("prompts", "rewards", "rule", "rater", "votes", "pairs"),
    "partial_renoising": ("rule", "votes", "pairs"),
    "votes": ("backbone", "adapter", "prompts", "clips", "rewards", "rule", "rater"),
}
"""Fields that a source has no use for."""


@dataclass(frozen=True, kw_only=True)
class SaveConfig:
    """How generated clips are kept."""

    format: Literal["video", "latents"] = "video"
    """video: lossless FFV1 in .mkv, the 8-bit pixels that were scored. latents: .safetensors with the tensor "latents"
    (channels, latent_frames, latent_height, latent_width), normalised, which training need not encode again."""
    latents_type: Literal["float32", "float16", "bfloat16", "float8_e4m3fn"] = "float32"
    """Of latents; what was rounded is scored. float8_e4m3fn halves float16: rounding of at most 1/16, noise of
    about 0.03 on latents of unit variance."""


@dataclass(frozen=True, kw_only=True)
class RenoisingConfig:
    """Two aligned copies of one clip (DenseDPO, arXiv:2506.03517: "StructuralDPO" pairs with segment labels)."""

    lowest: float = 0.6
    """Least noise level, above 0, at most 1. Too little noise gives two equal copies."""
    highest: float = 0.9
    """Most noise; at 1 the copies are two unrelated clips. Every batch draws its level between the two, evenly."""
    labels: Literal["segments", "overall"] = "segments"
    """segments: the rewards compare each stretch of frames, and the whole clips. overall: whole clips alone."""
    segment_frames: int = 8
    """Pixel frames of a segment, a multiple of the backbone's temporal stride, so that segments are whole latent frames
    (the paper labels seconds). The first one has one frame more: latent frame 0 is pixel frame 0 alone."""
    score: str | None = None
    """What is compared: "reward/dimension", or a name of `sums`; required in a section that is used."""
    least_gap: float = 0.0
    """Scores that differ by this or less are a tie."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0.0 < self.lowest <= self.highest <= 1.0:
            raise ConfigError(
                f"renoising.lowest={self.lowest} and renoising.highest={self.highest} must satisfy 0 < lowest <= "
                "highest <= 1: 1 is pure noise."
            )
        check_range("renoising.segment_frames", self.segment_frames, least=1)
        check_range("renoising.least_gap", self.least_gap, least=0.0)


@dataclass(frozen=True, kw_only=True)
class RaterConfig:
    """Noisy voters in place of people, for simulation studies: scores become votes (`simulated_votes`)."""

    score: str
    """What the voters see: "reward/dimension", or a name of `sums`. Required; the rule may read another score."""
    sharpness: float = 10.0
    """P(A) = sigmoid(sharpness x gap). 10 for scores in [0, 1], as the voters of the sprite rewards have."""
    flips: float = 0.08
    """Share of votes that are simply wrong (arXiv:1706.03741, section 2.2.3, assumes 10% random ones: 0.05)."""
    voters: int = 8
    """Voters of each pair; the share that prefers A is its soft label."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("rater.sharpness", self.sharpness, least=0.0)
        if not 0.0 <= self.flips <= 1.0:
            raise ConfigError(f"rater.flips={self.flips} must be between 0 and 1.")
        check_range("rater.voters", self.voters, least=1)


@dataclass(frozen=True, kw_only=True)
class RuleConfig:
    """How scored clips become pairs; exactly one of the sections."""

    best_worst: BestWorstConfig | None = None
    """Best against worst clip of every prompt."""
    all_pairs: AllPairsConfig | None = None
    """Every two clips of a prompt whose scores differ enough."""
    omniscore: OmniScoreConfig | None = None
    """Best against worst clip of every prompt by a weighted set of scores, with veto (VideoDPO, arXiv:2412.14167)."""
    pareto: ParetoConfig | None = None
    """Every two clips of a prompt of which one is better on some score and worse on none."""

    @property
    def chosen(self) -> str:
        """Name of the section that is given."""
        return next(name for name in _RULES if getattr(self, name) is not None)

    @property
    def scores(self) -> tuple[str, ...]:
        """Scores that the rule reads."""
        section = self.best_worst or self.all_pairs or self.omniscore or self.pareto
        assert section is not None
        return section.score_names

    def apply(self, clips: Sequence[ScoredClip]) -> Pairing:
        """Return the rule's pairs."""
        if self.omniscore is not None:
            return omniscore(clips, self.omniscore)
        if self.pareto is not None:
            return pareto(clips, self.pareto)
        if self.best_worst is not None:
            return best_worst(clips, self.best_worst)
        assert self.all_pairs is not None
        return all_pairs(clips, self.all_pairs)

    def __post_init__(self) -> None:
        """Check that one rule is given."""
        given = [name for name in _RULES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ConfigError(
                f"rule needs exactly one of {', '.join(_RULES)}, got {' and '.join(given) or 'none'}: for example "
                "rule: {best_worst: {score: judge/all}}."
            )


_RULES = tuple(entry.name for entry in fields(RuleConfig))


@dataclass(frozen=True, kw_only=True)
class PairBuildingConfig:
    """Build preference pairs: make clips, score them, and apply a rule; or aggregate votes."""

    source: Source = "generated"
    """generated: clips of a model, scored by rewards, paired by a rule. real_vs_generated: given clips win against
    clips that the model makes for their prompts (Reg-DPO's GT-Pair). partial_renoising: two aligned copies of one clip
    (DenseDPO, arXiv:2506.03517). votes: the answers in an existing pairs file, aggregated, no model."""
    backbone: str | None = None
    """Model folder or Hub id, for example "assets/sprite-wan"; every source but votes needs it."""
    adapter: Path | None = None
    """Adapter folder; null generates with the base."""
    adapter_scale: float = 1.0
    """Strength of the adapter, as in generate.py."""
    attention: AttentionConfig | None = None
    """Attention plan; null takes the one that the adapter was trained under, or dense attention."""
    prompts: Path | None = None
    """Prompts to make clips for, .txt or .jsonl; never evaluation prompts. For generated, and for partial_renoising
    without `clips`."""
    num_prompts: int | None = None
    """First prompts of that file to use; null uses all."""
    clips: Path | None = None
    """Given clips: manifest.json, or .jsonl with {"file": ..., "prompt": ...} a line. For real_vs_generated and
    partial_renoising."""
    pairs: Path | None = None
    """Pairs file whose answers are aggregated. For votes."""
    guidances: tuple[float, ...] = ()
    """Guidance scales that the generated clips of a prompt take in turn, for pairs of samplers as people compare them;
    empty: all take `sampling.guidance`."""
    clips_per_prompt: int = 4
    """Clips to make for each prompt, with different noise (the gap of best and worst grows with their number: VideoDPO,
    arXiv:2412.14167); partial_renoising makes as many pairs of each clip in `clips`."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Size of the clips, and the sampler."""
    renoising: RenoisingConfig = field(default_factory=RenoisingConfig)
    """How copies are made and labelled, for partial_renoising."""
    rewards: tuple[RewardTermConfig, ...] = ()
    """What clips are scored by; their scores are called "key/dimension". How much each counts is the rule's matter, so
    `weight` and `normalisation` stay at their defaults."""
    sums: dict[str, dict[str, float]] = field(default_factory=dict)
    """Further scores: name -> {score: factor}, a weighted sum of scores in which higher is better."""
    rule: RuleConfig | None = None
    """How scored clips become pairs, for generated."""
    rater: RaterConfig | None = None
    """Noisy voters who answer in the scores' place; null writes the scores' own verdict."""
    votes: VotesConfig | None = None
    """When votes decide. For votes, where null takes the defaults; with a rater, where null keeps every pair and the
    share of its votes as soft label."""
    evaluation: tuple[Path, ...] = ()
    """Prompt files that results are measured on: a pair with one of their prompts is a leak."""
    split: SplitConfig = field(default_factory=SplitConfig)
    """Validation share, and what is done about leaks."""
    save: SaveConfig = field(default_factory=SaveConfig)
    """How clips are kept."""
    batch_size: int = 8
    """Clips sampled, and scored, at once."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the transformer and the text encoder; latents and the autoencoder stay float32."""
    vae_tiling: bool = False
    """Decode in overlapping tiles: less memory for large frames."""
    seed: int = 0
    """Decides every clip's noise, by prompt and clip as in generate.py, and every vote."""
    output_dir: Path = Path("runs/pairs")
    """Folder of clips/, train.jsonl, validation.jsonl, manifest.json, and work/, which a killed run goes on from."""

    def __post_init__(self) -> None:
        """Check what one section cannot see alone."""
        for name in ("clips_per_prompt", "batch_size"):
            check_range(name, getattr(self, name), least=1)
        check_range("adapter_scale", self.adapter_scale, least=0.0)
        check_keys(self.rewards)
        for entry in self.rewards:
            if entry.weight != 1.0 or entry.normalisation is not None:
                raise ConfigError(
                    f"Reward '{entry.key}' has a weight or a normalisation, which only training reads: set "
                    "rule.omniscore.weights and its normalisation, or `sums`."
                )
        self._check_source()

    def plain(self) -> dict[str, Any]:
        """Return the settings as plain values for a manifest, without the folder that it stands in."""
        return {name: value for name, value in to_plain(self).items() if name != "output_dir"}

    def _check_source(self) -> None:
        """Refuse what a source cannot do without, or has no use for."""
        for name in _NEEDS[self.source]:
            if getattr(self, name) in (None, ()):
                raise ConfigError(f"source={self.source} needs '{name}': give it, or choose another source.")
        for name in _IGNORES[self.source]:
            if getattr(self, name) not in (None, ()):
                raise ConfigError(f"source={self.source} has no use for '{name}': leave it out.")
        if self.source == "generated" and self.votes is not None and self.rater is None:
            raise ConfigError("votes needs a rater who votes: add a section `rater`, or leave `votes` out.")
        if self.source == "partial_renoising":
            if (self.prompts is None) == (self.clips is None):
                raise ConfigError(
                    "source=partial_renoising needs either 'clips' to re-noise, or 'prompts' to make them."
                )
            if self.renoising.score is None:
                raise ConfigError("renoising.score is missing: name what labels the copies, for example judge/all.")
