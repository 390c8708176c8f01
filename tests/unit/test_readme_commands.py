"""Every training command that README.md prints builds for its process count, every shipped config for one."""

import argparse
import re
import shlex
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import launch_command_parser

from rlhf_video.algorithms.asd_config import AsdConfig
from rlhf_video.algorithms.dpo_config import DpoConfig
from rlhf_video.algorithms.pair_building_config import PairBuildingConfig
from rlhf_video.algorithms.reward_bp_config import RewardBpConfig
from rlhf_video.algorithms.reward_model_config import RewardModelConfig
from rlhf_video.algorithms.sft_config import SftConfig
from rlhf_video.settings import parse_arguments

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
DEFAULT_CONFIG = CONFIGS / "reward_bp" / "sprite.yaml"
SCRIPTS = {
    "train_reward_bp.py": (RewardBpConfig, DEFAULT_CONFIG, "global_prompts"),
    "train_reward_model.py": (
        RewardModelConfig,
        ROOT / "configs" / "reward_model" / "sprite-clip.yaml",
        "global_pairs",
    ),
    "train_sft.py": (SftConfig, CONFIGS / "sft" / "sprite.yaml", "global_clips"),
    "train_dpo.py": (DpoConfig, CONFIGS / "dpo" / "sprite.yaml", "global_pairs"),
    "train_asd.py": (AsdConfig, CONFIGS / "asd" / "sprite.yaml", "global_clips"),
    "build_pairs.py": (PairBuildingConfig, CONFIGS / "pairs" / "sprite.yaml", None),
}
"""Entry script -> its config's class, its default config, and its batch's field; None takes any number of processes."""


def _launch_commands() -> list[str]:
    """Return the `accelerate launch` commands of README's code blocks, without their comments."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = (line.split("  #")[0].strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line.startswith("accelerate launch ")]


def _num_processes(launch: argparse.Namespace) -> int:
    if launch.num_processes is not None:
        return int(launch.num_processes)
    if launch.config_file is None:
        return 1
    return int(yaml.safe_load((ROOT / launch.config_file).read_text(encoding="utf-8"))["num_processes"])


def test_readme_has_launch_commands_for_one_and_for_many_processes() -> None:
    counts = {_num_processes(launch_command_parser().parse_args(shlex.split(c)[2:])) for c in _launch_commands()}
    assert min(counts) == 1 < max(counts)


@pytest.mark.parametrize("command", _launch_commands())
def test_launch_command_shares_its_batch_among_its_processes(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    launch = launch_command_parser().parse_args(shlex.split(command)[2:])
    assert Path(launch.training_script).is_file()
    schema, default_config, size_field = SCRIPTS[Path(launch.training_script).name]
    config, _ = parse_arguments(
        schema, default_config=default_config, description="", arguments=launch.training_script_args
    )
    if size_field is None:
        return
    num_processes, batch = _num_processes(launch), config.batch
    size = getattr(batch, size_field)
    assert size % num_processes == 0
    batch.micro_batches(range(size // num_processes))


@pytest.mark.parametrize("file", sorted((ROOT / "configs" / "reward_bp").glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_config_runs_on_one_process(file: Path) -> None:
    config, _ = parse_arguments(
        RewardBpConfig, default_config=DEFAULT_CONFIG, description="", arguments=["--config", str(file)]
    )
    config.batch.micro_batches(range(config.batch.global_prompts))
