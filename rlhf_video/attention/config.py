"""The `attention:` section of a config: from a preset or a file to the plan of one model and grid."""

import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path

from rlhf_video.attention.grid import Grid
from rlhf_video.attention.plan import AttentionPlan, checked_sigmas
from rlhf_video.attention.planner import check_density
from rlhf_video.attention.presets import PresetName, check_preset, preset_plan
from rlhf_video.attention.windowed import BACKENDS
from rlhf_video.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Which keys the model's video tokens see; roll-out, training and reference passes share it."""

    preset: PresetName = "full"
    """The model as it is ("full"), or windows in the middle half of its layers ("hybrid_middle", EasyAnimate,
    arXiv:2405.18991), three quarters ("all_but_edges"), all but two ("local_shift") or all of them ("tile3")."""
    file: Path | None = None
    """A plan as `AttentionPlan.save` writes it, in place of a preset."""
    density: float | None = None
    """Target share of (query, key) pairs in the windowed layers, in (0, 1]; null: the preset's own."""
    dense_sigmas: tuple[float, float] | None = None
    """Noise levels [low, high] at which all layers are dense; [0.8, 1.0] is the noisiest fifth. null: none."""
    backend: str = "auto"
    """Which code computes the windows: "auto" takes the first that can, others are named in docs/attention.md."""

    def __post_init__(self) -> None:
        """Check the values and that they agree.

        Raises:
            ConfigError: A preset or back-end is unknown, a number does not fit, or two fields exclude each other.
        """
        check_preset(self.preset)
        if self.backend != "auto" and self.backend not in BACKENDS:
            close = difflib.get_close_matches(self.backend, ("auto", *BACKENDS), n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise ConfigError(f"Unknown attention backend '{self.backend}'.{hint} Known: auto, {', '.join(BACKENDS)}.")
        if self.density is not None:
            check_density(self.density)
        if self.dense_sigmas is not None:
            checked_sigmas(self.dense_sigmas)
        if self.file is not None and self.preset != "full":
            raise ConfigError(f"preset='{self.preset}' and file='{self.file}' are two plans: keep one.")
        extra = [name for name in ("density", "dense_sigmas") if getattr(self, name) is not None]
        if extra and self.file is not None:
            raise ConfigError(f"{extra[0]} belongs to a preset, a plan file says its own: change it in {self.file}.")
        if extra and self.preset == "full":
            raise ConfigError(
                f"{extra[0]} needs windows, preset='full' has none: choose another preset or leave it out."
            )

    def plan(self, *, num_layers: int, num_heads: int, grid: Grid) -> AttentionPlan:
        """Return the plan for one model and grid, checked against both.

        Args:
            num_layers: Self-attention layers of the model.
            num_heads: Heads of each.
            grid: Video tokens along frames, height and width.

        Raises:
            ConfigError: The file cannot be read or does not fit, or the preset has no window for this grid.
        """
        if self.file is not None:
            plan = AttentionPlan.load(self.file)
            plan.check(num_layers=num_layers, num_heads=num_heads, grid=grid)
            return plan
        plan = preset_plan(self.preset, num_layers=num_layers, num_heads=num_heads, grid=grid, density=self.density)
        return dataclasses.replace(plan, dense_sigmas=self.dense_sigmas)
