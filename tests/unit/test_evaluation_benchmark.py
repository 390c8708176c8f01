"""What benchmarks/evaluation_speed.py says: its sides score the same values, and a difference is no report."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    folder = str(Path(__file__).resolve().parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    yield importlib.import_module("evaluation_speed")
    sys.path.remove(folder)


def run(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[Any]:
    """Run the command line; return what it measured."""
    measured: list[Any] = []
    measure = bench.measure
    monkeypatch.setattr(bench, "measure", lambda *a: measured.append(measure(*a)) or measured[-1])
    monkeypatch.setattr(sys, "argv", ["evaluation_speed.py", "--quick", *arguments])
    bench.main()
    return measured


def test_quick_run_writes_the_table_of_what_it_measured(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.md"
    measured = run(bench, monkeypatch, "--markdown", str(report))
    assert "| metric by metric |" in capsys.readouterr().out
    text = report.read_text()
    assert (
        "<!-- begin evaluation cpu -->" in text and "--quick" in text and "Target 2x: against metric by metric" in text
    )
    weightless, ports = measured
    for case in measured:
        suite, alone = (case.turns[side][-1] for side in (bench.SUITE, bench.ONE_BY_ONE))
        num_clips = case.case.clips[0]
        assert suite.cpu > 0 and suite.values == alone.values and case.worst == 0.0
        assert set(alone.by_metric) == set(case.case.metrics)
        assert alone.cpu == pytest.approx(sum(alone.by_metric.values()))
        assert len(suite.values) >= len(case.case.metrics) * num_clips
    assert set(ports.case.metrics) == set(bench.PORTS)
    assert weightless.faster(bench.ONE_BY_ONE) > 1.0  # five decodings against one


def test_sides_that_disagree_are_not_reported(bench: ModuleType) -> None:
    suite = bench.Turn(values={("a.mp4", "x"): 0.5, ("a.mp4", "moves"): 0.0})
    close = bench.Turn(values={("a.mp4", "x"): 0.500001, ("a.mp4", "moves"): 0.0})
    assert bench.check_agreement({bench.SUITE: suite, bench.ORIGINAL: close}) == pytest.approx(2e-6)
    for values in (
        {"x": 0.5001, "moves": 0.0},
        {"x": float("nan"), "moves": 0.0},
        {"x": 0.5, "moves": 1.0},
        {"x": 0.5},
    ):
        turn = bench.Turn(values={("a.mp4", name): value for name, value in values.items()})
        with pytest.raises(SystemExit, match=r"disagrees|other values"):
            bench.check_agreement({bench.SUITE: suite, bench.ORIGINAL: turn})


def test_speed_is_the_median_of_rounds_and_loading_counts_apart(bench: ModuleType) -> None:
    turns = {
        bench.SUITE: [bench.Turn(cpu=1.0), bench.Turn(cpu=2.0), bench.Turn(cpu=1.0)],
        bench.ORIGINAL: [bench.Turn(cpu=3.0), bench.Turn(cpu=4.0), bench.Turn(cpu=9.0)],
    }
    load = {bench.SUITE: 1.0, bench.ORIGINAL: 3.0}
    measured = bench.Measured(bench.QUICK[0], turns, load, [0.1], 0.0, {})
    assert measured.faster(bench.ORIGINAL) == 3.0
    assert measured.faster(bench.ORIGINAL, with_load=True) == 3.0
    assert bench.verdict(measured) == "Target 2x: against original met (3.00x)."


def test_work_grows_with_what_a_metric_looks_at(bench: ModuleType) -> None:
    assert [bench.work_of("dynamic_degree", frames) for frames in (5, 81)] == [2, 40]
    assert [bench.work_of("imaging_quality", frames) for frames in (5, 81)] == [5, 81]
    assert bench.work_of("temporal_style", 5) == bench.work_of("temporal_style", 81)
