"""The command line of `app/arena.py`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from app.arena_config import ArenaConfig
from app.lineage import arguments as lineage_arguments
from rlhf_video.settings import load_config
from rlhf_video.settings.arguments import StrictParser, describe_fields

DEMO_DATA = Path("runs/arena-demo")
DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "arena" / "local.yaml"
COMMANDS = {
    "init": "make or migrate the database; with --password, print the hash of an admin's password",
    "import": "take in the clips of a system: import STUDY SYSTEM FOLDER",
    "serve": "run the server",
    **lineage_arguments.HELP,
    "snapshot": "keep a leaderboard that can be computed again: snapshot STUDY",
    "verify": "check database, audit log, votes, snapshots and every clip's hash",
    "loadtest": "simulated raters against a running server; their votes never count: loadtest URL --study STUDY",
}


def parse_request(
    arguments: Sequence[str] | None = None, *, description: str | None = None
) -> tuple[argparse.Namespace, ArenaConfig]:
    """Read the command line.

    Args:
        arguments: Without the program's name; None reads `sys.argv`.
        description: First paragraph of `--help`.

    Returns:
        What the command itself was given (`command` is "demo" where none was), and the arena's config.

    Raises:
        ConfigError: An argument is unknown or malformed, or the config does not hold.
    """
    request = _parser(description).parse_args(arguments)
    request.command = request.command or "demo"
    given = vars(request)
    overrides = [f"{name}={given[name]}" for name in ("data", "database_url") if given.get(name) is not None]
    if request.command == "demo" and "data" not in given and "config" not in given:
        overrides.append(f"data={DEMO_DATA}")
    return request, load_config(ArenaConfig, given.get("config", DEFAULT_CONFIG), [*overrides, *given.get("set", [])])


def _parser(description: str | None) -> argparse.ArgumentParser:
    # Options stand before or after the command; SUPPRESS keeps the second place from undoing the first.
    common = StrictParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--config", type=Path, metavar="FILE", help=f"YAML file (default: {DEFAULT_CONFIG})")
    common.add_argument("--data", metavar="FOLDER", help="folder of the arena (default: runs/arena)")
    common.add_argument("--database-url", metavar="URL", help="postgresql+psycopg://...; default: a file in --data")
    common.add_argument("--set", action="append", metavar="KEY=VALUE", help="a field of the config")
    parser = StrictParser(
        description=description,
        parents=[common],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"Without a command: a demo on this machine.\n\n{describe_fields(ArenaConfig)}",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    add = {
        name: commands.add_parser(name, parents=[common], help=text, description=text)
        for name, text in COMMANDS.items()
    }
    add["init"].add_argument("--password", action="store_true", help="ask for an admin's password, print its hash")
    add["import"].add_argument("study", help="short name; it is made where there is none")
    add["import"].add_argument("system", help="name of the model or adapter; raters never see it before they vote")
    add["import"].add_argument("folder", type=Path, help="folder of generate.py, with manifest.json")
    add["import"].add_argument("--parent", metavar="SYSTEM", help="the system that it was trained from")
    add["import"].add_argument("--gold", type=int, default=12, metavar="N", help="pairs with known answers (12)")
    add["import"].add_argument("--policy", type=Path, metavar="FILE", help="YAML of a new study's StudyPolicy")
    add["import"].add_argument("--skip-bad", action="store_true", help="leave out clips that cannot be used")
    lineage_arguments.add_arguments(add)
    add["snapshot"].add_argument("study", help="short name")
    add["snapshot"].add_argument(
        "--with",
        dest="changes",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of BoardSettings: tag=still",
    )
    _add_loadtest(add["loadtest"])
    return parser


def _add_loadtest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", help="of the server, for example http://127.0.0.1:7860; --data is the folder it serves")
    parser.add_argument("--study", required=True, help="an open study; test raters take nobody's place in it")
    parser.add_argument("--raters", type=int, default=100, metavar="N", help="how many at once (100)")
    parser.add_argument("--think", type=float, default=10.0, metavar="S", help="mean thinking time in seconds (10)")
    parser.add_argument("--duration", type=float, default=120.0, metavar="S", help="how long, in seconds (120)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the result there")
