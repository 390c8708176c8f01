"""From a name in a config to an object: what stands behind the name, checked options, and "did you mean".

Rewards and metrics are named alike: by a short name, or as "package.module:Class".
"""

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from rewards.errors import RewardError

_PLAIN = (bool, int, float, str, Path, NoneType)
"""Types whose values `construct` checks."""


def construct(kind: str, name: str, targets: Mapping[str, str], options: Mapping[str, object]) -> object:
    """Build what a name stands for.

    Args:
        kind: What messages call it, for example "reward".
        name: A key of `targets`, or "package.module:Class" for any class or factory that can be imported.
        targets: Short name -> "package.module:Class".
        options: Arguments of that class.

    Raises:
        RewardError: Unknown name, module or class, or an unknown, missing or mistyped option.
    """
    factory = load_factory(kind, name, targets)
    title = f"{kind.capitalize()} {name!r}"
    _check_options(title, factory, options)
    _check_types(title, factory, options)
    return factory(**options)


def load_factory(kind: str, name: str, targets: Mapping[str, str]) -> Callable[..., object]:
    """Import the class or factory that a name stands for; arguments and errors as of `construct`."""
    if ":" not in name and name not in targets:
        raise RewardError(
            f"Unknown {kind} {name!r}.{did_you_mean(name, targets)} Known: {', '.join(sorted(targets))}; "
            "your own is named 'package.module:Class'."
        )
    title = f"{kind.capitalize()} {name!r}"
    module_name, attribute = split_target(kind, targets.get(name, name))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise RewardError(f"{title} needs the package {error.name!r}, which is not installed.") from error
        raise RewardError(
            f"{title}: there is no module {error.name!r}. Install it, or put its folder on PYTHONPATH."
        ) from error
    members = vars(module)
    if not callable(members.get(attribute)):
        classes = [key for key, value in members.items() if inspect.isclass(value)]
        raise RewardError(f"{title}: {module_name} has no class {attribute!r}.{did_you_mean(attribute, classes)}")
    factory: Callable[..., object] = members[attribute]
    return factory


def split_target(kind: str, target: str) -> tuple[str, str]:
    """Return module and attribute of "package.module:Class".

    Raises:
        RewardError: It has another form.
    """
    module_name, _, attribute = target.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), attribute]):
        raise RewardError(f"A {kind} of your own is named 'package.module:Class', got {target!r}.")
    return module_name, attribute


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest name, empty where none is near."""
    close = difflib.get_close_matches(given, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _check_options(title: str, factory: Callable[..., object], options: Mapping[str, object]) -> None:
    parameters = inspect.signature(factory).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for option in options:
        if option not in parameters and not takes_any:
            known = f"Known: {', '.join(parameters)}." if parameters else "It takes none."
            raise RewardError(f"{title} has no option {option!r}.{did_you_mean(option, parameters)} {known}")
    for key, parameter in parameters.items():
        needed = parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        )
        if needed and key not in options:
            raise RewardError(f"{title} needs the option {key!r}.")


def _check_types(title: str, factory: Callable[..., object], options: Mapping[str, object]) -> None:
    """Refuse values of the wrong plain type ("3" for 3); richer annotations are the class's own business."""
    hints = get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    for option, value in options.items():
        hint = hints.get(option, Any)
        choices = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        literals = [literal for choice in choices if get_origin(choice) is Literal for literal in get_args(choice)]
        plain = tuple(choice for choice in choices if choice in _PLAIN)
        if len(plain) + sum(get_origin(choice) is Literal for choice in choices) < len(choices):
            continue
        # bool is an int to Python and int fits float to people, but neither the other way round.
        fits = type(value) in plain or isinstance(value, Path) & (Path in plain) or value in literals
        if not (fits or (type(value) is int and float in plain)):
            wanted = " or ".join(
                [*("null" if kind is NoneType else kind.__name__ for kind in plain), *map(repr, literals)]
            )
            raise RewardError(f"{title}: option {option!r} must be {wanted}, got {value!r}.")
