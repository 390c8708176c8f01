"""What generate.py makes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlhf_video.attention import AttentionConfig
from rlhf_video.backbones.base import VideoShape
from rlhf_video.backbones.causal_recipe import CausalConfig
from rlhf_video.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """What to generate, and where it goes."""

    backbone: str
    """Model folder or Hub id, for example "assets/sprite-wan" or "Wan-AI/Wan2.1-T2V-1.3B-Diffusers". Required."""
    prompts: Path
    """Prompt suite: .txt with one prompt a line, or .jsonl. Required."""
    output_dir: Path
    """Folder of the mp4 files and manifest.json. Required."""
    adapter: Path | None = None
    """Adapter folder; null generates with the base."""
    adapter_scale: float = 1.0
    """Strength of the adapter: 0 is the base, 1 as trained; the adapter's card recommends one."""
    merge_adapter: bool = False
    """Add the adapter to the weights: its own products go, a quarter of the time of a few-step roll-out. Pixels differ
    by rounding, in bfloat16 by that of the weights."""
    attention: AttentionConfig | None = None
    """Attention plan; null takes the one that the adapter was trained under, or dense attention. Another plan than the
    adapter's is used with a warning."""
    clips_per_prompt: int = 1
    """Clips of each prompt, with different noise."""
    seed: int = 0
    """Runs with the same seed share their noise clip by clip."""
    num_frames: int = 81
    """Pixel frames, 4k + 1 for Wan. 81 is Wan 2.1's native length."""
    height: int = 480
    """Pixels (WanPipeline's default)."""
    width: int = 832
    """Pixels (WanPipeline's default)."""
    num_steps: int = 50
    """Denoising steps (WanPipeline's default); in causal generation those of a chunk, as the adapter was trained."""
    causal: CausalConfig | None = None
    """Causal generation, chunk after chunk; null does it as the adapter was trained where it was trained causally, and
    generates the whole clip at once otherwise."""
    guidance: float | None = None
    """Classifier-free guidance scale; 1 runs no unconditional pass. Null is WanPipeline's default, 5, and 1 in causal
    generation, where distillation has put the guidance into the adapter."""
    shift: float | None = None
    """Sigma shift; null takes the backbone's own, or in causal generation that of the adapter's training."""
    negative_prompt: str = ""
    """What guidance moves away from."""
    text_length: int | None = None
    """Tokens that prompts are padded to; null takes the backbone's own."""
    fps: int | None = None
    """Frames per second of the files; null takes the backbone's own."""
    batch_size: int = 1
    """Clips sampled at once."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the transformer and the text encoder; latents and the VAE stay float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""
    vae_tiling: bool = False
    """Decode in overlapping tiles: less memory for large frames."""
    stream: bool = False
    """Causal generation: decode and write each chunk as it comes, to NAME.part.mp4 until the clip is whole."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: A count is below 1, a scale is negative, or streaming is asked for with tiles.
        """
        for name in ("clips_per_prompt", "num_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: at least 1 is needed.")
        if self.adapter_scale < 0:
            raise ConfigError(f"adapter_scale={self.adapter_scale} is negative: 0 is the base, 1 the whole adapter.")
        if self.stream and self.vae_tiling:
            raise ConfigError("Decoding chunk by chunk does not go with VAE tiling: set vae_tiling or stream to false.")


def clip_shape(config: GenerateConfig, batch: int) -> VideoShape:
    """Return the size of a batch of clips."""
    return VideoShape(batch=batch, frames=config.num_frames, height=config.height, width=config.width)
