"""Which published weight files a metric needs, whether they are here, how big they are and where they come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from evaluation.metric_catalogue import CATALOGUE
from rewards import catalogue as reward_catalogue
from rewards.ledger import LEDGER

_OWN_FILES = ("weights", "model", "clip_weights", "vision_weights")
"""Options that name files in place of the ledger's."""


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
        size = "size not stated" if self.size is None else f"{self.size / 1e9:.2f} GB"
        return f"{self.name} ({size}, {self.source}{', here' if self.path else ', not here'})"


def weight_states(name: str, options: Mapping[str, object]) -> tuple[WeightState, ...]:
    """Return the state of the ledger's files that a metric loads when it is built so; nothing is downloaded."""
    return tuple(weight_state(weight) for weight in _needed(name, options) if weight in LEDGER)


def weight_state(name: str) -> WeightState:
    """Return the state of one file of the ledger."""
    entry = LEDGER[name]
    source = f"{entry.repository} on the Hub" if entry.repository else str(entry.url)
    found = None if entry.repository is None else try_to_load_from_cache(entry.repository, entry.file)
    return WeightState(name, entry.size, source, Path(found) if isinstance(found, str) else None)


def describe_absent(name: str, options: Mapping[str, object]) -> str:
    """Return " It needs ..." for the files that are not here, empty where none is missing."""
    missing = [str(state) for state in weight_states(name, options) if state.path is None]
    return f" It needs {'; '.join(missing)}." if missing else ""


def _needed(name: str, options: Mapping[str, object]) -> tuple[str, ...]:
    """Return the ledger's names; files that the options name take the place of the defaults."""
    nested = options.get("options")
    inner = nested if isinstance(nested, Mapping) else {}
    values = [*options.values(), *inner.values()]
    named = tuple(value for value in values if isinstance(value, str) and value in LEDGER)
    if named or any(option in {**options, **inner} for option in _OWN_FILES):
        return tuple(dict.fromkeys(named))
    if name == "reward":
        entry = reward_catalogue.CATALOGUE.get(str(options.get("name")))
        return entry.weights if entry is not None else ()
    metric = CATALOGUE.get(name)
    return metric.weights if metric is not None else ()
