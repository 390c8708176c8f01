"""Every shipped config of an evaluation says what there is: fields, metrics, options, dimensions, prompt files."""

import inspect
from pathlib import Path
from typing import Any

import pytest

from evaluation.metric_catalogue import CATALOGUE
from evaluation.running.command_line import parse_request
from evaluation.running.metric_building import check_labels, label_of
from evaluation.running.suite_config import EvaluationConfig
from evaluation.vbench_compat.official import UNITS
from evaluation.vbench_compat.suite import INSTALLED
from evaluation.vbench_compat.totals import VBENCH_DIMENSIONS
from rewards.catalogue import CATALOGUE as REWARDS
from rewards.factories import load_factory
from rlhf_video.settings import load_config

CONFIGS = sorted(Path("configs/evaluation").glob("*.yaml"))


def bind(kind: str, name: str, targets: Any, options: dict[str, object]) -> None:
    """Fail where a name or an option does not exist, or a needed one lacks; nothing is built."""
    inspect.signature(load_factory(kind, name, targets)).bind(**options)


def test_there_are_configs() -> None:
    assert {path.stem for path in CONFIGS} >= {"sprite", "wan2.1-1.3b"}


def test_no_arguments_mean_the_sprite_config() -> None:
    request = parse_request([])
    assert request.command == "all"
    assert request.config == load_config(EvaluationConfig, Path("configs/evaluation/sprite.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_parses_and_its_metrics_and_options_exist(path: Path) -> None:
    config = load_config(EvaluationConfig, path)
    assert config.baseline_name in config.systems
    assert config.suite.vbench == INSTALLED or (config.suite.prompts is not None and config.suite.prompts.is_file())
    for entry in config.metrics:
        bind("metric", entry.name, CATALOGUE, entry.options)
        if entry.name == "reward":
            options = dict(entry.options)
            bind(
                "reward",
                str(options["name"]),
                {name: reward.target for name, reward in REWARDS.items()},
                dict(options.get("options") or {}),
            )  # type: ignore[call-overload]
        if entry.name == "vbench_official":
            assert entry.options["dimension"] in UNITS
    check_labels([label_of(entry) for entry in config.metrics])


def test_the_wan_config_measures_all_of_vbench_officially() -> None:
    config = load_config(EvaluationConfig, Path("configs/evaluation/wan2.1-1.3b.yaml"))
    official = [entry.options["dimension"] for entry in config.metrics if entry.name == "vbench_official"]
    assert sorted(map(str, official)) == sorted(VBENCH_DIMENSIONS)


def test_an_unknown_option_would_be_found() -> None:
    with pytest.raises(TypeError, match="pairs"):
        bind("metric", "dynamic_degree", CATALOGUE, {"pairs": 4})
