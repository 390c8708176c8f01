"""Which published weight files a metric needs, whether they are here, how big they are and where they come from."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evaluation.metric_catalogue import CATALOGUE
from evaluation.ports.long_consistency import DINOV2
from evaluation.ports.weights import cached_weights
from evaluation.vbench_compat.official import WORKER
from rewards import catalogue as reward_catalogue
from rewards.factories import load_factory
from rewards.ledger import LEDGER
from rewards.workers.environments import find
from rewards.workers.lock import load_lock
from rewards.workers.vbench_cache import FILES, missing, vbench_cache


@dataclass(frozen=True)
class WeightState:
    """One file."""

    name: str
    """In the ledger."""
    size: int | None
    """Bytes, None where not stated."""
    source: str
    """Where it comes from."""
    path: Path | None
    """Where it is, None where it is not here."""

    def __str__(self) -> str:
        """Return which, how big, where from."""
        size = (
            "size not stated"
            if self.size is None
            else f"{self.size / 1e9:.2f} GB"
            if self.size >= 1e7
            else f"{self.size / 1e6:.2g} MB"
        )
        return f"{self.name} ({size}, {self.source}{', here' if self.path else ', not here'})"


def weight_states(name: str, options: Mapping[str, object]) -> tuple[WeightState, ...]:
    """Return the state of the ledger's files that a metric loads when it is built so; nothing is downloaded."""
    return tuple(weight_state(weight) for weight in _needed(name, options) if weight in LEDGER)


def weight_state(name: str) -> WeightState:
    """Return the state of one file of the ledger."""
    entry = LEDGER[name]
    source = f"{entry.repository} on the Hub" if entry.repository else str(entry.url)
    return WeightState(name, entry.size, source, cached_weights(name))


def official_needs(options: Mapping[str, object]) -> tuple[str, ...]:
    """Return what a dimension of VBench's own package lacks, with size, source and command; empty for nothing."""
    dimension = str(options.get("dimension"))
    environment = find(load_lock(WORKER))
    lacks = [] if environment else [f"the environment of VBench's package: `rlhf-video rewards env create {WORKER}`"]
    if dimension in FILES:
        folder = options.get("cache_dir")
        cache = vbench_cache(folder if isinstance(folder, str | Path) else None)
        lacks += missing(dimension, cache, environment)
    return tuple(lacks)


def describe_absent(name: str, options: Mapping[str, object]) -> str:
    """Return " It needs ..." for the files that are not here, empty where none is missing."""
    missing = [str(state) for state in weight_states(name, options) if state.path is None]
    return f" It needs {'; '.join(missing)}." if missing else ""


def _needed(name: str, options: Mapping[str, object]) -> tuple[str, ...]:
    """Return the ledger's names: defaults of the metric's arguments, and what options name in their place."""
    nested = options.get("options")
    inner: Mapping[str, object] = nested if isinstance(nested, Mapping) else {}
    if name == "reward":
        return _needed_by_reward(str(options.get("name")), inner)
    if name == "drift":
        return _needed(str(options.get("metric")), inner)
    if name == "vbench_long":
        dimension, choice = str(options.get("dimension")), options.get("clip_to_clip", "dinov2")
        compares = dimension == "subject_consistency" and choice == "dinov2"
        own = str(options.get("clip_to_clip_weights", DINOV2))
        return (*(_needed(dimension, inner)), *((own,) if compares else ()))
    parameters = inspect.signature(load_factory("metric", name, CATALOGUE)).parameters.values()
    values = [options.get(parameter.name, parameter.default) for parameter in parameters]
    return tuple(dict.fromkeys(value for value in values if isinstance(value, str) and value in LEDGER))


def _needed_by_reward(name: str, options: Mapping[str, object]) -> tuple[str, ...]:
    named = tuple(value for value in options.values() if isinstance(value, str) and value in LEDGER)
    entry = reward_catalogue.CATALOGUE.get(name)
    if named or entry is None or {"weights", "model"} & set(options):
        return named
    return entry.weights
