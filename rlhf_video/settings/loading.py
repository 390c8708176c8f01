"""Read, write, compare and name configs."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from rlhf_video.errors import ConfigError
from rlhf_video.settings.building import build_config, to_plain
from rlhf_video.settings.overrides import apply_overrides
from rlhf_video.settings.yaml_values import format_yaml, parse_yaml

T = TypeVar("T")


def load_config(schema: type[T], path: Path | None, overrides: Sequence[str] = ()) -> T:
    """Read a config file into a frozen dataclass, strictly.

    Args:
        schema: Frozen, keyword-only config dataclass.
        path: YAML file; None starts from the defaults.
        overrides: Texts `dotted.name=value`, applied after the file; values are YAML, list items go by index.

    Returns:
        The config.

    Raises:
        ConfigError: The file is missing or not YAML, a key is unknown or given twice, a required field is missing, a
            value has the wrong type, or the config refuses a combination of values.
    """
    tree = dict(read_tree(path)) if path is not None else {}
    source = f"{path}: " if path is not None else ""
    apply_overrides(tree, schema, overrides)
    try:
        return build_config(schema, tree)
    except ConfigError as error:
        raise ConfigError(f"{source}{error}") from error


def read_tree(path: Path) -> Mapping[str, object]:
    """Return the plain values of a YAML config file.

    Raises:
        ConfigError: The file is missing, is not UTF-8 text, is not YAML, or does not hold a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        nearby = sorted(str(p) for p in path.parent.glob("*.yaml"))
        hint = f" There are: {', '.join(nearby)}." if nearby else ""
        raise ConfigError(f"There is no config file {path}.{hint}") from error
    except (IsADirectoryError, PermissionError) as error:
        raise ConfigError(f"The config file {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"The config file {path} is not UTF-8 text (byte {error.start}).") from error
    tree = parse_yaml(text, source=str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold 'key: value' lines, got a {type(tree).__name__}.")
    return dict(to_plain(tree))  # copies: YAML anchors share objects, an override of one must not change the other


def dump_yaml(config: object) -> str:
    """Return the whole config, defaults included, as YAML that `load_config` reads back to an equal config."""
    return format_yaml(to_plain(config))


def config_hash(config: object) -> str:
    """Return the first 12 hex digits of the SHA-256 of a config's values; the file's layout does not matter."""
    canonical = json.dumps(to_plain(config), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:12]


def changed_fields(old: object, new: object, prefix: str = "") -> tuple[str, ...]:
    """Return the dotted names whose plain values differ between two config trees."""
    missing = object()
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*new, *(key for key in old if key not in new)]
        pairs = [(str(key), old.get(key, missing), new.get(key, missing)) for key in keys]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(str(i), a, b) for i, (a, b) in enumerate(zip(old, new, strict=True))]
    else:
        same = type(old) is type(new) and (old == new or (old != old and new != new))  # nan equals nan here
        return () if same else (prefix,)
    return tuple(name for key, a, b in pairs for name in changed_fields(a, b, f"{prefix}.{key}" if prefix else key))
