"""What benchmarks/dpo.py says: every recipe runs the passes that its prediction counts and gives the same gradient."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

CPU = torch.device("cpu")
NAMES = ("plain", "joint + cached", "two passes + cached", "two passes", "joint")
OURS = NAMES[1:]


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    folder = str(Path(__file__).resolve().parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    yield importlib.import_module("dpo")
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def step(bench: ModuleType) -> Any:
    return bench.Step(bench.SETTINGS["tiny"], CPU)


@pytest.fixture(scope="module")
def gradients(step: Any) -> dict[str, Tensor]:
    return {name: step.gradient(recipe) for name, recipe in step.recipes().items()}


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def test_all_recipes_give_the_same_gradient(gradients: dict[str, Tensor]) -> None:
    joint = gradients["joint"]
    assert set(gradients) == set(NAMES) and joint.abs().max() > 1e-3
    for name in OURS:
        assert relative(gradients[name], joint) <= 1e-6, name
    assert relative(gradients["plain"], joint) <= 1e-4  # rounding of errors, times beta / 2


def test_another_reference_would_be_another_gradient(
    step: Any, gradients: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "known", type(step.known)(step.known.chosen, step.known.chosen))
    assert relative(step.gradient(step.recipes()["joint + cached"]), gradients["joint"]) > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_runs_the_passes_that_its_prediction_counts(bench: ModuleType, step: Any, name: str) -> None:
    counts = {"reference": 0, "extra": 0, "trained": 0}

    def count(model: nn.Module, inputs: object, values: dict[str, Tensor], output: object) -> None:
        latents = next(tensor for tensor in (*inputs, *values.values()) if tensor.ndim == 5)  # type: ignore[misc]
        off = next(layer for layer in model.modules() if isinstance(layer, LoraLayer)).disable_adapters
        kind = "reference" if off else "trained" if torch.is_grad_enabled() else "extra"
        counts[kind] += len(latents) // step.setting.pairs

    handle = step.transformer.register_forward_hook(count, with_kwargs=True)
    step.gradient(step.recipes()[name])
    handle.remove()
    passes = bench.RECIPES[name]
    assert counts == {"reference": passes.reference, "extra": passes.extra, "trained": passes.trained}


def test_the_arithmetic_of_full_backward_passes(bench: ModuleType) -> None:
    costs = {name: passes.cost(1, 1, 3) for name, passes in bench.RECIPES.items()}
    assert costs == {"plain": 8, "joint + cached": 6, "two passes + cached": 7, "two passes": 9, "joint": 8}


def test_quick_run_writes_the_table_of_what_it_measured(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report, measured, measure = tmp_path / "report.md", [], bench.measure
    monkeypatch.setattr(bench, "measure", lambda *a, **options: measured.append(measure(*a, **options)) or measured[-1])
    monkeypatch.setattr(sys, "argv", ["dpo.py", "--quick", "--device", "cpu", "--markdown", str(report)])
    bench.main()
    assert "| two passes + cached |" in capsys.readouterr().out
    text = report.read_text()
    assert "<!-- begin dpo cpu -->" in text and "--quick" in text and "Joint + cached, target 1.25x: m" in text
    rows = {row.recipe: row for row in measured[0]}
    assert tuple(rows) == NAMES
    assert all(0 < row.faster[0] <= row.faster[1] <= row.faster[2] for row in rows.values())
    assert rows["plain"].kept > 50_000 and rows["plain"].peak > rows["plain"].kept
    for name in ("two passes", "two passes + cached"):
        assert 0.4 <= rows[name].kept / rows["joint"].kept <= 0.6
        assert rows[name].peak / rows["joint"].peak <= 0.8


def test_without_a_gpu_the_cells_say_so(bench: ModuleType) -> None:
    text = bench.empty_table(bench.SETTINGS["wan-1.3b-recomputed"])
    assert "1.25x | not measured" in text and "No GPU was at hand" in text
