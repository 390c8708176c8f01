"""Watch a run: validate against the base, read the guards, raise alarms, stop early, keep the best adapter."""

import dataclasses
import logging
import math
from collections.abc import Mapping
from typing import Any, cast

from rewards.composite import Normalisation
from rlhf_video.algorithms.clip_maker import attention_file_sha256
from rlhf_video.algorithms.learner import AdapterState, Learner
from rlhf_video.algorithms.reward_bp_config import RewardBpConfig
from rlhf_video.algorithms.reward_bp_setup import World
from rlhf_video.errors import ConfigError
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
        self._best_gain = -math.inf
        self.best_step: int | None = None
        """Finished steps of the adapter with the best held-out gain, even where the base is better still."""
        self.stopped_at: int | None = None
        """Finished steps when the held-out reward ended the run; None while it goes on."""
        self.alarms: list[Alarm] = []

    def restore_or_start(self) -> int:
        """Load the newest checkpoint, or measure the base model; return the first step to take."""
        restored = self._run.restore()
        if restored is None:
            measured = self._world.measure_normalisation()
            self._normalisation = self._world.distribution.broadcast_object(measured)
        else:
            self._load(cast(Mapping[str, Any], restored[1]["watch"]))
            self._learner.load_state(restored[1])
        self._world.set_normalisation(self._normalisation)
        for key, statistics in self._normalisation.items():
            logger.info("Base model: %s has mean %.4g and deviation %.4g", key, statistics.mean, statistics.std)
        return 0 if restored is None else restored[0]

    @property
    def has_stopped(self) -> bool:
        """Whether the held-out reward ended the run."""
        return self.stopped_at is not None

    def validate(self, step: int, *, decides: bool = True) -> None:
        """Compare the averaged adapter with the base, log it, and decide whether to go on; call it on every process.

        Args:
            step: Step that the numbers are logged under.
            decides: Whether early stop and best adapter learn of it. Not at the end between two regular validations: a
                run that is made longer later has none there.
        """
        with self._learner.ema.swapped():
            latest = measure(self._world, self._world.validator, scale=1.0)
        comparison = latest.comparison
        numbers = comparison.metrics()
        for reading in latest.readings:
            name = reading.name if reading.name != "held-out" else f"held-out/{reading.score}"
            numbers[f"guard/{name}"] = reading.value
        rewards = self._world.rewards
        numbers["validation/trained_gain"] = comparison.normalised_gain(self._world.trained_directions())
        alarms = list(alarms_of(latest.readings))
        if rewards.held_out_scores:
            numbers["validation/held_out_gain"] = comparison.normalised_gain(rewards.held_out_scores)
            if decides:
                alarms += self._check_held_out(
                    step, numbers["validation/held_out_gain"], numbers["validation/trained_gain"]
                )
        numbers["guard/alarms"] = float(len(alarms))
        self._run.log(numbers, step=step)
        for alarm in alarms:
            logger.warning("ALARM at step %d: %s", step + 1, alarm.message)
        self.alarms = [*self.alarms, *alarms]

    def _check_held_out(self, step: int, held_out: float, trained: float) -> list[Alarm]:
        # Scores may differ in their last bits between processes; one that stops alone leaves the others waiting.
        held_out, trained = self._world.distribution.broadcast_object((held_out, trained))
        alarm = self._held_out_stop.update(step + 1, held_out=held_out, trained=trained)
        if held_out >= self._best_gain:
            self._best, self._best_gain, self.best_step = self._learner.published(), held_out, step + 1
        if alarm is None:
            return []
        if self._config.held_out_stop.enabled:
            self.stopped_at = step + 1
        return [alarm]

    def return_to_best(self) -> None:
        """After an early stop, make the adapter the best validated one; call it on every process."""
        if self.has_stopped:
            assert self._best is not None
            self._learner.load_published(self._best)

    def state(self) -> dict[str, object]:
        """Return what a checkpoint holds of the watch."""
        return {
            "watch": {
                "normalisation": {key: dataclasses.asdict(value) for key, value in self._normalisation.items()},
                "held_out_stop": self._held_out_stop.state_dict(),
                "alarms": [dataclasses.asdict(alarm) for alarm in self.alarms],
                "stopped_at": self.stopped_at,
                "best": self._best,
                "best_gain": self._best_gain,
                "best_step": self.best_step,
                "prompts": self._files(),
            }
        }

    def _files(self) -> dict[str, str | None]:
        """Return the sha256 of what the config names by path and the run may not change."""
        suites = self._world.suites
        return {
            "prompts.train": suites.train.sha256,
            "prompts.validation": suites.validation.sha256,
            "attention.file": attention_file_sha256(self._config.attention),
        }

    def _load(self, state: Mapping[str, Any]) -> None:
        changed = [name for name, sha256 in self._files().items() if state["prompts"][name] != sha256]
        if changed:
            raise ConfigError(
                f"The file of {' and '.join(changed)} is not the one that the run was started with: put it back, or "
                "choose another output_dir."
            )
        self._normalisation = {key: Normalisation(**value) for key, value in state["normalisation"].items()}
        self._held_out_stop.load_state_dict(state["held_out_stop"])
        self.alarms = [Alarm(**alarm) for alarm in state["alarms"]]
        self._best, self._best_gain = state["best"], state["best_gain"]
        self.best_step, self.stopped_at = state["best_step"], state["stopped_at"]


def measure(world: World, validator: Validator, *, scale: float) -> Validated:
    """Compare base and adapter at one strength on the validator's prompts; call it on every process."""
    comparison, clips = validator.compare(scale)
    readings = read_guards(comparison, world.config.guards, held_out=world.rewards.held_out_scores)
    return Validated(comparison, validator.base()[0], clips, readings)
