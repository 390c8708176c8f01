"""What benchmarks/attention_*.py say about time: the parts that a wrong number would come from."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from rlhf_video.attention import Band, Grid, windowed_attention
from rlhf_video.attention.problem import Problem

Modules = dict[str, ModuleType]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bench() -> Iterator[Modules]:
    folder = str(Path(__file__).resolve().parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    names = ("timing", "cases", "tables", "speed", "step")
    yield {name: importlib.import_module(f"attention_{name}") for name in names}
    sys.path.remove(folder)


def test_eta_is_one_where_the_speed_up_is_the_share_of_pairs(bench: Modules) -> None:
    assert bench["timing"].eta(8.0, 1 / 8) == 1.0
    assert bench["timing"].eta(4.0, 1 / 8) == 0.5


def test_amdahl_keeps_what_is_not_attention(bench: Modules) -> None:
    assert bench["timing"].amdahl(10.0, 8.0, 8.0) == 1.0
    assert bench["timing"].amdahl(10.0, 8.0, 0.0) == 5.0
    assert bench["timing"].amdahl(10.0, 8.0, 3.0) == 2.0


def test_contestants_take_turns_after_the_warm_up(bench: Modules) -> None:
    seen: list[str] = []
    calls = {name: (lambda name=name: seen.append(name)) for name in "ab"}
    samples = bench["timing"].take_turns(calls, CPU, rounds=2, warm_ups=1)
    assert seen == ["a", "b"] * 3
    assert {name: len(times) for name, times in samples.items()} == {"a": 2, "b": 2}
    assert bench["timing"].typical([3.0, 1.0, 2.0], CPU) == 1.0
    assert bench["timing"].typical([3.0, 1.0, 8.0], torch.device("cuda")) == 3.0


def test_saved_bytes_count_each_storage_once(bench: Modules) -> None:
    left, right = (torch.randn(8, requires_grad=True) for _ in range(2))
    assert bench["timing"].saved_bytes(lambda: left * right) == 64
    assert bench["timing"].saved_bytes(lambda: left * left.view(2, 4).view(8)) == 32


def test_a_section_replaces_itself_and_nothing_else(bench: Modules, tmp_path: Path) -> None:
    path = tmp_path / "table.md"
    path.write_text("# Title\n\nWords.\n")
    bench["timing"].write_section(path, "cpu", "old")
    bench["timing"].write_section(path, "cuda", "other")
    bench["timing"].write_section(path, "cpu", r"new \1")
    text = path.read_text()
    assert text.startswith("# Title\n\nWords.\n") and "old" not in text
    assert text.count("<!-- begin cpu -->") == 1 and r"new \1" in text and "other" in text


def test_every_window_fits_its_grid(bench: Modules) -> None:
    for geometry in bench["cases"].geometries().values():
        for name, spec in geometry.windows.items():
            spec.check(geometry.grid)
            assert 0 < geometry.density(spec) < 0.6, (geometry.name, name)


@pytest.mark.parametrize("position", ["first", "last"])
def test_density_and_sampled_keys_are_those_of_the_mask(bench: Modules, position: str) -> None:
    cases = bench["cases"]
    windows = {**cases.quick_geometry().windows, "sliding": Band(chunk=0, halo=0.5)}
    geometry = cases.Geometry("x", Grid(6, 8, 8), 4, 8, windows, num_text=5, text_position=position)
    for spec in windows.values():
        mask = Problem(geometry.grid, spec, geometry.text, 1.0).mask(geometry.num_heads)[0].expand(4, -1, -1)
        assert geometry.density(spec) == pytest.approx(mask.float().mean().item(), abs=1e-6)
        first = 5 if position == "first" else 0
        for token, head in ((0, 0), (100, 1), (383, 3)):
            keys = cases.keys_of(geometry, spec, token, head)
            assert torch.equal(keys.sort().values, mask[head, token + first].nonzero()[:, 0])


def test_an_output_of_another_window_is_found(bench: Modules) -> None:
    geometry = bench["cases"].quick_geometry()
    *tensors, _ = geometry.tensors(torch.float32, CPU)
    band, local = geometry.windows["band 1 + 0.5 frames, six orders"], geometry.windows["local"]

    def attend(*inputs: torch.Tensor) -> torch.Tensor:
        return windowed_attention(*inputs, geometry.grid, band, text=geometry.text, backend="mask")

    bench["speed"].check(attend, tensors, band, geometry)
    with pytest.raises(RuntimeError, match="WRONG"):
        bench["speed"].check(attend, tensors, local, geometry)


def test_quick_run_writes_tables_and_numbers(
    bench: Modules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report, numbers = tmp_path / "report.md", tmp_path / "numbers.json"
    flags = ["--quick", "--device", "cpu", "--backends", "mask", "--markdown", str(report), "--json", str(numbers)]
    monkeypatch.setattr(sys, "argv", ["attention_speed.py", *flags])
    bench["speed"].main()
    assert "| local" in capsys.readouterr().out
    assert "<!-- begin attention_speed cpu -->" in report.read_text()
    (result,) = json.loads(numbers.read_text())["reports"]
    mask = result["windows"]["local"][0]
    assert mask["milliseconds"]["forward"] > 0 and mask["dense_milliseconds"]["both"] > 0 and mask["saved"] >= 4


def test_what_refuses_says_why_under_the_table(bench: Modules) -> None:
    speed, geometry = bench["speed"], bench["cases"].quick_geometry()
    geometry.windows["sliding"] = Band(chunk=0, halo=0.5)
    settings = speed.Settings(CPU, torch.float32, 1, 0, ("sdpa_span", "varlen"), windows=("sliding",))
    text = bench["tables"].tables(speed.measure(geometry, settings))
    assert "not measured (1)" in text and "not measured (2)" in text
    assert "(1) backend='sdpa_span' cannot compute this attention" in text
    assert "(2) backend='varlen' cannot compute this attention" in text


def test_without_a_gpu_the_cells_say_so(bench: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    geometry = bench["cases"].geometries()["wan-1.3b-480p"]
    settings = bench["speed"].Settings(torch.device("cuda"), torch.bfloat16, 1, 0, ("sdpa_span",))
    text = bench["tables"].tables(bench["speed"].measure(geometry, settings))
    assert "(1) no GPU was at hand" in text and "10.50x" in text


def test_step_under_plans_is_faster_only_by_what_attention_takes(bench: Modules) -> None:
    step = bench["step"]
    changes = {"num_layers": 4, "num_attention_heads": 2, "attention_head_dim": 16, "ffn_dim": 32, "text_dim": 8}
    setting = step.Setting(Grid(4, 4, 4), 8, torch.float32, changes)
    dense, hybrid = step.measure(setting, ["hybrid_middle"], CPU, rank=2, rounds=1)
    assert (dense.windowed_layers, hybrid.windowed_layers, hybrid.num_layers) == (0, 2, 4)
    assert (dense.density, hybrid.density) == (1.0, 0.75)
    assert dense.predicted == pytest.approx(1.0)
    assert 0 < dense.attention_ms < dense.step_ms
    assert "2 of 4" in step.table([dense, hybrid], 64)
