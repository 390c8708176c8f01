"""YAML as people mean it: the YAML 1.2 core scalars, no duplicate keys, and a dump that reads back the same.

PyYAML speaks YAML 1.1, where `1e-4` is a string, `no` is False, `010` is eight and `12:30` is 750. A config reader that
inherits this turns a learning rate into text. Here only null, true/false, decimal integers and decimal floats are
anything but text.
"""

import re
from typing import Any, ClassVar

import yaml

from rlhf_video.errors import ConfigError

_CORE_SCALARS = (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN\0"),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


class _Loader(yaml.SafeLoader):
    """Safe loader with YAML 1.2 core scalars that refuses duplicate keys."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}  # type: ignore[misc]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build one mapping; a key given twice is an error that names its line."""
        seen: dict[object, int] = {}
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise ConfigError(
                    f"line {line}: the key {key!r} is not text. Put it in quotes if it is meant as a name."
                )
            if key in seen:
                raise ConfigError(f"line {line}: the key '{key}' is given twice (first on line {seen[key]}). Keep one.")
            seen[key] = line
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Safe dumper that quotes whatever YAML 1.1 or YAML 1.2 could read as something else than text."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {  # type: ignore[misc]
        first: list(rules) for first, rules in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }

    def ignore_aliases(self, data: object) -> bool:
        """Write repeated values out in full: a config has no anchors."""
        return True


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    """Read a decimal integer; a leading zero does not mean octal."""
    return int(loader.construct_scalar(node))


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    """Read a float, with YAML's spelling of infinity and not-a-number."""
    return float(str(loader.construct_scalar(node)).lower().replace(".inf", "inf").replace(".nan", "nan"))


for _tag, _pattern, _first in _CORE_SCALARS:
    _compiled = re.compile(rf"^(?:{_pattern})$")
    for _character in _first:
        # PyYAML looks the empty scalar up under the key "".
        _key = "" if _character == "\0" else _character
        _Loader.yaml_implicit_resolvers.setdefault(_key, []).append((_tag, _compiled))
        _Dumper.yaml_implicit_resolvers.setdefault(_key, []).append((_tag, _compiled))
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def parse_yaml(text: str, *, source: str) -> object:
    """Parse YAML text into dicts, lists and scalars.

    Args:
        text: One YAML document.
        source: What the text is, for error messages: a file name or an override.

    Returns:
        The value; None for an empty document.

    Raises:
        ConfigError: The text is not YAML, has a key twice, or has a key that is not text.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{source} is not valid YAML: {reason}.") from error


def format_yaml(value: object) -> str:
    """Return block-style YAML, keys in the given order, that `parse_yaml` reads back to an equal value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
