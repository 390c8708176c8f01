"""Watch a run: validate against the base, read the guards, raise alarms, stop early, keep the best adapter."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, cast

from rewards.composite import Normalisation
from rlhf_video.algorithms.reward_bp_config import RewardBpConfig
from rlhf_video.algorithms.reward_bp_learner import AdapterState, Learner
from rlhf_video.algorithms.reward_bp_setup import World
from rlhf_video.runtime import Run
from rlhf_video.validation import (
    Alarm,
    Clips,
    Comparison,
    GuardReading,
    HeldOutStop,
    Validator,
    alarms_of,
    read_guards,
)

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Validated:
    """One comparison with the base and what the guards said."""

    comparison: Comparison
    base_clips: Clips
    adapter_clips: Clips
    readings: tuple[GuardReading, ...]


class Watch:
    """Validation, guards and early stop of one run; part of its checkpoints."""

    def __init__(self, config: RewardBpConfig, world: World, learner: Learner, run: Run) -> None:
        self._config, self._world, self._learner, self._run = config, world, learner, run
        self._held_out_stop = HeldOutStop(config.held_out_stop)
        self._normalisation: dict[str, Normalisation] = {}
        self._best: AdapterState | None = None
        self.alarms: list[Alarm] = []
        self.has_stopped = False
        """Whether the held-out reward ended the run."""
        self.latest: Validated | None = None
        """The last validation of this process's life, for the report."""

    def restore_or_start(self) -> int:
        """Load the newest checkpoint, or measure the base model; return the first step to take."""
        restored = self._run.restore()
        if restored is None:
            self._normalisation = self._world.measure_normalisation()
        else:
            self._learner.load_state(restored[1])
            self._load(cast(Mapping[str, Any], restored[1]["watch"]))
        self._world.set_normalisation(self._normalisation)
        for key, statistics in self._normalisation.items():
            logger.info("Base model: %s has mean %.4g and deviation %.4g", key, statistics.mean, statistics.std)
        return 0 if restored is None else restored[0]

    @property
    def stopped_at(self) -> int | None:
        """Step of the best validation when the run was stopped early."""
        return self._held_out_stop.best_step if self.has_stopped else None

    def validate(self, step: int) -> None:
        """Compare the averaged adapter with the base, log it, and decide whether to go on."""
        with self._learner.ema.swapped():
            self.latest = measure(self._world, self._world.validator, scale=1.0)
        comparison = self.latest.comparison
        numbers = comparison.metrics()
        for reading in self.latest.readings:
            name = reading.name if reading.name != "held-out" else f"held-out/{reading.score}"
            numbers[f"guard/{name}"] = reading.value
        rewards = self._world.rewards
        trained = self._world.rising_names()
        trained_gain = comparison.normalised_gain(trained) if trained else 0.0
        numbers["validation/trained_gain"] = trained_gain
        alarms = list(alarms_of(self.latest.readings))
        if rewards.held_out_scores:
            numbers["validation/held_out_gain"] = comparison.normalised_gain(rewards.held_out_scores)
            alarms += self._check_held_out(
                step, numbers["validation/held_out_gain"], numbers["validation/trained_gain"]
            )
        numbers["guard/alarms"] = float(len(alarms))
        self._run.log(numbers, step=step)
        for alarm in alarms:
            logger.warning("ALARM at step %d: %s", step + 1, alarm.message)
        self.alarms += alarms

    def _check_held_out(self, step: int, held_out: float, trained: float) -> list[Alarm]:
        alarm = self._held_out_stop.update(step + 1, held_out=held_out, trained=trained)
        if self._held_out_stop.best_step == step + 1:
            self._best = self._learner.published()
        if alarm is None:
            return []
        self.has_stopped = self._config.held_out_stop.enabled
        return [alarm]

    def return_to_best(self) -> None:
        """After an early stop, make the adapter the one of the best validation (nothing, when none beat the base)."""
        if self.has_stopped and self._best is not None:
            self._learner.load_published(self._best)
            with self._learner.ema.swapped():
                self.latest = measure(self._world, self._world.validator, scale=1.0)

    def state(self) -> dict[str, object]:
        """Return what a checkpoint holds of the watch."""
        return {
            "watch": {
                "normalisation": {key: dataclasses.asdict(value) for key, value in self._normalisation.items()},
                "held_out_stop": self._held_out_stop.state_dict(),
                "alarms": [dataclasses.asdict(alarm) for alarm in self.alarms],
                "has_stopped": self.has_stopped,
                "best": self._best,
            }
        }

    def _load(self, state: Mapping[str, Any]) -> None:
        self._normalisation = {key: Normalisation(**value) for key, value in state["normalisation"].items()}
        self._held_out_stop.load_state_dict(state["held_out_stop"])
        self.alarms = [Alarm(**alarm) for alarm in state["alarms"]]
        self.has_stopped, self._best = state["has_stopped"], state["best"]


def measure(world: World, validator: Validator, *, scale: float) -> Validated:
    """Compare base and adapter at one strength on the validator's prompts; call it on every process."""
    comparison, clips = validator.compare(scale)
    readings = read_guards(comparison, world.config.guards, held_out=world.rewards.held_out_scores)
    return Validated(comparison, validator.base()[0], clips, readings)
