import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlhf_video.errors import CheckpointError, ConfigError
from rlhf_video.runtime import Run, create_accelerator, read_metrics


@dataclass(frozen=True, kw_only=True)
class Optim:
    learning_rate: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Config:
    output_dir: Path
    num_steps: int = 4
    seed: int = 0
    optim: Optim = Optim()


@pytest.fixture
def accelerator() -> Accelerator:
    return create_accelerator()


def start(directory: Path, accelerator: Accelerator, *, resume: bool = False, **changes: object) -> Run:
    config = Config(output_dir=directory, **changes)  # type: ignore[arg-type]
    return Run.start(directory, config, accelerator=accelerator, resume=resume)


def train(run: Run, num_steps: int) -> dict[str, object]:
    """Train a small model whose data come from the global generators: exact only if every state comes back."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    restored = run.restore()
    first = 0
    if restored is not None:
        first, state = restored
        model.load_state_dict(state["model"])  # type: ignore[arg-type]
        optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]
    for step in range(first, num_steps):
        inputs = torch.randn(8, 4) + random.random() + float(np.random.random())  # noqa: NPY002
        loss = model(inputs).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        run.log({"loss": loss}, step=step)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    run.save_checkpoint(num_steps, state)
    run.close()
    return state


def test_two_steps_and_a_resume_of_two_equal_four_bit_for_bit(tmp_path: Path, accelerator: Accelerator) -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    straight = train(start(tmp_path / "straight", accelerator), 4)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    train(start(tmp_path / "halves", accelerator, num_steps=2), 2)
    random.seed(2)  # another process, another life
    np.random.seed(3)  # noqa: NPY002
    resumed = train(start(tmp_path / "halves", accelerator, num_steps=4, resume=True), 4)
    torch.testing.assert_close(resumed, straight, rtol=0, atol=0)
    assert read_metrics(tmp_path / "halves") == read_metrics(tmp_path / "straight")


def test_the_directory_holds_what_it_promises(tmp_path: Path, accelerator: Accelerator) -> None:
    run = start(tmp_path / "run", accelerator)
    run.log({"loss": 1.0}, step=0)
    run.save_checkpoint(10, {"a": 1})
    run.write_card({"score": 0.5, "name": "é"})
    run.close()
    for name in ("config.yaml", "metrics.jsonl", "checkpoints/step-000010", "samples", "card.json", "tensorboard"):
        assert (tmp_path / "run" / name).exists(), name
    assert json.loads((tmp_path / "run" / "card.json").read_text(encoding="utf-8")) == {"score": 0.5, "name": "é"}


def test_a_new_run_does_not_write_over_another(tmp_path: Path, accelerator: Accelerator) -> None:
    start(tmp_path, accelerator)
    with pytest.raises(
        ConfigError, match=r"holds another run: go on with it with --resume, or choose another output_dir"
    ):
        start(tmp_path, accelerator)


def test_parts_of_a_run_without_a_config_are_not_written_over(tmp_path: Path, accelerator: Accelerator) -> None:
    (tmp_path / "metrics.jsonl").write_text("{}")
    with pytest.raises(ConfigError, match=r"parts of a run but no config.yaml"):
        start(tmp_path, accelerator)


def test_an_output_dir_that_is_a_file_is_refused(tmp_path: Path, accelerator: Accelerator) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file: choose another output_dir"):
        start(tmp_path / "file", accelerator)


def test_resuming_with_a_changed_config_lists_the_changes(tmp_path: Path, accelerator: Accelerator) -> None:
    start(tmp_path, accelerator).save_checkpoint(1, {"a": 1})
    with pytest.raises(ConfigError, match=r"had another config; changed: seed, optim.learning_rate. Resume with"):
        start(tmp_path, accelerator, resume=True, seed=1, optim=Optim(learning_rate=0.2), num_steps=9)


def test_a_run_without_a_checkpoint_may_start_again_with_another_config(
    tmp_path: Path, accelerator: Accelerator
) -> None:
    run = start(tmp_path, accelerator)
    run.log({"loss": 1.0}, step=0)
    run.close()
    again = start(tmp_path, accelerator, resume=True, seed=1)
    assert again.restore() is None
    assert "seed: 1" in (tmp_path / "config.yaml").read_text()
    assert read_metrics(tmp_path) == []


def test_a_resumed_run_may_take_more_steps(tmp_path: Path, accelerator: Accelerator) -> None:
    start(tmp_path, accelerator).save_checkpoint(4, {"a": 1})
    start(tmp_path, accelerator, resume=True, num_steps=9)
    assert "num_steps: 9" in (tmp_path / "config.yaml").read_text()


def test_resuming_nothing_starts_at_the_beginning(tmp_path: Path, accelerator: Accelerator) -> None:
    assert start(tmp_path / "new", accelerator, resume=True).restore() is None


def test_steps_after_the_last_checkpoint_are_not_logged_twice(tmp_path: Path, accelerator: Accelerator) -> None:
    run = start(tmp_path, accelerator)
    for step in range(5):
        run.log({"loss": float(step)}, step=step)
        if step == 2:
            run.save_checkpoint(3, {"a": 1})
    run.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # killed while writing
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1, 2, 3, 4]
    resumed = start(tmp_path, accelerator, resume=True)
    assert resumed.restore() == (3, {"a": 1})
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1, 2]
    for step in (3, 4):
        resumed.log({"loss": 10.0 + step}, step=step)
    resumed.close()
    assert [line["loss"] for line in read_metrics(tmp_path)] == [0.0, 1.0, 2.0, 13.0, 14.0]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(0, 0), (1, 1), (2, 2), (3, 13), (4, 14)]


def test_a_run_killed_before_its_first_checkpoint_logs_from_the_start(tmp_path: Path, accelerator: Accelerator) -> None:
    run = start(tmp_path, accelerator)
    run.log({"loss": 1.0}, step=0)
    run.close()
    resumed = start(tmp_path, accelerator, resume=True)
    assert resumed.restore() is None
    assert read_metrics(tmp_path) == []


def test_a_number_that_is_not_finite_is_null_in_the_log(tmp_path: Path, accelerator: Accelerator) -> None:
    run = start(tmp_path, accelerator)
    run.log({"a": math.nan, "b": torch.tensor(2), "c": torch.tensor([3.0])}, step=0)
    run.close()
    assert read_metrics(tmp_path) == [{"step": 0, "a": None, "b": 2.0, "c": 3.0}]


def test_a_corrupt_checkpoint_is_not_skipped_silently(tmp_path: Path, accelerator: Accelerator) -> None:
    run = start(tmp_path, accelerator)
    run.save_checkpoint(1, {"a": 1})
    run.save_checkpoint(2, {"a": 2})
    run.log({"loss": 1.0}, step=2)
    (tmp_path / "checkpoints" / "step-000002" / "a.pt").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"step-000002 is corrupt: a.pt does not match.*--resume to go on from there"
    ):
        start(tmp_path, accelerator, resume=True).restore()
    assert len(read_metrics(tmp_path)) == 1, "an error must not cost a line of the log"


def test_a_renamed_checkpoint_is_refused(tmp_path: Path, accelerator: Accelerator) -> None:
    run = start(tmp_path, accelerator)
    run.save_checkpoint(1, {"a": 1})
    (tmp_path / "checkpoints" / "step-000001").rename(tmp_path / "checkpoints" / "step-000009")
    with pytest.raises(CheckpointError, match="holds step 1: it was renamed"):
        run.restore()


def test_left_overs_of_a_killed_save_are_cleared(tmp_path: Path, accelerator: Accelerator) -> None:
    start(tmp_path, accelerator).save_checkpoint(1, {"a": 1})
    (tmp_path / "checkpoints" / "step-000002.partial").mkdir()
    run = start(tmp_path, accelerator, resume=True)
    assert not (tmp_path / "checkpoints" / "step-000002.partial").exists()
    assert run.restore() == (1, {"a": 1})
