"""What benchmarks/asd.py says: students make whole clips in the calls it prints, and memory adds up."""

import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from rlhf_video.backbones import load_backbone

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    folder = str(Path(__file__).resolve().parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    yield importlib.import_module("asd")
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def setting(bench: ModuleType, tiny_wan_folder: Path) -> Any:
    return bench.Setting(tiny_wan_folder, 13, 16, 16, chunk=2, rank=2, batches=(1, 2), teacher_steps=3)


def test_the_tables_rows_are_measured_and_judged(bench: ModuleType, setting: Any) -> None:
    rows = bench.measure(replace(setting, batches=(2,)), CPU, rounds=2)
    assert [row.name for row in rows] == [
        "teacher",
        *(f"{n} steps, {kind}" for kind in ("beside", "merged") for n in (1, 2, 4)),
    ]
    assert rows[0].calls == "3 x 2" and rows[0].faster == (1.0, 1.0, 1.0)
    assert [row.calls for row in rows[1:4]] == ["6", "7", "9"]  # 4 + n of two chunks, one more for the cache
    assert all(row.frames_per_s == pytest.approx(13 * row.clips_per_s) and row.denoise_first > 0 for row in rows)
    text = bench.table(rows)
    assert "2 steps, beside: missed" in text or "2 steps, beside: met" in text
    fast = [replace(row, faster=(8.0, 8.1, 8.2)) for row in rows]
    assert bench.verdict(fast).endswith("2 steps, beside: met (8.10x); 2 steps, merged: met (8.10x).")


@torch.no_grad()
def test_teacher_and_students_make_clips_of_one_size_and_merging_changes_nothing(
    bench: ModuleType, setting: Any
) -> None:
    torch.manual_seed(0)
    rivals = bench.Contestants(setting, CPU)
    assert rivals.teach(2).shape == rivals.roll_out("beside", 2, 2).shape == (2, 4, 4, 2, 2)
    first = rivals.roll_out("merged", 2, 1, num_chunks=1)
    assert torch.equal(first, rivals.roll_out("merged", 2, 1)[:, :, :2])
    student = rivals.students["beside"]
    plain = rivals.roll_out("beside", 1, 2)
    bench.merge(student.transformers["transformer"])
    torch.testing.assert_close(rivals.roll_out("beside", 1, 2), plain, rtol=0, atol=1e-4)


def test_memory_is_what_the_designs_hold(bench: ModuleType, setting: Any) -> None:
    ours, copies, tuned = bench.memory(setting).values()
    model = load_backbone(setting.folder).transformers["transformer"]
    base = sum(p.nbytes for p in model.parameters())
    assert copies[0] - ours[0] == 2 * base and copies[1] == ours[1]
    assert tuned[1] > copies[1] and sum(tuned) > sum(copies) > sum(ours)
    assert "1.00x" in bench.memory_table("tiny", setting)


def test_without_a_gpu_nothing_is_made_up(bench: ModuleType) -> None:
    text = bench.empty_table(bench.SETTINGS["wan"])
    assert text.count("not measured") == 4 * 6 and "No GPU was at hand" in text
    assert "| 2 steps | 22 |" in re.sub(" +", " ", text)  # 4 + 6 x 2 of seven chunks, six more for the cache
