"""From a config to clips: the suite, how each system's clips are made, and the clips that are there."""

import dataclasses
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from evaluation.base import ClipEntry, LeftOutClip
from evaluation.clips.clip_set import read_clip_set
from evaluation.prompt_suites import Suite, load_suite
from evaluation.running.suite_config import EvaluationConfig
from evaluation.vbench_compat.suite import load_vbench_suite
from rlhf_video.algorithms.generate import GenerateConfig, check_made_with
from rlhf_video.data import ClipSize, write_atomic
from rlhf_video.errors import DataError


@dataclass(frozen=True)
class SystemClips:
    """The clips of one system."""

    entries: tuple[ClipEntry, ...]
    left_out: tuple[LeftOutClip, ...]
    """Those of the suite that it lacks, or that are broken; empty unless the evaluation is partial."""


def read_suite(config: EvaluationConfig) -> Suite:
    """Return the prompts of an evaluation.

    Raises:
        ConfigError: More prompts are asked for than there are, or an unknown dimension.
        DataError: The file is missing or malformed.
        RewardError: VBench's installed file is asked for, and its environment is not made.
    """
    asked = config.suite
    if asked.vbench is not None:
        suite = load_vbench_suite(
            asked.vbench, clips_per_prompt=asked.clips_per_prompt, dimensions=asked.dimensions, extended=asked.extended
        )
    else:
        assert asked.prompts is not None
        suite = load_suite(asked.prompts, clips_per_prompt=asked.clips_per_prompt or 1)
    return suite.first(asked.num_prompts)


def clip_groups(config: EvaluationConfig, name: str, suite: Suite) -> dict[Path, Suite]:
    """Return folder -> the part of the suite whose clips lie there; see `Suite.generation_parts`."""
    given = config.systems[name].clips
    if given is not None:
        return {given: suite}
    folder = config.output_dir / "clips" / name
    return {folder / part: prompts for part, prompts in suite.generation_parts().items()}


def generation(
    config: EvaluationConfig, name: str, suite: Suite, *, prompt_folder: Path | None = None
) -> list[GenerateConfig]:
    """Return how a system's clips are made, one config for each folder; none for a system of given clips.

    Args:
        config: The evaluation.
        name: Of the system.
        suite: All prompts.
        prompt_folder: Where prompt files go that must be written; None takes `prompts` in the output folder.

    Raises:
        OSError: The prompt file of a folder cannot be written.
    """
    system = config.systems[name]
    if system.backbone is None:
        return []
    return [
        GenerateConfig(
            backbone=system.backbone,
            adapter=system.adapter,
            adapter_scale=system.adapter_scale,
            attention=system.attention,
            prompts=_prompt_file(config, folder, part, prompt_folder or config.output_dir / "prompts"),
            output_dir=folder,
            clips_per_prompt=part.prompts[0].num_samples,
            seed=config.suite.seed,
            device=config.device,
            **{field.name: getattr(config.sampling, field.name) for field in dataclasses.fields(config.sampling)},
        )
        for folder, part in clip_groups(config, name, suite).items()
    ]


def declared_size(config: EvaluationConfig, name: str) -> ClipSize | None:
    """Return the size that every clip of a system must have, None where nothing is declared."""
    if config.video is not None:
        return ClipSize(config.video.num_frames, config.video.height, config.video.width)
    if config.systems[name].backbone is None:
        return None
    return ClipSize(config.sampling.num_frames, config.sampling.height, config.sampling.width)


def read_clips(config: EvaluationConfig, suite: Suite) -> dict[str, SystemClips]:
    """Return system -> its clips, checked against the suite.

    Raises:
        RlhfVideoError: Clips of a system with a backbone were made with other settings, see `check_made_with`.
        DataError: Clips of any system are missing or wrong (unless partial), or all of them; all systems are named at
            once.
    """
    _check_settings(config, suite)
    clips: dict[str, SystemClips] = {}
    problems = []
    for name in config.systems:
        entries: list[ClipEntry] = []
        left_out: list[LeftOutClip] = []
        made_here = config.systems[name].backbone is not None
        for folder, part in clip_groups(config, name, suite).items():
            if config.partial and made_here and not folder.is_dir():
                left_out += _not_made(part)
                continue
            try:
                size, fps = declared_size(config, name), None if config.video is None else config.video.fps
                found = read_clip_set(folder, part, size=size, fps=fps, partial=config.partial)
            except DataError as error:
                hint = " Make them with: vbench_run.py generate." if made_here else ""
                problems.append(f"System '{name}': {error}{hint}")
            else:
                entries += found.entries
                left_out += found.left_out
        clips[name] = SystemClips(tuple(entries), tuple(left_out))
    if problems:
        raise DataError(" ".join(problems))
    if empty := [name for name, found in clips.items() if not found.entries]:
        raise DataError(f"There is not one clip of {', '.join(empty)}: generate them, or correct 'clips'.")
    return clips


def _check_settings(config: EvaluationConfig, suite: Suite) -> None:
    """Refuse folders whose manifest says other settings than those that this evaluation would make clips with."""
    with tempfile.TemporaryDirectory() as folder:  # reading clips writes no prompt files into the evaluation's folder
        for name in config.systems:
            for part in generation(config, name, suite, prompt_folder=Path(folder)):
                check_made_with(part)


def _not_made(part: Suite) -> list[LeftOutClip]:
    """Return every clip of a part of the suite whose folder is not there."""
    return [
        LeftOutClip(
            clip=f"{asked.prompt}-{number}",
            prompt=asked.prompt,
            sample=number,
            dimensions=asked.dimensions,
            reason="not made yet",
        )
        for asked in part.prompts
        for number in range(asked.num_samples)
    ]


def _prompt_file(config: EvaluationConfig, folder: Path, part: Suite, target: Path) -> Path:
    """Return the file of exactly these prompts; one is written where the suite's own holds others."""
    source = config.suite.prompts
    if source is not None and config.suite.num_prompts is None:
        return source
    path = target / f"{part.name}-{folder.name}.jsonl"
    lines = [json.dumps({"prompt": asked.text}, ensure_ascii=False) + "\n" for asked in part.prompts]
    write_atomic(path, "".join(lines).encode())
    return path
