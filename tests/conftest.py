"""Rules of the whole suite: no hub access, no telemetry, one thread, and no silent skip where CI asks for everything.

pytest-socket blocks the network (`--allow-hosts` in pyproject.toml): only loopback is open, for gloo and local servers.
"""

import os

# Before torch and the Hugging Face libraries are imported: they read these once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ[name] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["WANDB_MODE"] = "disabled"

from collections.abc import Callable, Generator, Iterator

import hypothesis
import pytest
import torch

from rewards.workers.environments import FOLDER_VARIABLE, Environment, create
from rewards.workers.lock import load_lock

torch.set_num_threads(1)
hypothesis.settings.register_profile("suite", deadline=None, max_examples=50, derandomize=True)
hypothesis.settings.load_profile("suite")

NO_SKIP = os.environ.get("RLHF_VIDEO_NO_SKIP") == "1"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.CallInfo[None], None]:
    """Turn a skip into a failure where RLHF_VIDEO_NO_SKIP=1, except for tests that need a GPU."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if not (NO_SKIP and report.skipped) or hasattr(report, "wasxfail") or item.get_closest_marker("gpu"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"RLHF_VIDEO_NO_SKIP=1 and this test's prerequisite is missing: {reason}"


@pytest.hookimpl(tryfirst=True)  # before `-m` takes items away
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip GPU tests with the reason where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    no_gpu = pytest.mark.skip(reason="needs a CUDA device, and torch.cuda.is_available() is False here")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(no_gpu)


@pytest.fixture(scope="session")
def worker_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Environment]]:
    """Return a function that makes a worker's environment once a session, or finds it where RLHF_VIDEO_ENVS is set."""
    with pytest.MonkeyPatch.context() as patch:
        if FOLDER_VARIABLE not in os.environ:
            folder = tmp_path_factory.getbasetemp()
            is_one_of_many = "PYTEST_XDIST_WORKER" in os.environ  # processes of one test run share what they make
            patch.setenv(FOLDER_VARIABLE, str((folder.parent if is_one_of_many else folder) / "envs"))
        yield lambda worker: create(load_lock(worker))
