import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from rlhf_video.errors import ConfigError
from rlhf_video.runtime import Distribution
from rlhf_video.testing.tiny_wan import tiny_wan_pipeline

WORKER = Path(__file__).with_name("distributed_worker.py")


@pytest.fixture(scope="module")
def tiny_wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_wan_pipeline(tmp_path_factory.mktemp("model") / "tiny-wan")


@pytest.fixture(scope="module")
def tiny_two_experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_wan_pipeline(tmp_path_factory.mktemp("model") / "tiny-wan-a14b", two_experts=True)


def run_worker(model: Path, result: Path, *, num_processes: int, timeout: int = 620, **settings: str) -> dict[str, Any]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(num_processes)]
    command = [sys.executable, *(launcher if num_processes > 1 else []), str(WORKER), str(model), str(result)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **settings}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.terminate()  # torchrun passes it on to its workers; a kill would leave them behind
            output, _ = process.communicate(timeout=60)
            pytest.fail(f"no end after {timeout} s:\n{output[-8000:]}")
    assert process.returncode == 0, output[-8000:]
    return torch.load(result, weights_only=True)


def assert_same_training(result: dict[str, Any], *, atol: float) -> None:
    plain, straight, resumed = result["plain"], result["straight"], result["resumed"]
    assert plain["norms"].min() > 0.05, "no step was clipped: the test would not see a wrong norm"
    torch.testing.assert_close(straight["norms"], plain["norms"], rtol=1e-5, atol=0)
    torch.testing.assert_close(straight["adapter"], plain["adapter"], rtol=0, atol=atol)
    torch.testing.assert_close(straight["ema"], plain["ema"], rtol=0, atol=atol)
    torch.testing.assert_close(resumed["ema"], straight["ema"], rtol=0, atol=0)
    torch.testing.assert_close(resumed["adapter"], straight["adapter"], rtol=0, atol=0)
    torch.testing.assert_close(resumed["optimizer"], straight["optimizer"], rtol=0, atol=0)
    assert result["gathered"] == [0, 1, 2, 3]


@pytest.mark.timeout(700)
def test_one_process_trains_bit_equal_to_plain_pytorch(tiny_wan: Path, tmp_path: Path) -> None:
    result = run_worker(tiny_wan, tmp_path / "result.pt", num_processes=1)
    assert result["kind"] == "single"
    assert_same_training(result, atol=0)


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_two_data_parallel_processes_equal_one(tiny_two_experts: Path, tmp_path: Path) -> None:
    result = run_worker(tiny_two_experts, tmp_path / "result.pt", num_processes=2)
    assert (result["kind"], result["num_processes"]) == ("data_parallel", 2)
    assert_same_training(result, atol=2e-5)  # Adam magnifies rounding; one step moves a weight by up to 1e-2


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_two_fsdp2_processes_equal_one(tiny_two_experts: Path, tmp_path: Path) -> None:
    result = run_worker(
        tiny_two_experts, tmp_path / "result.pt", num_processes=2, ACCELERATE_USE_FSDP="true", FSDP_VERSION="2"
    )
    assert (result["kind"], result["num_processes"]) == ("fsdp2", 2)
    assert_same_training(result, atol=2e-5)  # Adam magnifies rounding; one step moves a weight by up to 1e-2


@pytest.mark.slow
@pytest.mark.timeout(700)  # the first run on a machine compiles DeepSpeed's shared-memory collectives
def test_two_deepspeed_zero2_processes_equal_one(tiny_wan: Path, tmp_path: Path) -> None:
    pytest.importorskip("deepspeed", reason='needs pip install -e ".[deepspeed]"')
    result = run_worker(
        tiny_wan,
        tmp_path / "result.pt",
        num_processes=2,
        ACCELERATE_USE_DEEPSPEED="true",
        ACCELERATE_DEEPSPEED_ZERO_STAGE="2",
        DS_ACCELERATOR="cpu",
    )
    assert (result["kind"], result["num_processes"]) == ("deepspeed", 2)
    assert_same_training(result, atol=2e-5)  # Adam magnifies rounding; one step moves a weight by up to 1e-2


@pytest.mark.parametrize(
    ("num_processes", "rank", "expected"), [(1, 0, range(6)), (2, 1, range(3, 6)), (3, 0, range(2))]
)
def test_shares_of_a_batch_are_contiguous_and_equal(num_processes: int, rank: int, expected: range) -> None:
    distribution = Distribution(Accelerator(cpu=True))
    distribution.num_processes, distribution.rank = num_processes, rank
    assert distribution.shard_indices(6) == expected


def test_a_batch_that_cannot_be_shared_equally_is_refused() -> None:
    distribution = Distribution(Accelerator(cpu=True))
    distribution.num_processes = 4
    with pytest.raises(ConfigError, match=r"global batch of 6 .* multiple of 4, for example 4"):
        distribution.shard_indices(6)
