"""The shipped sprite rewards agree with the verifier on clips they never saw, as often as their cards say."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROMISED_ACCURACY = 0.80
"""On clips of unseen combinations, judged under one prompt, that the verifier tells apart: from anywhere, and clips
made for that prompt."""
SIX_FRAMES = ("--option", "frames.kind=uniform", "--option", "frames.count=6")
REWARDS = {
    "sprite-clip": ("clip_preference", *SIX_FRAMES),
    "sprite-clip-heldout": ("clip_preference", *SIX_FRAMES),
    "sprite-motion": ("video_text",),
}
"""Class, and the options with which the card's accuracy was measured."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which the generated clips are kept, the same for all rewards."""
    return tmp_path_factory.mktemp("pretrain")


@pytest.mark.journey
@pytest.mark.parametrize("name", REWARDS)
def test_a_reward_is_as_right_as_its_card_says(name: str, work: Path) -> None:
    votes = [sys.executable, "-m", "rlhf_video.sprites.pretrain", "votes", "--only", name, "--work", str(work)]
    subprocess.run(votes, check=True)
    root, out = work / "votes" / name, work / f"judged-{name}"
    judge = [
        sys.executable,
        "evaluation/judge_reward.py",
        "--reward",
        *REWARDS[name],
        "--option",
        f"model=assets/{name}",
    ]
    judge += ["--benchmark", "preferences", "--file", str(root / "validation.jsonl"), "--root", str(root)]
    subprocess.run([*judge, "--out", str(out)], check=True)
    judged = json.loads((out / "judgement.json").read_text())["dimensions"]
    accuracy = {result["dimension"]: result["without_ties"]["mean"] for result in judged}
    assert accuracy["other_clips"] >= PROMISED_ACCURACY
    assert accuracy["overall"] >= PROMISED_ACCURACY
    card = Path(f"assets/{name}/README.md").read_text()
    for label in ("overall", "other_clips"):
        row = re.search(rf"^\| {label}\s*\|\s*([\d.]+)% ", card, re.M)
        assert row is not None
        assert 100 * accuracy[label] == pytest.approx(float(row[1]), abs=1.0), "the card states another accuracy"
