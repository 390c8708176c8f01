"""The config of an evaluation: which systems, which prompts, which metrics."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rlhf_video.attention import AttentionConfig
from rlhf_video.errors import ConfigError
from rlhf_video.settings import check_range


@dataclass(frozen=True, kw_only=True)
class SystemConfig:
    """One system: a model that makes its clips here, or a folder of clips that somebody made."""

    backbone: str | None = None
    """Model folder or Hub id; null where `clips` is given."""
    adapter: Path | None = None
    """Adapter folder; null generates with the base."""
    adapter_scale: float = 1.0
    """Strength of the adapter."""
    attention: AttentionConfig | None = None
    """Attention plan; null takes the one that the adapter was trained under, or dense attention."""
    clips: Path | None = None
    """Folder of clips that exist: of generate.py, or named as VBench names them; null where `backbone` is given."""

    def __post_init__(self) -> None:
        """Check that there is one source of clips."""
        if (self.backbone is None) == (self.clips is None):
            raise ConfigError("A system needs either 'backbone' (its clips are made here) or 'clips' (a folder).")


@dataclass(frozen=True, kw_only=True)
class SuiteConfig:
    """What is asked of every system."""

    prompts: Path | None = None
    """Prompt file (.txt or .jsonl); null where `vbench` is given."""
    vbench: Path | None = None
    """VBench_full_info.json, a file of its form, or "installed" for that of the vbench environment; null where
    `prompts` is given."""
    dimensions: tuple[str, ...] = ()
    """Only VBench's prompts of these dimensions; empty takes all."""
    extended: Path | None = None
    """Text file of what models get in place of VBench's prompts, one line per entry; scores do not compare with those
    of raw prompts, and the suite has another name."""
    num_prompts: int | None = None
    """Only the first so many prompts; null takes all."""
    clips_per_prompt: int | None = None
    """Clips of each prompt, with different noise; null takes 1 for a prompt file, and VBench's own numbers for VBench:
    5, and 25 for temporal_flickering."""
    seed: int = 0
    """Of the noise; systems share it clip by clip."""

    def __post_init__(self) -> None:
        """Check the source and the counts."""
        if (self.prompts is None) == (self.vbench is None):
            raise ConfigError("suite needs either 'prompts' (a prompt file) or 'vbench' (VBench_full_info.json).")
        if self.clips_per_prompt is not None:
            check_range("suite.clips_per_prompt", self.clips_per_prompt, least=1)
        if self.vbench is None and (self.dimensions or self.extended is not None):
            raise ConfigError("suite.dimensions and suite.extended belong to VBench: name its file under 'vbench'.")


@dataclass(frozen=True, kw_only=True)
class EvaluationSamplingConfig:
    """How clips are made; fields and defaults as in GenerateConfig."""

    num_frames: int = 81
    """Pixel frames, 4k + 1 for Wan."""
    height: int = 480
    """Pixels."""
    width: int = 832
    """Pixels."""
    num_steps: int = 50
    """Denoising steps."""
    guidance: float = 5.0
    """Classifier-free guidance scale; 1 runs no unconditional pass."""
    shift: float | None = None
    """Sigma shift; null takes the backbone's own."""
    negative_prompt: str = ""
    """What guidance moves away from."""
    text_length: int | None = None
    """Tokens that prompts are padded to; null takes the backbone's own."""
    fps: int | None = None
    """Frames per second of the files; null takes the backbone's own."""
    batch_size: int = 1
    """Clips sampled at once."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the transformer and the text encoder."""
    vae_tiling: bool = False
    """Decode in overlapping tiles: less memory for large frames."""


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """What every clip must be like; a clip of another size, length or frame rate is an error before scoring."""

    num_frames: int
    """Frames."""
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    fps: float | None = None
    """Frames per second; null takes what manifest.json declares, and anything where there is none."""


@dataclass(frozen=True, kw_only=True)
class MetricConfig:
    """One metric by name."""

    name: str
    """A name of evaluation/metric_catalogue.py, or "package.module:Class"."""
    label: str | None = None
    """As tables call it; null takes the metric's own name."""
    options: dict[str, object] = field(default_factory=dict)
    """Arguments of the metric's class."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """An evaluation: systems, prompts, metrics."""

    output_dir: Path
    """Folder of clips, results and the report. Required."""
    systems: dict[str, SystemConfig]
    """Name in tables -> system. Required."""
    baseline: str | None = None
    """The system that the others are compared with; null takes the first."""
    suite: SuiteConfig
    """Prompts. Required."""
    sampling: EvaluationSamplingConfig = field(default_factory=EvaluationSamplingConfig)
    """How systems with a backbone make their clips."""
    video: VideoConfig | None = None
    """Declared size of clips; null takes `sampling` for systems that are generated, and nothing for folders."""
    metrics: tuple[MetricConfig, ...] = ()
    """What is measured."""
    partial: bool = False
    """Go on where clips or weights are missing; every number that lacks some is labelled. Also: --partial."""
    num_resamples: int = 10_000
    """Bootstrap and permutation draws."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""

    def __post_init__(self) -> None:
        """Check names and counts."""
        if not self.systems:
            raise ConfigError("systems is empty: name at least one, for example {base: {backbone: assets/sprite-wan}}.")
        if self.video is not None and self.video.fps is not None and self.video.fps <= 0.0:
            raise ConfigError(f"video.fps={self.video.fps} is no frame rate: use a number above 0, for example 16.")
        if self.baseline is not None and self.baseline not in self.systems:
            raise ConfigError(f"baseline='{self.baseline}' is none of the systems: {', '.join(self.systems)}.")

    @property
    def baseline_name(self) -> str:
        """The system that the others are compared with."""
        return self.baseline or next(iter(self.systems))
