"""Watch a run: validate against the base, read the guards, raise alarms, refuse data that changed."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from rlhf_video.algorithms.clip_maker import attention_file_sha256
from rlhf_video.algorithms.learner import Learner
from rlhf_video.algorithms.world import Validated, World
from rlhf_video.errors import ConfigError
from rlhf_video.runtime import Run
from rlhf_video.validation import Alarm, alarms_of

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Further:
    """What one method alone measures at a validation."""

    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """By metric name, prefix included."""
    alarms: tuple[Alarm, ...] = ()
    """What a reader must know."""


class Part(Protocol):
    """Something else that a checkpoint holds."""

    def state(self) -> Mapping[str, Any]:
        """Return what to keep; called on every process."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        ...


Extra = Callable[[Validated, str], Further]
"""Measures what only a method knows: (the comparison with the base, prefix of names) -> what it found."""


class Watch:
    """Validations and alarms of one run; part of its checkpoints."""

    def __init__(
        self,
        world: World,
        learner: Learner,
        run: Run,
        extra: Extra,
        *,
        files: Mapping[str, str | None],
        parts: Mapping[str, Part] | None = None,
    ) -> None:
        """Watch a run.

        Args:
            world: The model and the scores.
            learner: What is validated: its average.
            run: Where numbers go.
            extra: Measures what only this method knows.
            files: Config field -> sha256 of what lies there, beside the prompts; a resumed run must find the same.
            parts: Name in checkpoints -> what else they hold.
        """
        self._world, self._learner, self._run, self._extra = world, learner, run, extra
        self._parts = dict(parts or {})
        self._files = {
            "prompts.validation": world.suites.validation.sha256,
            "attention.file": attention_file_sha256(world.config.attention),
            **files,
        }
        self.alarms: list[Alarm] = []
        self.latest: Validated | None = None
        """The last validation of this process, of the weights as they were then."""

    def restore_or_start(self) -> int:
        """Load the newest checkpoint; return the first step to take.

        Raises:
            ConfigError: The prompts or the clips are not those of the checkpoint.
        """
        restored = self._run.restore()
        if restored is None:
            return 0
        state = cast(Mapping[str, Any], restored[1]["watch"])
        changed = [name for name, sha256 in self._files.items() if state["files"][name] != sha256]
        if changed:
            raise ConfigError(
                f"What {' and '.join(changed)} names is not what the run was started with: put it back, or choose "
                "another output_dir."
            )
        self.alarms = [Alarm(**alarm) for alarm in state["alarms"]]
        self._learner.load_state(restored[1])
        for name, part in self._parts.items():
            part.load_state(cast(Mapping[str, Any], restored[1][name]))
        return restored[0]

    def validate(self, step: int) -> None:
        """Compare the averaged adapter with the base and log it; call it on every process."""
        with self._learner.ema.swapped():
            latest = self._world.measure(self._world.validator)
            further = self._extra(latest, "validation")
        numbers = {**latest.comparison.metrics(), **further.numbers}
        for reading in latest.readings:
            numbers[f"guard/{reading.name}"] = reading.value
        alarms = [*alarms_of(latest.readings), *further.alarms]
        numbers["guard/alarms"] = float(len(alarms))
        self._run.log(numbers, step=step)
        for alarm in alarms:
            logger.warning("ALARM at step %d: %s", step + 1, alarm.message)
        self.alarms, self.latest = [*self.alarms, *alarms], latest

    def state(self) -> dict[str, object]:
        """Return what a checkpoint holds of the watch."""
        parts = {name: part.state() for name, part in self._parts.items()}
        return {
            "watch": {"alarms": [dataclasses.asdict(alarm) for alarm in self.alarms], "files": self._files},
            **parts,
        }
