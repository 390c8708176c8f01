"""Tables of scores without clips: what summaries, comparisons and gates are computed from."""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.base import ClipEntry, Family, Status
from evaluation.scores import Column, SystemScores
from evaluation.vbench_compat.totals import VBENCH_DIMENSIONS

TableMaker = Callable[..., SystemScores]


@functools.cache
def make_entries(content: str, size: int, samples: int, seeds: tuple[int | None, ...] | None) -> tuple[ClipEntry, ...]:
    return tuple(
        ClipEntry(
            file=Path(f"{index}.mp4"),
            sha256=hashlib.sha256(f"{content}{index}".encode()).hexdigest(),
            prompt=f"prompt {index // samples}",
            sample=index % samples,
            seed=index if seeds is None else seeds[index],
        )
        for index in range(size)
    )


def make_table(
    values: Mapping[str, NDArray[np.float64]],
    *,
    system: str = "mine",
    samples: int = 1,
    family: Family = "measure",
    seeds: Sequence[int | None] | None = None,
    higher_is_better: Mapping[str, bool | None] | None = None,
    asked: Mapping[str, NDArray[np.bool_]] | None = None,
    missing: Status = "failed",
    same_files: bool = False,
) -> SystemScores:
    """Build a table of columns, each (prompts * samples,), clips of a prompt next to each other; NaN is `missing`."""
    size = len(next(iter(values.values())))
    entries = make_entries("" if same_files else system, size, samples, None if seeds is None else tuple(seeds))
    statuses: dict[str, tuple[Status | None, ...]] = {}
    for name, column in values.items():
        is_asked = np.ones(size, dtype=bool) if asked is None else asked[name]
        statuses[name] = tuple(np.where(is_asked, np.where(np.isfinite(column), "ok", missing), None).tolist())
    better = higher_is_better or {}
    return SystemScores(
        system=system,
        entries=entries,
        columns=tuple(
            Column(name=name, family=family, unit="", higher_is_better=better.get(name, True)) for name in values
        ),
        values={name: np.asarray(column, dtype=np.float64) for name, column in values.items()},
        statuses=statuses,
        reasons={
            name: {index: "broken file" for index, status in enumerate(column) if status in ("failed", "skipped")}
            for name, column in statuses.items()
        },
    )


@pytest.fixture
def table() -> TableMaker:
    return make_table


@pytest.fixture
def vbench_table() -> TableMaker:
    """Return a maker of tables of all 16 dimensions, every prompt asked for all, around 0.6."""

    def build(*, num_prompts: int = 12, samples: int = 2, seed: int = 0, shift: float = 0.0, **options: object):  # noqa: ANN202
        rng = np.random.default_rng(seed)
        shape = (num_prompts, samples)
        values = {
            name: (0.6 + shift + 0.05 * rng.normal(size=(num_prompts, 1)) + 0.05 * rng.normal(size=shape)).ravel()
            for name in VBENCH_DIMENSIONS
        }
        return make_table(values, samples=samples, **{"family": "vbench-port", **options})

    return build
