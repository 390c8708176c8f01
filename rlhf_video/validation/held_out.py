"""Early stop when a held-out reward falls while the trained one rises (Gao et al. 2022, arXiv:2210.10760)."""

import math
from dataclasses import dataclass

from rlhf_video.errors import ConfigError
from rlhf_video.validation.guards import Alarm


@dataclass(frozen=True, kw_only=True)
class HeldOutStopConfig:
    """When over-optimisation ends the run."""

    enabled: bool = True
    """Stop the run; the alarm alone is always logged."""
    tolerance: float = 0.15
    """Fall of the held-out gain below its best that counts, in standard deviations of the base's scores."""
    patience: int = 2
    """Validations in a row that must show the fall."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0.0):
            raise ConfigError(f"held_out_stop.tolerance={self.tolerance} must be 0 or more, for example 0.15.")
        if self.patience < 1:
            raise ConfigError(f"held_out_stop.patience={self.patience} must be 1 or more.")


class HeldOutStop:
    """Remember the best held-out gain and say when training has gone past it.

    Step 0 is the base itself: both gains are 0 there, so an adapter that only hurts is caught too.
    """

    def __init__(self, config: HeldOutStopConfig | None = None) -> None:
        self.config = config or HeldOutStopConfig()
        self.best_step = 0
        self.best_held_out = 0.0
        self.trained_at_best = 0.0
        self.num_bad = 0

    def update(self, step: int, *, held_out: float, trained: float) -> Alarm | None:
        """Take one validation and return an alarm when the run should stop.

        Args:
            step: Optimiser step of the validation.
            held_out: Gain of the held-out rewards over the base, in standard deviations (`Comparison.normalised_gain`).
            trained: Gain of the trained rewards over the base, in the same unit.

        Returns:
            None while all is well; an alarm once the fall lasted `patience` validations.
        """
        if held_out >= self.best_held_out:
            self.best_step, self.best_held_out, self.trained_at_best = step, held_out, trained
            self.num_bad = 0
            return None
        fell = held_out < self.best_held_out - self.config.tolerance
        self.num_bad = self.num_bad + 1 if fell and trained > self.trained_at_best else 0
        if self.num_bad < self.config.patience:
            return None
        held_out_fall = f"from {self.best_held_out:+.2f} (step {self.best_step}) to {held_out:+.2f}"
        trained_rise = f"from {self.trained_at_best:+.2f} to {trained:+.2f}"
        best = f"The adapter of step {self.best_step} was better" if self.best_step else "The base was better"
        message = (
            f"Held-out reward fell {held_out_fall} while the trained one rose {trained_rise} (standard deviations of "
            f"the base): the reward is being exploited. {best}: a run that stops here publishes its best "
            "validated adapter. Lower the learning rate, raise the pull to the base, or train on more than one reward."
        )
        return Alarm("held-out stop", held_out, self.best_held_out - self.config.tolerance, message)

    def state_dict(self) -> dict[str, float]:
        """Return what a checkpoint needs."""
        return {
            "best_step": float(self.best_step),
            "best_held_out": self.best_held_out,
            "trained_at_best": self.trained_at_best,
            "num_bad": float(self.num_bad),
        }

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from a checkpoint."""
        self.best_step, self.num_bad = int(state["best_step"]), int(state["num_bad"])
        self.best_held_out, self.trained_at_best = float(state["best_held_out"]), float(state["trained_at_best"])
