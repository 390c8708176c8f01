"""A reward in another process: it passes the contract, and whatever its worker does, no failure becomes a score."""

import dataclasses
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from rewards import registry
from rewards.base import FramePolicy, RewardOutput, RewardSpec
from rewards.errors import RewardError
from rewards.testing import RewardContract
from rewards.workers.lock import load_lock
from rewards.workers.process import WorkerFailure, WorkerProcess
from rewards.workers.reward import WorkerReward

SCORER = Path(__file__).with_name("fake_scorer.py")
SPEC = RewardSpec(
    name="fake",
    version="1",
    dimensions=("fake",),
    range=(0.0, 2.0),
    higher_is_better=True,
    is_differentiable=False,
    frames=FramePolicy("all"),
    resolution=None,
    licence="Apache-2.0",
    paper=None,
    uses_prompt=True,
)
OPTIONS: dict[str, object] = {
    "worker": "fake",
    "scorer": SCORER,
    "python": sys.executable,
    "settings": {},
    "spec": SPEC,
}


def make(**changed: object) -> WorkerReward:
    return WorkerReward(**(OPTIONS | changed))  # type: ignore[arg-type]


def clips(count: int) -> torch.Tensor:
    return torch.rand(count, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def score(reward: WorkerReward, *prompts: str) -> RewardOutput:
    return reward(clips(len(prompts)), prompts, fps=8.0)


class TestWorkerReward(RewardContract):
    reward = "rewards.workers.reward:WorkerReward"
    options: ClassVar[Mapping[str, object]] = OPTIONS


class TestWorkerRewardOnSomeFrames(RewardContract):
    reward = "rewards.workers.reward:WorkerReward"
    options: ClassVar[Mapping[str, object]] = OPTIONS | {
        "spec": dataclasses.replace(SPEC, frames=FramePolicy("uniform", 2)),
        "reduction": "min",
        "settings": {"chatty": True},
    }


def test_score_is_the_mean_over_frames_of_8_bit_pictures() -> None:
    reward = make()
    video = torch.tensor([0.2, 0.6])[None, :, None, None, None].expand(1, 2, 3, 4, 4)
    value = reward(video, ["abcd"], fps=8.0).values["fake"]
    assert value.item() == pytest.approx((51 + 153) / 2 / 255 + 0.04, abs=1e-6)
    reward.close()


def test_what_libraries_print_does_not_reach_the_line() -> None:
    reward = make(settings={"chatty": True})
    assert score(reward, "a circle", "a square").valid.tolist() == [True, True]
    reward.close()


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("die", "died of signal 11"),
        ("exit", "ended with exit code 7"),
        ("garbage", "answered nonsense"),
        ("stale", "is not the answer"),
        ("hang", "hangs: no answer"),
        ("raise", "ValueError: this clip has no subject"),
        ("short", "1 scores for 2 frames"),
        ("nan", "not a finite number"),
        ("other", "another"),
    ],
)
def test_failing_clip_is_masked_with_the_reason_and_the_next_is_scored(word: str, named: str) -> None:
    reward = make(deadline_s=1.0 if word == "hang" else 60.0)
    output = score(reward, "a circle", f"{word} now", "a square")
    assert output.valid.tolist() == [True, False, True]
    assert named in (output.reasons[1] or "")
    assert output.values["fake"].isnan().tolist() == [False, True, False]
    reward.close()


def test_clip_that_killed_the_worker_is_not_sent_again() -> None:
    reward = make()
    first = score(reward, "die now", "a circle")
    again = score(reward, "die now", "a circle")
    assert "died of signal 11" in (first.reasons[0] or "")
    assert (again.reasons[0] or "").startswith("quarantined: ")
    torch.testing.assert_close(again.values["fake"][1], first.values["fake"][1])
    reward.close()


def test_worker_that_dies_of_every_clip_is_an_error_with_the_end_of_its_log() -> None:
    with pytest.raises(WorkerFailure, match=r"(?s)3 clips in a row.*exit code 7.*the last words"):
        score(make(), "exit one", "exit two", "exit three", "exit four")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"start": "refuse"}, "refused to start: ValueError: these weights do not fit"),
        ({"start": "die"}, r"exit code 3.*\n.*libfake.so"),
        ({"start": "hang"}, "hangs: no answer to start within 1 s"),
        ({"weights": "/nowhere/weights.pt"}, "nowhere/weights.pt"),
    ],
)
def test_worker_that_cannot_start_is_an_error(settings: dict[str, str], named: str) -> None:
    with pytest.raises(WorkerFailure, match=rf"(?s){named}"):
        score(make(settings=settings, start_deadline_s=1.0 if settings.get("start") == "hang" else 60.0), "a circle")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"worker": "hpsv2"}, "greeted with .*fake"),
        ({"spec": dataclasses.replace(SPEC, dimensions=("quality",))}, "scores .*fake.*expects .*quality"),
        ({"scorer": Path("/nowhere/scorer.py")}, "no module file"),
        ({"python": "/nowhere/python"}, "cannot be started"),
        ({"deadline_s": 0.0}, "above 0"),
    ],
)
def test_wrong_handshake_or_setting_is_an_error(changed: dict[str, object], named: str) -> None:
    with pytest.raises(RewardError, match=named):
        score(make(**changed), "a circle")


def test_changed_environment_is_refused_with_the_command() -> None:
    lock = dataclasses.replace(load_lock("hpsv2"), packages=("numpy==0.1",))
    with pytest.raises(RewardError, match=r"numpy.*env create hpsv2 --force"):
        score(make(lock=lock), "a circle")


def test_greeting_has_the_hash_of_the_weights(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"abc")
    with WorkerProcess(
        sys.executable, scorer=SCORER, settings={"weights": str(weights)}, worker="fake", deadline_s=60
    ) as process:
        expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        assert process.hello["weights"] == {"weights.pt": expected}
        assert process.hello["packages"].keys() == {"numpy"}


def test_worker_ends_with_its_reward() -> None:
    reward = make()
    score(reward, "a circle")
    process = reward._resident._process
    assert process is not None
    child, folder = process._process, process.folder
    assert child.poll() is None
    del reward
    gc.collect()
    assert child.poll() is not None
    assert not folder.exists()


def test_worker_ends_when_its_parent_is_killed() -> None:
    code = (
        "import json, sys, time; from rewards.workers.process import WorkerProcess; from pathlib import Path\n"
        f"scorer = Path({str(SCORER)!r})\n"
        "p = WorkerProcess(sys.executable, scorer=scorer, settings={}, worker='fake', deadline_s=60)\n"
        "print(json.dumps(p._process.pid), flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert parent.stdout is not None
    child = json.loads(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or "\nState:\tZ" in Path(f"/proc/{child}/status").read_text():
            return
        time.sleep(0.1)
    raise AssertionError(f"the worker {child} outlived its parent")


def test_registry_says_how_to_make_a_missing_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHF_VIDEO_ENVS", str(tmp_path))
    for name, worker in (("hps_v2_worker", "hpsv2"), ("image_reward_worker", "image-reward")):
        with pytest.raises(RewardError, match=f"rlhf-video rewards env create {worker}"):
            registry.build(name)
