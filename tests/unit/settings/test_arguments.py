import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from rlhf_video.errors import ConfigError
from rlhf_video.settings import Flags, parse_arguments


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    learning_rate: float = 1e-3
    """Step size of AdamW."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    backbone: str
    """Model folder or Hub id. Required."""
    seed: int = 0
    """Seed of everything."""
    optim: OptimConfig = OptimConfig(learning_rate=2e-3)
    """Optimiser."""
    anchors: tuple[OptimConfig, ...] = ()
    """Several of them."""
    ema_decay: float | None = None
    """Decay of the average;
    null keeps none."""


@pytest.fixture
def default_config(tmp_path: Path) -> Path:
    path = tmp_path / "sprite.yaml"
    path.write_text("backbone: assets/sprite-wan\n")
    return path


def parse(default_config: Path, *arguments: str) -> tuple[TrainConfig, Flags]:
    return parse_arguments(TrainConfig, default_config=default_config, description="Train.", arguments=arguments)


def test_no_arguments_read_the_default_file(default_config: Path) -> None:
    config, flags = parse(default_config)
    assert config == TrainConfig(backbone="assets/sprite-wan")
    assert flags == Flags(dry_run=False, resume=False, config_path=default_config)


def test_flags_and_overrides_mix_in_any_order(default_config: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("backbone: y")
    config, flags = parse(
        default_config, "seed=3", "--resume", "optim.learning_rate=1e-4", "--config", str(other), "--dry-run"
    )
    assert config == TrainConfig(backbone="y", seed=3, optim=OptimConfig(learning_rate=1e-4))
    assert flags == Flags(dry_run=True, resume=True, config_path=other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed=3"], r"Unrecognized arguments: --seed=3. Fields of the config are given as key=value"),
        (["--config"], r"expected one argument"),
        (["sed=3"], r"Unknown key 'sed'. Did you mean 'seed'\?"),
        (["--res"], r"Unrecognized arguments: --res"),
    ],
)
def test_a_wrong_argument_is_a_config_error(default_config: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(default_config, *arguments)


def test_help_lists_every_field_with_type_default_and_docstring(
    default_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(default_config, "--help")
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert "backbone (text, required)\n      Model folder or Hub id. Required." in shown
    assert "optim.learning_rate (number, default 0.002)\n      Step size of AdamW." in shown
    assert "anchors (list of section, default [])" in shown
    assert "anchors.N.learning_rate (number, default 0.001)" in shown
    assert "ema_decay (number or null, default null)\n      Decay of the average; null keeps none." in shown


def test_a_typo_ends_a_script_with_one_paragraph_and_code_2(default_config: Path, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "from dataclasses import dataclass\nfrom pathlib import Path\n"
        "from rlhf_video.errors import exit_on_user_error\nfrom rlhf_video.settings import parse_arguments\n"
        "@dataclass(frozen=True, kw_only=True)\nclass C:\n    seed: int = 0\n"
        "with exit_on_user_error():\n"
        f"    parse_arguments(C, default_config=Path({str(default_config)!r}), description='x')\n"
    )
    done = subprocess.run([sys.executable, str(script), "sead=1"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: Unknown key 'sead'. Did you mean 'seed'?")
    assert done.stderr.count("\n") == 1
