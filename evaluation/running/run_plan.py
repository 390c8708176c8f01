"""What a run would do before it does anything: clips, weights, memory, time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from evaluation.base import ClipEntry, DecodedClip, Family
from evaluation.prompt_suites import Suite
from evaluation.registry import NamedMetric, build_metric
from evaluation.running.generation_plan import SystemPlan, plan_system
from evaluation.running.metric_building import label_of
from evaluation.running.runner import is_asked, pending, try_metric
from evaluation.running.scoring_run import RESULTS
from evaluation.running.store import ResultStore
from evaluation.running.suite_config import EvaluationConfig, MetricConfig
from evaluation.running.systems import SystemClips, declared_size, read_clips, read_suite
from evaluation.running.weights_state import WeightState, official_needs, weight_states
from evaluation.vbench_compat.length_rule import length_warnings
from rewards.errors import RewardError
from rlhf_video.data import ClipSize, read_frames
from rlhf_video.errors import RlhfVideoError
from rlhf_video.report.markdown import markdown_table
from rlhf_video.runtime.memory import peak_memory

_WARM = 1.0  # seconds; a first call below this is repeated, since it holds what is loaded once
_GIB = 2**30


@dataclass(frozen=True)
class _Line:
    """One metric of the plan."""

    label: str
    family: Family | None
    """None where it cannot be built."""
    to_do: int | None
    seconds: float | None
    source: str
    weights: tuple[WeightState, ...]
    missing: tuple[str, ...] = ()
    """What it needs and is not here, or why it cannot be built."""


def plan(config: EvaluationConfig, *, measure: bool = True) -> str:
    """Return what generating and scoring would take.

    Args:
        config: The evaluation.
        measure: Score one clip by every metric that has no recorded seconds (nothing is stored), and generate one step;
            else leave it open. Metrics are built either way: what is recorded lies under a key that only they know.

    Raises:
        RlhfVideoError: The suite, a model folder or a metric's name or option does not fit.
    """
    suite, problem = _suite_or_problem(config)
    systems = [plan_system(config, name, suite, measure=measure) for name in config.systems]
    clips = _clips_or_problem(config, suite)
    store = ResultStore(config.output_dir / RESULTS, None)
    sample = _sample_clip(config, suite, clips)
    num_clips = None if suite is None else suite.num_clips * len(config.systems)
    lines = [
        _metric_line(config, entry, clips, num_clips, store, sample if measure else None) for entry in config.metrics
    ]
    missing: dict[str, list[str]] = {} if problem is None else {problem: ["suite"]}
    for who, lacks in [(system.name, system.missing) for system in systems] + [
        (line.label, line.missing) for line in lines
    ]:
        for item in lacks:
            missing.setdefault(item, []).append(who)
    asked = (
        "not here" if suite is None else f"{suite.name}: {len(suite.prompts)} prompts, {num_clips} clips of all systems"
    )
    parts = [f"suite       {asked}", *(system.text for system in systems), "", _metric_table(lines), ""]
    parts += [*_time_texts(lines, systems), _memory_text(config, lines, sample)]
    parts += [f"note        {warning}" for warning in _length_warnings(lines, clips, sample)]
    if isinstance(clips, str):
        parts.append(f"clips       not ready: {clips}")
    return "\n".join([*parts, *_missing_texts(missing)])


def _suite_or_problem(config: EvaluationConfig) -> tuple[Suite | None, str | None]:
    """Return the suite, or why the file of VBench's environment is not here."""
    try:
        return read_suite(config), None
    except RewardError as error:
        return None, str(error)


def _clips_or_problem(config: EvaluationConfig, suite: Suite | None) -> Mapping[str, SystemClips] | str:
    if suite is None:
        return "the suite is not here"
    try:
        return read_clips(config, suite)
    except RlhfVideoError as error:
        return str(error)


def _metric_line(
    config: EvaluationConfig,
    entry: MetricConfig,
    clips: Mapping[str, SystemClips] | str,
    num_clips: int | None,
    store: ResultStore,
    sample: DecodedClip | None,
) -> _Line:
    states = weight_states(entry.name, entry.options)
    lacks = tuple(str(state) for state in states if state.path is None)
    lacks += official_needs(entry.options) if entry.name == "vbench_official" else ()
    if lacks:
        return _Line(label_of(entry), None, None, None, "not here", states, lacks)
    try:
        metric = build_metric(entry.name, entry.label, entry.options, device=config.device)
    except (RewardError, RlhfVideoError) as error:
        return _Line(label_of(entry), None, None, None, "cannot be built", states, (str(error),))
    if isinstance(clips, str):
        seen: list[float] = []
        to_do = num_clips
    else:
        entries = [item for of_system in clips.values() for item in of_system.entries]
        asked = [item for item in entries if any(is_asked(item, metric.spec, d) for d in metric.spec.dimensions)]
        to_do = sum(bool(pending(item, [metric], store)) for item in asked)
        results = [store.find(item, metric.key) for item in asked]
        seen = [result.seconds for result in results if result is not None and result.status == "ok"]
    seconds, source = (sum(seen) / len(seen) if seen else None), "recorded"
    if seconds is None and sample is not None:
        seconds, source = _measured(metric, sample), "measured on one clip"
    return _Line(metric.label, metric.spec.family, to_do, seconds, source if seconds is not None else "open", states)


def _sample_clip(
    config: EvaluationConfig, suite: Suite | None, clips: Mapping[str, SystemClips] | str
) -> DecodedClip | None:
    """Return a clip to measure on: the first one, or noise of the declared size; None where neither is known."""
    if not isinstance(clips, str):
        entry = next(item for of_system in clips.values() for item in of_system.entries)
        return DecodedClip(entry, *read_frames(entry.file))
    sizes = [declared_size(config, name) for name in config.systems]
    size = next((size for size in sizes if size is not None), None)
    if size is None or suite is None:
        return None
    entry = ClipEntry(file=Path("noise.mp4"), sha256="", prompt=suite.prompts[0].prompt, facts=suite.prompts[0].facts)
    return DecodedClip(entry, _noise(size), float(config.sampling.fps or 16))


def _length_warnings(
    lines: Sequence[_Line], clips: Mapping[str, SystemClips] | str, sample: DecodedClip | None
) -> list[str]:
    """Say which suite does not fit the clips: those that are there, else the declared length."""
    if isinstance(clips, str):
        seconds = [] if sample is None else [len(sample.frames) / sample.fps]
    else:
        entries = [entry for of_system in clips.values() for entry in of_system.entries]
        seconds = [entry.seconds for entry in entries if entry.seconds is not None]
    return length_warnings({line.family for line in lines if line.family is not None}, seconds)


def _noise(size: ClipSize) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (size.num_frames, 3, size.height, size.width)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def _measured(named: NamedMetric, clip: DecodedClip) -> float | None:
    """Return the seconds of one clip; None where the metric cannot score this one."""
    trial = try_metric(named, clip)
    if trial.seconds < _WARM:
        trial = try_metric(named, clip)
    return None if trial.status == "failed" else trial.seconds


def _metric_table(lines: Sequence[_Line]) -> str:
    rows = [
        [
            line.label,
            line.family or "",
            "-" if line.to_do is None else str(line.to_do),
            "-" if line.seconds is None else f"{line.seconds:.3f}",
            line.source,
            "; ".join(map(str, line.weights)) or ("see below" if line.missing else "none"),
        ]
        for line in lines
    ]
    header = ["metric", "family", "clips to score", "s/clip", "how known", "weights"]
    return markdown_table(header, rows, align="llrrll").rstrip()


def _time_texts(lines: Sequence[_Line], systems: Sequence[SystemPlan]) -> list[str]:
    known = [line for line in lines if line.seconds is not None and line.to_do is not None]
    total = sum((line.seconds or 0.0) * (line.to_do or 0) for line in known)
    rest = len(lines) - len(known)
    more = f", and {rest} metrics whose time is not known" if rest else ""
    texts = [f"time        {total / 60:.1f} min for scoring on one process{more}"]
    return texts + [f"            generating: {system.time_text}" for system in systems if system.num_left]


def _missing_texts(missing: Mapping[str, Sequence[str]]) -> list[str]:
    """Return each thing that is not here once, with who needs it."""
    if not missing:
        return []
    head = f"missing     {len(missing)} things; --partial leaves out the metrics that lack something"
    return [head, *(f"  - {item} (for {', '.join(dict.fromkeys(who))})" for item, who in missing.items())]


def _memory_text(config: EvaluationConfig, lines: Sequence[_Line], sample: DecodedClip | None) -> str:
    device = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
    num_here = sum(not line.missing for line in lines)
    text = (
        f"memory      {peak_memory(device) / _GIB:.2f} GiB at most so far on {device}, of the {num_here} of "
        f"{len(lines)} metrics that are here; workers and generation not included"
    )
    if sample is not None:
        size = sample.frames.numel() * 5  # bytes, and the same in float32
        text += f"; a decoded clip is {size / _GIB:.3f} GiB of it"
    absent = {state.name: state.size for line in lines for state in line.weights if state.path is None}
    if absent:
        stated = [size for size in absent.values() if size is not None]
        unknown = len(absent) - len(stated)
        more = f", and {unknown} of unknown size" if unknown else ""
        text += f"\n            absent weights are {sum(stated) / 1e9:.2f} GB in {len(stated)} files{more}"
    return text
