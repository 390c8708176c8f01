"""build_pairs.py on two processes leaves the bytes that one process leaves, and goes on with what one began."""

from pathlib import Path
from typing import Any

import pytest

from rlhf_video.testing.launch import ACCELERATE, launch, run_script
from rlhf_video.testing.runs import write_config


def build(recipe: dict[str, Any], folder: Path, *arguments: str, launcher: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Run the script; return what it left, config.yaml (which names the folder) aside."""
    file = write_config(recipe, folder)
    printed = run_script(launcher, "build_pairs.py", "--config", file, *arguments)
    assert printed.count("comparisons") == 1, "only the main process speaks"
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "config.yaml")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_leave_the_bytes_of_one(pairs_recipe: dict[str, Any], tmp_path: Path) -> None:
    pairs_recipe |= {"rater": {"score": "sharpness/sharpness"}, "batch_size": 5}
    single = build(pairs_recipe, tmp_path / "single")
    assert sum(name.startswith("clips/") for name in single) == 12
    assert build(pairs_recipe, tmp_path / "double", launcher=ACCELERATE) == single
    for name in ("work/clips/00001.json", "work/clips/00002.json"):  # as if one process had been killed after a batch
        (tmp_path / "single" / name).unlink()
    assert build(pairs_recipe, tmp_path / "single", "--resume", launcher=ACCELERATE) == single


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_mistake_ends_both_processes(pairs_recipe: dict[str, Any], tmp_path: Path) -> None:
    file = write_config({**pairs_recipe, "num_prompts": 9}, tmp_path / "run")
    done = launch(ACCELERATE, "build_pairs.py", "--config", file)
    assert done.returncode != 0
    assert done.stderr.count("error: num_prompts=9 does not fit") >= 1, done.stderr[-3000:]
