"""Drive a validation: generate the base once, the adapter at any strength, score both alike."""

from collections.abc import Callable, Mapping, Sequence

from rlhf_video.validation.clips import Clips, Scores
from rlhf_video.validation.comparison import Comparison
from rlhf_video.validation.guards import GuardConfig
from rlhf_video.validation.sweep import DEFAULT_SCALES, StrengthSweep, sweep_strength


class Validator:
    """Compare base and adapter on fixed prompts and noise.

    Args:
        generate_at: Adapter strength -> clips; 0 is the base (adapter off). Every call must use the same prompts and
            the same noise, which `Comparison.of` checks by prompt and seed.
        score: Clips -> scores; `score_clips` joined with `diversity_scores`.
    """

    def __init__(self, generate_at: Callable[[float], Clips], score: Callable[[Clips], Scores]) -> None:
        self._generate_at = generate_at
        self._score = score
        self._base: tuple[Clips, Scores] | None = None

    def base(self) -> tuple[Clips, Scores]:
        """Return the base's clips and scores, generated at the first call and kept."""
        if self._base is None:
            clips = self._generate_at(0.0)
            self._base = clips, self._score(clips)
        return self._base

    def compare(self, scale: float = 1.0) -> tuple[Comparison, Clips]:
        """Return the comparison at one strength, and the adapter's clips."""
        base_clips, base_scores = self.base()
        if scale == 0.0:
            return Comparison.of(base_clips, base_scores, base_clips, base_scores), base_clips
        clips = self._generate_at(scale)
        return Comparison.of(base_clips, base_scores, clips, self._score(clips)), clips

    def sweep(
        self,
        *,
        held_out: Sequence[str],
        trained: Sequence[str] | Mapping[str, float] = (),
        scales: Sequence[float] = DEFAULT_SCALES,
        guards: GuardConfig | None = None,
    ) -> StrengthSweep:
        """Compare at every strength and recommend one; arguments as `sweep_strength`."""
        return sweep_strength(
            lambda scale: self.compare(scale)[0], held_out=held_out, trained=trained, scales=scales, guards=guards
        )
