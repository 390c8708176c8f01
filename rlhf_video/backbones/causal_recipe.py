"""How a causal adapter was trained: written into its file, and read back by whoever generates with it.

A trainer gives `metadata={RECIPE_KEY: recipe.to_json(), ...}` to `save_adapter`; `CausalRecipe.from_metadata` of what
`read_adapter_metadata` returns is the recipe again, or None where the adapter is no causal one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from rlhf_video.attention.causal_layout import CausalLayout
from rlhf_video.backbones.causal_rollout import RolloutConfig
from rlhf_video.diffusion.step_plan import StepPlan, StepSchedule
from rlhf_video.errors import AdapterError, ConfigError
from rlhf_video.settings.building import build_config, to_plain

RECIPE_KEY = "causal"
"""Where the recipe stands in an adapter's metadata."""


@dataclass(frozen=True, kw_only=True)
class CausalRecipe:
    """What training and generation must have in common."""

    layout: CausalLayout
    """Chunks, window and sink."""
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    """How chunks are denoised and remembered."""
    shift: float
    """Sigma shift of the noise levels, > 0."""
    steps: tuple[int, ...] = ()
    """Step counts n that were trained, ascending; empty where any will do (teacher forcing trains every level)."""
    first_chunk_steps: int | None = None
    """Calls that the first chunk gets at least; null treats all chunks alike."""
    schedule: StepSchedule = "skip"
    """How n noise levels are chosen."""
    longest: int = 4
    """Calls of the list that "prefix" cuts short."""
    num_latent_frames: int | None = None
    """Length of the training's clips; a longer one needs a window. Null says nothing about it."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: A count is below 1, the shift is not positive, the steps do not ascend, or "prefix" cannot
                make one of them.
        """
        counts = (self.longest, self.first_chunk_steps or 1, self.num_latent_frames or 1, *self.steps)
        if min(counts) < 1 or self.shift <= 0:
            raise ConfigError(
                f"A causal recipe needs a shift above 0 and counts of at least 1, got shift={self.shift}, "
                f"steps={list(self.steps)}, first_chunk_steps={self.first_chunk_steps}, longest={self.longest}, "
                f"num_latent_frames={self.num_latent_frames}."
            )
        if list(self.steps) != sorted(set(self.steps)):
            raise ConfigError(f"causal.steps={list(self.steps)}: give ascending step counts, each once.")
        for num_steps in self.steps:
            self.plan(num_steps)

    def plan(self, num_steps: int) -> StepPlan:
        """Return the noise levels of an n-step roll-out.

        Raises:
            ConfigError: n was not trained, or is more than "prefix" has.
        """
        if self.steps and num_steps not in self.steps:
            known = ", ".join(map(str, self.steps))
            raise ConfigError(
                f"num_steps={num_steps}: this adapter was trained for {known} steps. Set num_steps={self.steps[-1]}, "
                "or another of them."
            )
        return StepPlan.of(
            num_steps,
            shift=self.shift,
            first_chunk_steps=self.first_chunk_steps,
            schedule=self.schedule,
            longest=self.longest,
        )

    def check_length(self, num_latent_frames: int) -> None:
        """Refuse a clip that the layout cannot make.

        Raises:
            ConfigError: The clip is shorter than a chunk, or longer than the training's without a window.
        """
        self.layout.chunks(num_latent_frames)
        trained = self.num_latent_frames
        if trained is not None and num_latent_frames > trained and self.layout.window_frames is None:
            raise ConfigError(
                f"A clip of {num_latent_frames} latent frames is longer than the {trained} of the adapter's training, "
                f"which saw all of the past: give a window, for example causal.window_frames={trained} with "
                f"causal.sink_frames={self.layout.chunk_frames}, or lower num_frames."
            )

    def num_evaluations(self, num_steps: int, num_latent_frames: int) -> int:
        """Return how often the model is called for a clip, calls that only write the cache included."""
        num_chunks = len(self.layout.chunks(num_latent_frames))
        return self.plan(num_steps).num_evaluations(num_chunks, recaches=(num_chunks - 1) * self.rollout.recache)

    def describe(self, num_steps: int, num_latent_frames: int) -> str:
        """Return in one line what a roll-out of a clip is."""
        layout = self.layout
        window = "all of the past" if layout.window_frames is None else f"a window of {layout.window_frames}"
        sink = f" and a sink of {layout.sink_frames}" if layout.sink_frames else ""
        levels = self.plan(num_steps)
        chunks = layout.chunks(num_latent_frames)
        return (
            f"{len(chunks)} chunks of {layout.chunk_frames} latent frames, {window}{sink}; {len(levels.first)} steps "
            f"for the first chunk, {len(levels.later)} for others: {self.num_evaluations(num_steps, num_latent_frames)}"
            " calls"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as plain values, for an adapter's header."""
        return cast("dict[str, Any]", to_plain(self))

    @classmethod
    def from_json(cls, plain: object) -> "CausalRecipe":
        """Return the recipe that `to_json` wrote.

        Raises:
            AdapterError: A value is missing, unknown, or does not hold.
        """
        if not isinstance(plain, Mapping):
            raise AdapterError(f"The adapter's causal recipe is {plain!r}: an object with a layout and a shift fits.")
        try:
            return build_config(cls, plain)
        except ConfigError as error:
            raise AdapterError(
                f"The adapter's causal recipe cannot be read ({error}): it was written by another version, or by hand."
            ) from error

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> "CausalRecipe | None":
        """Return the recipe in an adapter's metadata, or None where it has none: the adapter is bidirectional.

        Raises:
            AdapterError: The recipe is damaged.
        """
        return cls.from_json(metadata[RECIPE_KEY]) if metadata.get(RECIPE_KEY) is not None else None


@dataclass(frozen=True, kw_only=True)
class CausalConfig:
    """How to generate causally; what is null is taken from the adapter's recipe, or else from the defaults named."""

    chunk_frames: int | None = None
    """Latent frames that are denoised together; required where the adapter has no recipe."""
    window_frames: int | Literal["all"] | None = None
    """Latent frames that a chunk sees, itself and the sink included, or all. Default: all."""
    sink_frames: int | None = None
    """First latent frames of the clip that stay visible. Default: 0."""
    first_chunk_steps: int | None = None
    """Steps that the first chunk gets at least; 1 treats all chunks alike. Default: 1."""
    schedule: StepSchedule | None = None
    """How num_steps noise levels are chosen. Default: skip."""
    renoise: Literal["sde", "ode"] | None = None
    """Fresh noise between steps, or the straight line. Default: sde."""
    context_noise: float | None = None
    """Noise level at which a finished chunk is read into the cache, in [0, 1). Default: 0."""
    recache: bool | None = None
    """Whether a finished chunk is read once more for the cache. Default: true."""

    def over(self, recorded: CausalRecipe | None, *, shift: float) -> CausalRecipe:
        """Return the recipe of a roll-out.

        Args:
            recorded: The adapter's.
            shift: Sigma shift where there is none.

        Raises:
            ConfigError: chunk_frames is not known, the first chunk's steps would stretch the list of noise levels that
                the adapter was trained on, or the values do not hold together.
        """
        if recorded is None:
            if self.chunk_frames is None:
                raise ConfigError(
                    "Causal generation needs an adapter that was trained causally, and this run has none with a "
                    "recipe: name such an adapter, or set causal.chunk_frames yourself."
                )
            recorded = CausalRecipe(layout=CausalLayout(chunk_frames=self.chunk_frames), shift=shift)
        elif (self.schedule or recorded.schedule) == "prefix" and (self.first_chunk_steps or 1) > recorded.longest:
            raise ConfigError(
                f"causal.first_chunk_steps={self.first_chunk_steps}: this adapter's list has {recorded.longest} noise "
                f"levels, and a longer one would move those of every chunk. {recorded.longest} or fewer fit."
            )
        layout = _given({"chunk_frames": self.chunk_frames, "sink_frames": self.sink_frames})
        if self.window_frames is not None:
            layout["window_frames"] = None if self.window_frames == "all" else self.window_frames
        rollout = {name: getattr(self, name) for name in ("renoise", "context_noise", "recache")}
        own = {name: getattr(self, name) for name in ("first_chunk_steps", "schedule")}
        return replace(
            recorded,
            layout=replace(recorded.layout, **layout),
            rollout=replace(recorded.rollout, **_given(rollout)),
            **_given(own),
        )


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
