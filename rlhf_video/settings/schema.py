"""What a config dataclass says about itself: its fields, their types and their docstrings."""

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union

REQUIRED = dataclasses.MISSING
_SCALAR_NAMES: dict[type, str] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true/false",
    Path: "path",
    object: "any value",
    list: "list",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FieldSpec:
    """One field of a config dataclass."""

    name: str
    """Field name."""
    annotation: Any
    """Resolved type annotation."""
    default: object
    """Default value, or REQUIRED."""
    doc: str
    """The string literal under the field, on one line; empty where there is none."""


@functools.cache
def fields_of(schema: type) -> dict[str, FieldSpec]:
    """Return the fields of a config dataclass by name, in declaration order."""
    hints = typing.get_type_hints(schema)
    docs = _field_docs(schema)
    specs = {}
    for field in dataclasses.fields(schema):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        specs[field.name] = FieldSpec(
            name=field.name, annotation=hints[field.name], default=default, doc=docs.get(field.name, "")
        )
    return specs


def is_config(annotation: object) -> bool:
    """Tell whether an annotation is a config dataclass."""
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def union_arms(annotation: object) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation alone."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def nested_config(annotation: object) -> type | None:
    """Return the config dataclass inside `Config`, `Config | None` or `tuple[Config, ...]`, or None."""
    for arm in union_arms(annotation):
        if is_config(arm):
            return typing.cast(type, arm)
        if typing.get_origin(arm) is tuple and is_config(typing.get_args(arm)[0]):
            return typing.cast(type, typing.get_args(arm)[0])
    return None


def type_name(annotation: object) -> str:
    """Return an annotation as a reader of a YAML file would name it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is type(None):
        return "null"
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(arm) for arm in arguments)
    if origin is Literal:
        return "one of " + ", ".join(repr(choice) for choice in arguments)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return f"list of {type_name(arguments[0])}"
        return f"list of {len(arguments)} values ({', '.join(type_name(item) for item in arguments)})"
    if origin is not None or annotation is dict:
        return "mapping"
    if is_config(annotation):
        return "section"
    return _SCALAR_NAMES.get(typing.cast(type, annotation), str(annotation))


def walk_fields(schema: type, prefix: str = "", base: object = REQUIRED) -> Iterator[tuple[str, FieldSpec]]:
    """Yield (dotted name, field) for every leaf of a schema, depth first; fields of list items are `name.N.field`.

    Args:
        schema: Config dataclass.
        prefix: Put in front of every name.
        base: Instance whose values are shown as defaults; REQUIRED shows the class's own.
    """
    for spec in fields_of(schema).values():
        if base is not REQUIRED:
            spec = dataclasses.replace(spec, default=getattr(base, spec.name))
        dotted = prefix + spec.name
        inner = nested_config(spec.annotation)
        arms = union_arms(spec.annotation)
        is_list = any(typing.get_origin(arm) is tuple for arm in arms)
        if inner is None or is_list or len(arms) > 1:
            yield dotted, spec
        if is_list:
            dotted += ".N"
        if inner is not None:
            yield from walk_fields(inner, f"{dotted}.", spec.default if isinstance(spec.default, inner) else REQUIRED)


def _field_docs(schema: type) -> dict[str, str]:
    """Read the docstrings under the fields of a dataclass, and of its bases, from the source."""
    docs: dict[str, str] = {}
    for cls in reversed(schema.__mro__):
        if not dataclasses.is_dataclass(cls):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
        except (OSError, TypeError):  # made at run time, or the source is not shipped: help lines lack their text
            continue
        body = typing.cast(ast.ClassDef, tree.body[0]).body
        for field, below in itertools.pairwise(body):
            doc = _text_literal(below)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and doc:
                docs[field.target.id] = doc
    return docs


def _text_literal(node: ast.stmt) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split())
    return ""
