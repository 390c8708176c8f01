"""What making a system's clips would take: how many, by which model, how long, and what is missing for it."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from evaluation.prompt_suites import Suite
from evaluation.running.suite_config import EvaluationConfig
from evaluation.running.systems import generation
from rlhf_video.algorithms.generate import MANIFEST, GenerateConfig, describe
from rlhf_video.algorithms.generation_pace import Pace, probed_pace, recorded_pace
from rlhf_video.backbones.folders import local_folder


@dataclass(frozen=True)
class SystemPlan:
    """One system."""

    name: str
    text: str
    """Its clips and settings."""
    num_left: int
    """Clips that are still to be made."""
    pace: Pace | None
    """How long one takes; None where nothing is left, or nobody knows."""
    missing: tuple[str, ...]
    """What is not here, and where it comes from."""

    @property
    def time_text(self) -> str:
        """What its clips take."""
        if self.pace is None:
            return f"{self.name} {self.num_left} clips, time not known"
        minutes = self.num_left * self.pace.seconds / 60
        return (
            f"{self.name} {minutes:.1f} min ({self.num_left} clips, {self.pace.seconds:.3g} s each: {self.pace.source})"
        )


def plan_system(config: EvaluationConfig, name: str, suite: Suite | None, *, measure: bool) -> SystemPlan:
    """Plan the clips of a system; nothing is downloaded and nothing written into the run's own folder.

    Args:
        config: The evaluation.
        name: Of the system.
        suite: What is asked; None where it is not here.
        measure: Time one step of the model where there are no clips to tell the pace.

    Raises:
        RlhfVideoError: A model that is here does not fit the settings.
    """
    missing = _missing(config, name)
    count = "an unknown number of" if suite is None else str(suite.num_clips)
    given = config.systems[name].clips
    if given is not None:
        return SystemPlan(name, f"{name}: {count} clips in {given}", 0, None, missing)
    if suite is None:
        return SystemPlan(name, f"{name}: {count} clips", 0, None, missing)
    with tempfile.TemporaryDirectory() as folder:
        parts = generation(config, name, suite, prompt_folder=Path(folder))
        made = {part: _num_made(part) for part in parts}
        num_left = suite.num_clips - sum(made.values())
        text = f"{name}: {sum(made.values())} of {count} clips are made"
        if missing:
            return SystemPlan(name, text, num_left, None, missing)
        texts = [describe(part).replace("\n", "\n  ") for part in parts]
        pace = _pace(parts, measure=measure) if num_left else None
    return SystemPlan(name, "\n  ".join((text, *texts)), num_left, pace, ())


def _missing(config: EvaluationConfig, name: str) -> tuple[str, ...]:
    system = config.systems[name]
    if system.clips is not None:
        return () if system.clips.is_dir() else (f"the folder of clips '{system.clips}': correct the path, or make it",)
    lacks = []
    if local_folder(system.backbone or "") is None:
        lacks.append(
            f"the model '{system.backbone}': no such folder, nor in the Hub's cache; where it is a Hub id, "
            f"`hf download {system.backbone}`"
        )
    if system.adapter is not None and not system.adapter.is_dir():
        lacks.append(f"the adapter '{system.adapter}': train it, or correct the path")
    return tuple(lacks)


def _num_made(part: GenerateConfig) -> int:
    return len(list(part.output_dir.glob("*.mp4"))) if (part.output_dir / MANIFEST).is_file() else 0


def _pace(parts: list[GenerateConfig], *, measure: bool) -> Pace | None:
    recorded = next((pace for part in parts if (pace := recorded_pace(part)) is not None), None)
    if recorded is not None or not measure:
        return recorded
    return probed_pace(parts[0])
