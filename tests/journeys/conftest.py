"""A recipe run as a user runs it, and what the README's tables say of it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SETTINGS = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}


@pytest.fixture
def train() -> Callable[..., dict[str, Any]]:
    """Return a function that runs an entry script with these arguments and returns the run's card."""

    def run(script: str, folder: Path, *arguments: str) -> dict[str, Any]:
        command = [sys.executable, f"rlhf_video/{script}", f"output_dir={folder}", *arguments]
        subprocess.run(command, check=True, env={**os.environ, **SETTINGS})
        card: dict[str, Any] = json.loads((folder / "card.json").read_text())
        return card

    return run


@pytest.fixture
def readme_row() -> Callable[[str, int], dict[str, list[float]]]:
    """Return a function that reads a training seed's row of the first table after a text: column -> its numbers."""

    def read(after: str, seed: int) -> dict[str, list[float]]:
        table = re.search(r"(?:^\|.*\n)+", Path("README.md").read_text().split(after, 1)[1], re.M)
        assert table is not None
        columns, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table[0].splitlines())
        (row,) = (cells for cells in rows if cells[0] == str(seed))
        numbers = ([float(number) for number in re.findall(r"[-+]?\d+(?:\.\d+)?", cell)] for cell in row)
        return dict(zip(columns, numbers, strict=True))

    return read
