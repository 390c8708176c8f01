"""Each file of configs/accelerate/ is one that accelerate itself accepts, and asks for what its name says."""

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "accelerate"
KINDS = {
    "single": DistributedType.NO,
    "ddp": DistributedType.MULTI_GPU,
    "fsdp2": DistributedType.FSDP,
    "zero2": DistributedType.DEEPSPEED,
    "zero3": DistributedType.DEEPSPEED,
}


def test_every_file_is_listed_here() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_loads_the_file(name: str) -> None:
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))  # refuses unknown top-level keys
    assert isinstance(config, ClusterConfig)
    assert config.distributed_type == KINDS[name]


@pytest.mark.parametrize("name", KINDS)
def test_launch_knows_every_nested_key_and_warns_about_nothing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(FOLDER / f"{name}.yaml")
    config = load_config_from_file(path)
    arguments = launch_command_parser().parse_args(["--config_file", path, "script.py"])
    known = set(vars(arguments))  # accelerate copies nested keys onto the arguments without looking
    assert set(config.fsdp_config) <= known
    assert set(config.deepspeed_config) <= known
    _validate_launch_command(arguments)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_zero_files_ask_for_their_stage_and_fsdp_for_version_two() -> None:
    assert load_config_from_file(str(FOLDER / "zero2.yaml")).deepspeed_config["zero_stage"] == 2
    assert load_config_from_file(str(FOLDER / "zero3.yaml")).deepspeed_config["zero_stage"] == 3
    assert load_config_from_file(str(FOLDER / "fsdp2.yaml")).fsdp_config["fsdp_version"] == 2
