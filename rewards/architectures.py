"""From a config file to the architecture of a model whose weights come in one file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from rewards.errors import RewardError

ConfigT = TypeVar("ConfigT", bound=PreTrainedConfig)


def read_config(config: str | Path | None, config_class: type[ConfigT], published: Mapping[str, Any]) -> ConfigT:
    """Return an architecture.

    Args:
        config: A `config.json` of `transformers`, or its folder; None for the published architecture.
        config_class: The class of config that the file must hold.
        published: Arguments of that class for the published weights.

    Raises:
        RewardError: No such file, no JSON object, of another kind of model, or with a value of the wrong type.
    """
    if config is None:
        return config_class(**published)
    path = Path(config) / "config.json" if Path(config).is_dir() else Path(config)
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RewardError(f"Cannot read a config from {path}: {error}. Give a config.json, or its folder.") from error
    kind, wanted = values.get("model_type") if isinstance(values, dict) else None, config_class.model_type
    if kind != wanted:
        raise RewardError(f"{path} is the config of a model of type {kind!r}, this reward needs {wanted!r}.")
    try:
        return config_class(**values)
    except (StrictDataclassError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RewardError(f"{path} is no valid {config_class.__name__}: {reason}") from error
