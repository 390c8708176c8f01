"""Video-DPO of a tiny real model on pairs: margins grow; resuming, accumulating, caching, two passes change nothing."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rlhf_video.algorithms.dpo import train
from rlhf_video.algorithms.dpo_config import DpoConfig
from rlhf_video.algorithms.outcome import Outcome
from rlhf_video.runtime import create_accelerator, read_metrics
from rlhf_video.settings import load_config
from rlhf_video.testing.runs import adapter_of, is_trained, same_checkpoint, timeless_metrics, write_config

Recipe = dict[str, Any]


def run(recipe: Recipe, folder: Path, *, resume: bool = False, **changes: object) -> Outcome:
    config = load_config(DpoConfig, write_config(recipe, folder, **changes))
    return train(config, accelerator=create_accelerator(), resume=resume)


def test_a_run_prefers_what_is_preferred_and_writes_what_it_promises(dpo_recipe: Recipe, tmp_path: Path) -> None:
    dpo_recipe["prompts"]["test"] = str(tmp_path / "test.txt")
    outcome = run(dpo_recipe, tmp_path / "a", num_steps=20, validation__every=10)
    lines = read_metrics(tmp_path / "a")
    steps = [line for line in lines if "loss/dpo" in line]
    assert len(steps) == 20
    assert steps[0]["loss/dpo"] == pytest.approx(math.log(2), abs=1e-7)
    assert steps[0]["dpo/margin"] == 0.0
    assert steps[-1]["dpo/accuracy"] == 1.0
    validations = [line for line in lines if "validation/dpo/accuracy" in line]
    assert [line["step"] for line in validations] == [9, 19]
    assert validations[-1]["validation/dpo/accuracy"] == 1.0
    assert validations[-1]["validation/dpo/margin"] > 0
    for path in (outcome.adapter, outcome.grid, outcome.report, tmp_path / "a" / "config.yaml"):
        assert path.exists(), path
    card = json.loads((tmp_path / "a" / "card.json").read_text())
    assert card["method"] == "dpo"
    assert "Implicit accuracy on 4 held-out pairs" in (outcome.adapter / "README.md").read_text()
    assert "Implicit accuracy" in outcome.report.read_text()


def test_a_finished_run_is_not_measured_again(
    dpo_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_again(*_: object) -> None:
        raise AssertionError("a finished run loads no model")

    first = run(dpo_recipe, tmp_path / "a")
    monkeypatch.setattr("rlhf_video.algorithms.dpo.open_run", not_again)
    assert run(dpo_recipe, tmp_path / "a", resume=True) == first


@pytest.mark.parametrize("beta", [5.0, None], ids=["fixed beta", "auto-beta"])
def test_resuming_is_bit_equal_to_a_straight_run(dpo_recipe: Recipe, tmp_path: Path, beta: float | None) -> None:
    dpo_recipe["loss"] = {"beta": beta, "auto_beta": {"start": 5.0, "warmup": 1}}
    run(dpo_recipe, tmp_path / "straight", num_steps=4, checkpoint__every=2)
    run(dpo_recipe, tmp_path / "resumed", num_steps=2, checkpoint__every=2)
    run(dpo_recipe, tmp_path / "resumed", num_steps=4, checkpoint__every=2, resume=True)
    assert is_trained(adapter_of(tmp_path / "straight"))
    assert same_checkpoint(tmp_path / "straight", tmp_path / "resumed", 4)
    trained = [
        [line for line in timeless_metrics(tmp_path / name) if "loss/dpo" in line] for name in ("straight", "resumed")
    ]
    assert trained[0] == trained[1]
