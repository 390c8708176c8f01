"""docs/judges.md shows what works: its config builds, its failures are the real ones."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rewards import registry
from rewards.catalogue import CATALOGUE

ROOT = Path(__file__).resolve().parents[4]
TEXT = (ROOT / "docs" / "judges.md").read_text(encoding="utf-8")


def test_config_of_the_document_builds_both_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)
    entries = yaml.safe_load(block)["held_out"]
    assert [entry["name"] for entry in entries] == ["unified_reward", "video_score2"]
    for entry in entries:
        reward = registry.build(entry["name"], **entry["options"])
        assert not reward.spec.is_differentiable
        assert CATALOGUE[entry["name"]].tier == "D"
        for dimension in reward.spec.dimensions:
            assert dimension in TEXT


def test_failures_of_the_document_are_the_real_ones(server: Any) -> None:
    shown = re.findall(r"```text\n(.*?)```", TEXT, flags=re.DOTALL)[0].splitlines()
    answer = "Alignment Score (1-5): 2.4\nPhysics Score (1-5): 7.5\nStyle Score (1-5): 3"
    reasons = []
    for reply in (
        server.chat(answer),
        server.reply(503, b"overloaded"),
        server.reply(400, b"At most 4 image(s) may be provided in one prompt."),
    ):
        server.replies = [reply]
        connection = {**server.fast, "backoff_seconds": 0.0}
        reward = registry.build("unified_reward", base_url=server.url, model="m", connection=connection)
        (reason,) = reward(torch.zeros(1, 2, 3, 8, 8), ["a circle"], fps=8.0).reasons
        reasons.append(str(reason).replace(server.url, "http://localhost:8080"))
    for line, reason in zip(shown, reasons, strict=True):
        assert reason.startswith(line.removesuffix("...'"))
