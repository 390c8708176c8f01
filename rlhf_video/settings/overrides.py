"""Command-line overrides: `optim.learning_rate=1e-4`, `rewards.0.weight=2`."""

import typing
from collections.abc import MutableMapping, Sequence
from typing import Any

from rlhf_video.errors import ConfigError
from rlhf_video.settings.building import to_plain, unknown_key_message
from rlhf_video.settings.schema import REQUIRED, fields_of, is_config, union_arms
from rlhf_video.settings.yaml_values import parse_yaml


def apply_overrides(tree: MutableMapping[str, object], schema: type, overrides: Sequence[str]) -> None:
    """Set the values of overrides in a config tree, in the order given.

    A list or section that the tree leaves to its default is first written out, so that one item of it can be changed.

    Args:
        tree: Plain values as read from YAML; changed in place.
        schema: Config dataclass the tree is meant for.
        overrides: Texts of the form `dotted.name=YAML value`; an integer part is a list index.

    Raises:
        ConfigError: An override has no `=`, names an unknown field, or an index outside its list.
    """
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name.strip():
            raise ConfigError(
                f"'{override}' is not an override. Write key=value, for example seed=1 or optim.learning_rate=1e-4."
            )
        value = parse_yaml(text, source=f"override '{override}'")
        _assign(tree, schema, name.strip().split("."), value)


def _assign(tree: MutableMapping[str, object], schema: type, parts: list[str], value: object) -> None:
    node: Any = tree
    annotation: Any = schema
    for position, part in enumerate(parts):
        path, is_last = ".".join(parts[:position]), position == len(parts) - 1
        if isinstance(node, list):
            index = _index(node, part, path)
            annotation = _item_annotation(annotation, tuple)
            if is_last:
                node[index] = value
                return
            if node[index] is None:
                node[index] = {}
            node = node[index]
            continue
        if not isinstance(node, MutableMapping):
            raise ConfigError(f"'{path}' is {node!r}: it has no part named '{part}'.")
        config = next((arm for arm in union_arms(annotation) if is_config(arm)), None)
        annotation = _enter(node, config, part, path) if config else _item_annotation(annotation, dict)
        if is_last:
            node[part] = value
            return
        if node.get(part) is None:
            node[part] = {}
        node = node[part]


def _enter(node: MutableMapping[str, object], config: type, part: str, path: str) -> object:
    """Return the annotation of a section's field; write its default into the tree when the tree leaves it out."""
    specs = fields_of(config)
    if part not in specs:
        raise ConfigError(unknown_key_message(config, part, path=path))
    if part not in node and specs[part].default is not REQUIRED:
        node[part] = to_plain(specs[part].default)
    return specs[part].annotation


def _index(items: list[object], part: str, path: str) -> int:
    if not part.isdecimal():
        raise ConfigError(f"'{path}' is a list: write an index, for example {path}.0, in place of '{path}.{part}'.")
    if int(part) >= len(items):
        known = f"0 to {len(items) - 1}" if items else "none, the list is empty"
        raise ConfigError(f"'{path}.{part}' does not exist: '{path}' has {len(items)} items (indices {known}).")
    return int(part)


def _item_annotation(annotation: object, container: type) -> object:
    for arm in union_arms(annotation):
        arguments = typing.get_args(arm)
        if typing.get_origin(arm) is container and arguments:
            return arguments[0] if container is tuple else arguments[1]
    return object
