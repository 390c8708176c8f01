"""The sides of benchmarks/evaluation_speed.py: ours, and the original with and without our bridge."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psutil
import torch

from evaluation.base import ClipEntry
from evaluation.registry import NamedMetric, build_metric
from evaluation.running.runner import score_clips
from evaluation.running.store import ResultStore
from rlhf_video.data import read_frames

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Turn:
    """One side, once over all clips."""

    cpu: float = 0.0
    wall: float = 0.0
    by_metric: dict[str, float] = field(default_factory=dict)
    """CPU seconds, where metrics were run one by one."""
    values: dict[tuple[str, str], float] = field(default_factory=dict)
    """(File name, dimension) -> value."""

    def add(self, metric: str, other: "Turn") -> None:
        """Join a turn of one metric."""
        self.cpu, self.wall = self.cpu + other.cpu, self.wall + other.wall
        self.by_metric[metric] = other.cpu
        self.values |= other.values


Side = Callable[[Sequence[ClipEntry]], Turn]
SUITE, ONE_BY_ONE, ORIGINAL, BRIDGED = "suite", "metric by metric", "original", "original, bridged"


class Party(Protocol):
    """Whoever has sides."""

    load: float
    """CPU seconds of loading."""
    versions: dict[str, str]

    def sides(self) -> dict[str, Side]:
        """Return them by name."""

    def close(self) -> None:
        """Free what was loaded."""


class Ours:
    """Our metrics, built."""

    def __init__(self, names: Sequence[str], options: Mapping[str, Mapping[str, object]]) -> None:
        """Build them and note how long that takes."""
        start = time.process_time()
        self.metrics = [build_metric(name, None, options.get(name, {}), device="cpu") for name in names]
        self.load = time.process_time() - start
        self.versions: dict[str, str] = {}

    def sides(self) -> dict[str, Side]:
        """Return both."""
        return {SUITE: self.suite, ONE_BY_ONE: self.one_by_one}

    def close(self) -> None:
        """Free the models."""
        self.metrics = []

    def suite(self, entries: Sequence[ClipEntry]) -> Turn:
        """Score all clips by all metrics."""
        return scored(entries, self.metrics)

    def one_by_one(self, entries: Sequence[ClipEntry]) -> Turn:
        """Score all clips by one metric after the other, each with its own decoding."""
        turn = Turn()
        for metric in self.metrics:
            turn.add(metric.label, scored(entries, [metric]))
        return turn


class Original:
    """The package in a process of its own."""

    def __init__(self, python: Path, cache: Path, names: Sequence[str], folder: Path, *, keep: bool) -> None:
        """Start it; its imports are done when this returns. With `keep`, models stay for later turns."""
        settings = {
            "scorer": str(ROOT / "rewards" / "workers" / "vbench_scorer.py"),
            "cache": str(cache),
            "device": "cpu",
            "dimensions": list(names),
            "keep": keep,
            "versions": ["vbench", "torch", "opencv-python", "decord"],
        }
        self._names, self._folder, self._errors = tuple(names), folder, (folder / "original.log").open("w+")
        command = [str(python), str(ROOT / "benchmarks" / "evaluation_speed_original.py"), json.dumps(settings)]
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        variables["OMP_NUM_THREADS"] = str(torch.get_num_threads())
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=variables
        )
        self.versions: dict[str, str] = self._answer()["versions"]
        self.load = 0.0

    def sides(self) -> dict[str, Side]:
        """Return the one."""
        return {ORIGINAL: self.turn}

    def turn(self, entries: Sequence[ClipEntry]) -> Turn:
        """Compute every dimension of all clips."""
        description = self._folder / "full_info.json"
        clips = [
            {
                "prompt_en": entry.prompt,
                "dimension": list(self._names),
                "video_list": [str(entry.file)],
                "auxiliary_info": {"appearance_style": dict(entry.facts)},
            }
            for entry in entries
        ]
        description.write_text(json.dumps(clips))
        turn = Turn()
        for name in self._names:
            assert self._process.stdin is not None
            print(
                json.dumps({"description": str(description), "dimensions": [name]}),
                file=self._process.stdin,
                flush=True,
            )
            found = self._answer()[name]
            values = {(file, name): value for file, value in found["values"].items()}
            turn.add(name, Turn(cpu=found["cpu"], wall=found["wall"], values=values))
            self.load += found["load_cpu"]
        return turn

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._errors.close()

    def _answer(self) -> dict:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise SystemExit(f"The original's process ended: {self._errors.read()[-2000:]}")
        return json.loads(line)


class Bridged:
    """The package through `vbench_official`: one worker process for all dimensions."""

    def __init__(self, cache: Path, names: Sequence[str], warm_up: ClipEntry) -> None:
        """Start the worker and let it load every model, on a tiny clip."""
        self._metrics = [
            build_metric("vbench_official", name, {"dimension": name, "cache_dir": cache}, device="cpu")
            for name in names
        ]
        self.versions: dict[str, str] = {}
        before = descendants_cpu()
        scored([warm_up], self._metrics, may_fail=True)
        self.load = descendants_cpu() - before

    def sides(self) -> dict[str, Side]:
        """Return the one."""
        return {BRIDGED: self.turn}

    def turn(self, entries: Sequence[ClipEntry]) -> Turn:
        """Score all clips; CPU seconds are those of both processes."""
        before = descendants_cpu()
        turn = scored(entries, self._metrics)
        turn.cpu += descendants_cpu() - before
        return turn

    def close(self) -> None:
        """End the worker."""
        self._metrics[0].metric.close()


def descendants_cpu() -> float:
    """Return the CPU seconds of this process's live children."""
    times = (child.cpu_times() for child in psutil.Process().children(recursive=True))
    return sum(one.user + one.system for one in times)


def scored(entries: Sequence[ClipEntry], metrics: Sequence[NamedMetric], *, may_fail: bool = False) -> Turn:
    """Score clips as a run does, with a store of its own."""
    with tempfile.TemporaryDirectory() as folder, ResultStore(Path(folder)) as store:
        cpu, wall = time.process_time(), time.perf_counter()
        score_clips(entries, metrics, store)
        turn = Turn(cpu=time.process_time() - cpu, wall=time.perf_counter() - wall)
        for entry in entries:
            for metric in metrics:
                result = store.find(entry, metric.key)
                assert result is not None
                if result.status != "ok" and not may_fail:
                    raise SystemExit(f"{metric.label} of {entry.file.name} {result.status}: {result.reason}")
                turn.values |= {(entry.file.name, name): value for name, value in result.values.items()}
    return turn


def decoding(entries: Sequence[ClipEntry]) -> float:
    """Return the CPU seconds of decoding all clips once."""
    start = time.process_time()
    for entry in entries:
        read_frames(entry.file)
    return time.process_time() - start
