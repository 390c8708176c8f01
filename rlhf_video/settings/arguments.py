"""The command line of every entry script: `script [--config FILE] [--dry-run] [--resume] key=value ...`."""

import argparse
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rlhf_video.errors import ConfigError
from rlhf_video.settings.building import to_plain
from rlhf_video.settings.loading import load_config
from rlhf_video.settings.schema import REQUIRED, FieldSpec, type_name, walk_fields

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What the command line says beside the config."""

    dry_run: bool
    """Build on the meta device, print shapes, trainable parameters and the memory plan, and end."""
    resume: bool
    """Go on from the last checkpoint of the config's run directory."""
    config_path: Path
    """Config file that was read."""
    shortcuts: frozenset[str] = frozenset()
    """The script's own flags that were given."""


@dataclass(frozen=True, kw_only=True)
class Shortcut:
    """A flag of one script that stands for a field of its config."""

    flag: str
    """For example "--steps"."""
    help: str
    """For `--help`."""
    sets: str | None = None
    """Override in its place; {} in it is the flag's value. None only notes that the flag was given."""
    default_config: Path | None = None
    """Config file instead of the script's own, unless `--config` names one."""

    @property
    def takes_value(self) -> bool:
        """Whether the flag has a value."""
        return self.sets is not None and "{}" in self.sets


class StrictParser(argparse.ArgumentParser):
    """argparse whose errors are ConfigErrors, so that they end like every other mistake."""

    unrecognized_hint = ""
    """What to say of an argument that nobody knows, with a space in front."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raise argparse's complaint as a ConfigError."""
        hint = self.unrecognized_hint if "unrecognized" in message else ""
        raise ConfigError(f"{message[:1].upper()}{message[1:]}.{hint} See --help.")


def parse_arguments(
    schema: type[T],
    *,
    default_config: Path,
    description: str,
    arguments: Sequence[str] | None = None,
    shortcuts: Sequence[Shortcut] = (),
) -> tuple[T, Flags]:
    """Read the command line of an entry script.

    Args:
        schema: Config dataclass of the script.
        default_config: YAML file used without `--config`.
        description: First paragraph of `--help`.
        arguments: Command line without the program's name; None reads `sys.argv`.
        shortcuts: The script's own flags.

    Returns:
        The config and the flags. A field that is given as key=value too has that value, not the shortcut's.

    Raises:
        ConfigError: An argument is unknown or the config does not hold.
        SystemExit: `--help` was asked for.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = StrictParser(
        description=description,
        usage=f"%(prog)s [--config FILE] [--dry-run] [--resume] {_usage(shortcuts)}[--help] [key=value ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.unrecognized_hint = " Fields of the config are given as key=value, without dashes."
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"YAML file (default: {default_config})")
    parser.add_argument("--dry-run", action="store_true", help="print shapes, parameters, a memory plan; train nothing")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the run directory")
    for shortcut in shortcuts:
        if shortcut.takes_value:
            parser.add_argument(shortcut.flag, help=shortcut.help, metavar="N")
        else:
            parser.add_argument(shortcut.flag, help=shortcut.help, action="store_true")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="change one field, for example seed=1")
    if "--help" in arguments or "-h" in arguments:  # the field list is built only when it is shown
        parser.epilog = describe_fields(schema)
    known = parser.parse_intermixed_args(list(arguments))
    given = {item: getattr(known, item.flag.removeprefix("--").replace("-", "_")) for item in shortcuts}
    given = {item: value for item, value in given.items() if value not in (None, False)}
    default_config = next((item.default_config for item in given if item.default_config), default_config)
    flags = Flags(
        dry_run=known.dry_run,
        resume=known.resume,
        config_path=known.config or default_config,
        shortcuts=frozenset(item.flag for item in given),
    )
    meant = [item.sets.format(value) for item, value in given.items() if item.sets is not None]
    return load_config(schema, flags.config_path, [*meant, *known.overrides]), flags


def _usage(shortcuts: Sequence[Shortcut]) -> str:
    return "".join(f"[{item.flag}{' N' * item.takes_value}] " for item in shortcuts)


def describe_fields(schema: type) -> str:
    """Return the help text that lists every field with its type, default and docstring."""
    width = max(60, min(120, shutil.get_terminal_size((100, 24)).columns))
    lines = ["fields (set them in the YAML file, or as key=value):"]
    for dotted, spec in walk_fields(schema):
        lines.append(f"  {dotted} ({type_name(spec.annotation)}, {_default_text(spec)})")
        lines.extend(textwrap.wrap(spec.doc, width, initial_indent="      ", subsequent_indent="      "))
    return "\n".join(lines)


def _default_text(spec: FieldSpec) -> str:
    if spec.default is REQUIRED:
        return "required"
    plain = to_plain(spec.default)
    if plain is None or isinstance(plain, bool):
        return f"default {str(plain).lower().replace('none', 'null')}"
    return f"default {plain!r}"
