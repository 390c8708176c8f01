"""The four top-level names mean this repository, nothing in them replaces another module, and scripts run by path."""

import ast
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rlhf_video.settings import load_config

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("app", "evaluation", "rewards", "rlhf_video")
DATA = ("rewards/workers/locks/*.toml", "app/duel/*.html", "app/duel/*.css", "app/duel/*.js")
"""What a wheel holds beside Python files: read at run time, so it must be there."""


def _is_program(path: Path) -> bool:
    """Whether a module is a program: it has an `if __name__ == "__main__"` block."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tests = [ast.unparse(node.test) for node in tree.body if isinstance(node, ast.If)]
    return "__name__ == '__main__'" in tests


def _entry_scripts() -> list[Path]:
    """Return the programs directly inside the four folders; deeper ones run with `-m` and may act at once."""
    files = sorted(path for name in PACKAGES for path in (ROOT / name).glob("*.py"))
    return [path.relative_to(ROOT) for path in files if _is_program(path)]


def _run_configs() -> list[Path]:
    files = sorted((ROOT / "configs").rglob("*.yaml"))
    return [path.relative_to(ROOT) for path in files if path.parent.name != "accelerate"]


@pytest.mark.parametrize("name", PACKAGES)
def test_top_level_name_resolves_inside_this_repository(name: str) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    assert Path(spec.origin).resolve() == ROOT / name / "__init__.py"


@pytest.mark.parametrize("name", PACKAGES)
def test_no_child_is_named_like_another_module(name: str) -> None:
    # `python rlhf_video/script.py` puts rlhf_video/ first on sys.path: a child `logging.py` would replace the library.
    children = {path.stem for path in (ROOT / name).iterdir() if path.suffix == ".py" or path.is_dir()}
    foreign = set(sys.stdlib_module_names) | set(importlib.metadata.packages_distributions())
    assert sorted((children - {"__init__", "__pycache__"}) & foreign) == []


def test_every_folder_of_the_packages_is_a_package() -> None:
    folders = {path.parent for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    assert sorted(str(folder) for folder in folders if not (folder / "__init__.py").is_file()) == []


def test_wheel_holds_the_four_packages_whole_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("configs", "tests", "docs"):  # neighbours that a looser rule would pick up
        (source / name).mkdir()
        (source / name / "__init__.py").touch()
    (source / "rewards" / "notes.md").touch()  # data that no pattern names stays out
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = f"import setuptools.build_meta as b; b.build_wheel({str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    patterns = (*(f"{name}/**/*.py" for name in PACKAGES), *DATA)
    for pattern in patterns:
        assert any(source.glob(pattern)), pattern
    assert names == {str(path.relative_to(source)) for pattern in patterns for path in source.glob(pattern)}


@pytest.mark.parametrize("script", _entry_scripts(), ids=str)
def test_entry_script_answers_help_when_run_by_path(script: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / script), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("config", _run_configs(), ids=str)
def test_shipped_config_loads_strictly(config: Path) -> None:
    # By rule, configs/<method>/*.yaml hold <Method>Config of rlhf_video.algorithms.<method>; three are no method.
    method = {"pairs": "pair_building"}.get(config.parts[1], config.parts[1])
    homes = {"evaluation": "evaluation.running.suite_config", "arena": "app.arena_config"}
    home = homes.get(method, f"rlhf_video.algorithms.{method}")
    module = importlib.import_module(home)
    schema = getattr(module, "".join(word.title() for word in method.split("_")) + "Config")
    assert dataclasses.is_dataclass(load_config(schema, ROOT / config))


def test_distribution_cannot_reach_a_package_index_by_accident() -> None:
    assert "Private :: Do Not Upload" in (importlib.metadata.metadata("rlhf-video").get_all("Classifier") or [])
