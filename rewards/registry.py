"""Rewards by name, loaded when they are asked for.

A config names a reward of this package by its short name, and anybody's own as "package.module:Class".
"""

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from rewards.base import Reward
from rewards.catalogue import CATALOGUE
from rewards.errors import RewardError

_TARGETS: dict[str, str] = {name: entry.target for name, entry in CATALOGUE.items()}

_PLAIN = (bool, int, float, str, Path, NoneType)
"""Types whose values `build` checks."""


def available() -> tuple[str, ...]:
    """Return the short names, sorted."""
    return tuple(sorted(_TARGETS))


def register(name: str, target: str) -> None:
    """Give a reward a short name for this process.

    Args:
        name: New short name, without ":".
        target: "package.module:Class"; imported on first use.

    Raises:
        RewardError: The name is taken by another target or either text is malformed.
    """
    if ":" in name or not name:
        raise RewardError(f"A reward's short name is not empty and has no ':', got {name!r}.")
    if _TARGETS.get(name, target) != target:
        raise RewardError(f"Reward name {name!r} already stands for {_TARGETS[name]}: choose another.")
    _split(target)
    _TARGETS[name] = target


def build(name: str, /, **options: object) -> Reward:
    """Build a reward.

    Args:
        name: A short name of `available()`, or "package.module:Class" for any class or factory that can be imported.
        **options: Arguments of that class, for example model="assets/sprite-clip".

    Raises:
        RewardError: Unknown name, module or class, unknown, missing or mistyped option, or the result is not a reward.
    """
    factory = _load(name)
    _check_options(name, factory, options)
    _check_types(name, factory, options)
    reward = factory(**options)
    if not isinstance(reward, Reward):
        raise RewardError(
            f"{name!r} built a {type(reward).__name__}, which is not a reward: it needs `spec` and "
            "`__call__(video, prompts, *, fps)`, see rewards/base.py."
        )
    return reward


def _load(name: str) -> Callable[..., object]:
    if ":" not in name and name not in _TARGETS:
        raise RewardError(
            f"Unknown reward {name!r}.{_did_you_mean(name, _TARGETS)} Known: {', '.join(available())}; "
            "your own is named 'package.module:Class'."
        )
    target = _TARGETS.get(name, name)
    module_name, attribute = _split(target)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise RewardError(f"Reward {name!r} needs the package {error.name!r}, which is not installed.") from error
        raise RewardError(
            f"Reward {name!r}: there is no module {error.name!r}. Install it, or put its folder on PYTHONPATH."
        ) from error
    members = vars(module)
    if not callable(members.get(attribute)):
        classes = [key for key, value in members.items() if inspect.isclass(value)]
        raise RewardError(
            f"Reward {name!r}: {module_name} has no class {attribute!r}.{_did_you_mean(attribute, classes)}"
        )
    factory: Callable[..., object] = members[attribute]
    return factory


def _split(target: str) -> tuple[str, str]:
    module_name, _, attribute = target.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), attribute]):
        raise RewardError(f"A reward of your own is named 'package.module:Class', got {target!r}.")
    return module_name, attribute


def _check_options(name: str, factory: Callable[..., object], options: dict[str, object]) -> None:
    parameters = inspect.signature(factory).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for option in options:
        if option not in parameters and not takes_any:
            known = f"Known: {', '.join(parameters)}." if parameters else "It takes none."
            raise RewardError(f"Reward {name!r} has no option {option!r}.{_did_you_mean(option, parameters)} {known}")
    for key, parameter in parameters.items():
        needed = parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        )
        if needed and key not in options:
            raise RewardError(f"Reward {name!r} needs the option {key!r}.")


def _check_types(name: str, factory: Callable[..., object], options: dict[str, object]) -> None:
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
            raise RewardError(f"Reward {name!r}: option {option!r} must be {wanted}, got {value!r}.")


def _did_you_mean(given: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(given, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
