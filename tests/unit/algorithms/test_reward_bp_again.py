"""`make quickstart` says --resume: a finished run that is started again measures nothing and shows its table again."""

from pathlib import Path

import pytest
import torch
import yaml

from rlhf_video.lora.files import adapter_file, read_adapter
from rlhf_video.runtime import read_metrics
from rlhf_video.train_reward_bp import main


def _not_again(*_: object) -> None:
    raise AssertionError("a finished run loads no model")


def test_a_finished_run_shows_its_table_again(
    recipe: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr("sys.argv", ["train_reward_bp.py", "--config", str(config), "--resume"])
    seen = []
    for _ in range(2):
        main()
        monkeypatch.setattr("rlhf_video.algorithms.reward_bp.open_world", _not_again)
        seen.append((capsys.readouterr().out, read_metrics(run), read_adapter(adapter_file(run / "adapter"))[0]))
    assert "| score" in seen[0][0]
    assert seen[0][:2] == seen[1][:2]
    torch.testing.assert_close(seen[0][2], seen[1][2], rtol=0, atol=0)
