"""Run an entry script as its user does: in one process, or on two by a launcher."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

PACKAGE = Path(__file__).resolve().parents[1]
ACCELERATE = (
    *("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no"),
)
"""`accelerate launch` on two processes."""
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
"""`torchrun` on two processes; variables below say what they share."""
FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
ZERO2 = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2", "DS_ACCELERATOR": "cpu"}


def launch(
    launcher: Sequence[str], script: str, *arguments: str | Path, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run a script in processes of its own, each on one thread of the CPU.

    Args:
        launcher: `ACCELERATE`, `TORCHRUN`, or () for one process.
        script: File name in the package, for example "train_dpo.py".
        arguments: Of its command line.
        environment: Further variables.

    Returns:
        How it ended, with its output as text.
    """
    command = [sys.executable, *launcher, str(PACKAGE / script), *map(str, arguments)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment}
    return subprocess.run(
        command, cwd=PACKAGE.parent, env=variables, capture_output=True, text=True, timeout=550, check=False
    )


def run_script(launcher: Sequence[str], script: str, *arguments: str | Path, **environment: str) -> str:
    """Run a script that must succeed, and return what it printed.

    Args:
        launcher: As of `launch`; () runs the script in this process, whose imports are done.
        script: File name in the package.
        arguments: Of its command line.
        environment: Further variables of a launcher's processes.

    Raises:
        AssertionError: It failed; with the end of what it said.
    """
    if not launcher and not torch.cuda.is_available():  # several processes run on the CPU here: so must a single one
        printed = io.StringIO()
        with _command_line(script, *map(str, arguments)), contextlib.redirect_stdout(printed):
            runpy.run_path(str(PACKAGE / script), run_name="__main__")
        return printed.getvalue()
    done = launch(launcher, script, *arguments, **environment)
    if done.returncode:
        raise AssertionError(done.stdout[-2000:] + done.stderr[-6000:])
    return done.stdout


@contextlib.contextmanager
def _command_line(*words: str) -> Iterator[None]:
    before, sys.argv = sys.argv, list(words)
    try:
        yield
    finally:
        sys.argv = before
