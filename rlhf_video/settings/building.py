"""From plain YAML values to a typed config and back; every mismatch names its dotted field and the way out."""

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from pathlib import Path, PurePath
from types import NoneType
from typing import Any, Literal, TypeVar

from rlhf_video.errors import ConfigError
from rlhf_video.settings.schema import (
    REQUIRED,
    fields_of,
    is_config,
    nested_config,
    type_name,
    union_arms,
    walk_fields,
)

T = TypeVar("T")


def build_config(schema: type[T], tree: Mapping[str, object], *, path: str = "", base: object = REQUIRED) -> T:
    """Build a config dataclass from plain values.

    Args:
        schema: Frozen config dataclass.
        tree: Values by field name; fields left out keep their default.
        path: Dotted name of this section, empty for the root.
        base: A default instance of this section that supplies the fields left out.

    Returns:
        The config.

    Raises:
        ConfigError: A key is unknown, a required field is missing, a value has the wrong type, or the config refuses
            its values.
    """
    specs = fields_of(typing.cast(type, schema))
    for key in tree:
        if key not in specs:
            raise ConfigError(unknown_key_message(schema, str(key), path=path))
    values: dict[str, object] = {}
    for name, spec in specs.items():
        dotted = f"{path}.{name}" if path else name
        default = spec.default if base is REQUIRED else getattr(base, name)
        if name in tree:
            values[name] = convert(spec.annotation, tree[name], path=dotted, default=default)
        elif default is REQUIRED:
            hint = f" {spec.doc}" if spec.doc else ""
            raise ConfigError(f"'{dotted}' is required ({type_name(spec.annotation)}) and was not given.{hint}")
        else:
            values[name] = default
    try:
        return schema(**values)
    except ConfigError as error:
        if not path:
            raise
        raise ConfigError(f"In section '{path}': {error}") from error


def convert(annotation: Any, value: object, *, path: str, default: object = REQUIRED) -> object:
    """Return a plain value as the annotated type.

    Args:
        annotation: str, int, float, bool, Path, None, object, Literal, tuple, dict, config dataclass, or their union.
        value: What the YAML holds.
        path: Dotted field name for messages.
        default: The field's default; a section keeps the values of it that the YAML leaves out.

    Returns:
        The typed value.

    Raises:
        ConfigError: The value has another type.
    """
    arms = union_arms(annotation)
    if len(arms) > 1:
        return _convert_union(annotation, arms, value, path=path, default=default)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if is_config(annotation):
        base = default if isinstance(default, annotation) else REQUIRED
        return build_config(annotation, _mapping(annotation, value, path), path=path, base=base)
    if origin is Literal:
        if any(type(value) is type(choice) and value == choice for choice in arguments):
            return value
        raise ConfigError(_literal_message(arguments, value, path))
    if origin is tuple:
        return _convert_tuple(annotation, arguments, value, path=path)
    if origin in (dict, Mapping) or origin is not None or annotation is dict:
        item = arguments[1] if arguments else object
        items = _mapping(annotation, value, path)
        return {key: convert(item, entry, path=f"{path}.{key}") for key, entry in items.items()}
    return _convert_scalar(annotation, value, path=path)


def to_plain(value: object) -> Any:
    """Return a config, or a part of one, as dicts, lists and scalars that YAML can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(entry) for entry in value]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, bool | int | float | str | NoneType):
        return value
    raise TypeError(f"a config cannot hold {type(value).__name__}")


def unknown_key_message(schema: type, key: str, *, path: str) -> str:
    """Return the message for a key that a section does not have, with the nearest name or the section it lives in."""
    names = list(fields_of(schema))
    prefix = f"{path}." if path else ""
    message = f"Unknown key '{prefix}{key}'."
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    deeper = [dotted for dotted, _ in walk_fields(schema, prefix) if dotted.rsplit(".", 1)[-1] == key]
    if close:
        message += f" Did you mean '{prefix}{close[0]}'?"
    elif deeper:
        message += f" Did you mean '{deeper[0]}'?"
    return f"{message} Known here: {', '.join(names)}."


def _mapping(annotation: object, value: object, path: str) -> Mapping[str, object]:
    if isinstance(value, Mapping):
        return value
    if value is None and nested_config(annotation) is not None:
        return {}  # "section:" with every line under it commented out
    raise ConfigError(_type_message(annotation, value, path))


def _convert_union(annotation: object, arms: tuple[Any, ...], value: object, *, path: str, default: object) -> object:
    if value is None and NoneType in arms:
        return None
    arms = tuple(arm for arm in arms if arm is not NoneType)
    if len(arms) == 1:
        return convert(arms[0], value, path=path, default=default)
    exact = [arm for arm in arms if arm is type(value)]
    for arm in (*exact, *arms):
        try:
            return convert(arm, value, path=path, default=default)
        except ConfigError:
            continue
    raise ConfigError(_type_message(annotation, value, path))


def _convert_tuple(annotation: object, arguments: tuple[Any, ...], value: object, *, path: str) -> tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(_type_message(annotation, value, path))
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        item_types = (arguments[0],) * len(value)
    elif len(arguments) == len(value):
        item_types = arguments
    else:
        raise ConfigError(f"'{path}' needs {len(arguments)} values, got {len(value)}: {value!r}.")
    return tuple(convert(t, v, path=f"{path}.{i}") for i, (t, v) in enumerate(zip(item_types, value, strict=True)))


def _convert_scalar(annotation: Any, value: object, *, path: str) -> object:
    if annotation in (object, Any):
        return value
    if annotation is Path and isinstance(value, str) and value:
        return Path(value)
    if annotation is float and type(value) in (int, float):
        try:
            return float(typing.cast(float, value))
        except OverflowError as error:
            raise ConfigError(f"'{path}' is too large for a number: {value!r}.") from error
    # `type is` and not isinstance: a bool is an int for Python, but not for whoever wrote the file.
    if annotation in (str, int, bool, NoneType) and type(value) is annotation:
        return value
    raise ConfigError(_type_message(annotation, value, path))


def _type_message(annotation: object, value: object, path: str) -> str:
    message = f"'{path}' expects {type_name(annotation)}, got {type_name(type(value))} {value!r}."
    if str in union_arms(annotation) and isinstance(value, bool | int | float):
        message += " Put it in quotes if it is meant as text."
    if annotation is int and isinstance(value, float) and value.is_integer():
        message += f" Write {int(value)}."
    if typing.get_origin(annotation) is tuple and not isinstance(value, Mapping):
        message += f" Write [{value}]."
    return message


def _literal_message(choices: tuple[object, ...], value: object, path: str) -> str:
    close = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"'{path}' must be one of {', '.join(str(choice) for choice in choices)}, got {value!r}.{hint}"
