"""The original's side of benchmarks/evaluation_speed.py, run by the interpreter of its worker environment.

Stand-alone: it imports the worker's scorer file by path, for where weights lie and how they are read, and nothing else
of this repository. The package's own `compute_DIMENSION` then runs over all clips, as its `evaluate` calls it. One JSON
object of settings comes as the argument; each line of stdin names a description of clips and the dimensions to compute,
each answer is one line.

Models are loaded by the package, once per dimension, at its first turn; what that takes is taken off that turn and told
apart.
"""

import importlib
import importlib.util
import json
import sys
import time
from functools import wraps
from pathlib import Path

import torch


class Loading:
    """What loaders have returned, and how long they took, in wall-clock and in process seconds."""

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self.wall = self.cpu = 0.0
        self._kept: dict[tuple, object] = {}

    def watch(self, dimension: str, owner, name: str) -> None:  # noqa: ANN001
        """Let a module's loader be timed, and answer from memory at later turns of the same dimension."""
        load = getattr(owner, name)
        load = getattr(load, "__wrapped__", load)

        @wraps(load, updated=())
        def timed(*arguments, **named):  # noqa: ANN002, ANN003, ANN202
            key = (dimension, name, repr(arguments), repr(named))
            if key not in self._kept:
                wall, cpu = time.perf_counter(), time.process_time()
                loaded = load(*arguments, **named)
                self.wall += time.perf_counter() - wall
                self.cpu += time.process_time() - cpu
                if not self._keep:
                    return loaded
                self._kept[key] = loaded
            return self._kept[key]

        setattr(owner, name, timed)


def import_scorer(path: str):  # noqa: ANN201
    """Import the scorer by path."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Original:
    """The package, ready to compute."""

    def __init__(self, settings: dict) -> None:
        """Import every dimension's module; imports count on neither side."""
        scorer = import_scorer(settings["scorer"])
        self.scorer = scorer.Scorer({"cache": settings["cache"], "device": settings["device"]})
        self.loaders, self.loading = scorer.LOADERS, Loading(keep=settings["keep"])
        for dimension in settings["dimensions"]:
            if dimension in ("temporal_style", "overall_consistency"):
                scorer._provide_vocabulary(self.scorer.cache)
            importlib.import_module(f"vbench.{dimension}")

    def compute(self, dimension: str, description: str) -> dict:
        """Compute one dimension of all clips; return seconds, and values by file name."""
        submodules = self.scorer._submodules(dimension)
        for place in self.loaders.get(dimension, ()):
            owner, _, name = place.partition(":")
            self.loading.watch(dimension, importlib.import_module(owner), name)
        module = importlib.import_module(f"vbench.{dimension}")
        self.loading.wall = self.loading.cpu = 0.0
        wall, cpu = time.perf_counter(), time.process_time()
        with torch.no_grad():  # two of its dimensions forget that
            _, results = getattr(module, f"compute_{dimension}")(description, self.scorer.device, submodules)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        scale = 100.0 if dimension == "imaging_quality" else 1.0
        return {
            "wall": wall - self.loading.wall,
            "cpu": cpu - self.loading.cpu,
            "load_wall": self.loading.wall,
            "load_cpu": self.loading.cpu,
            "values": {Path(one["video_path"]).name: float(one["video_results"]) / scale for one in results},
        }


def main() -> None:
    """Answer until stdin ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # the package prints
    settings = json.loads(sys.argv[1])
    original = Original(settings)
    print(
        json.dumps({"versions": {name: module_version(name) for name in settings["versions"]}}),
        file=answers,
        flush=True,
    )
    for line in sys.stdin:
        request = json.loads(line)
        answer = {name: original.compute(name, request["description"]) for name in request["dimensions"]}
        print(json.dumps(answer), file=answers, flush=True)


def module_version(package: str) -> str:
    """Return the version of an installed package."""
    return importlib.import_module("importlib.metadata").version(package)


if __name__ == "__main__":
    main()
