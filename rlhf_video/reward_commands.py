"""`rlhf-video rewards ...`: what there is, what is installed, and scores of a folder of clips."""

import argparse
import json
import logging
from collections.abc import Callable
from pathlib import Path

from rewards.workers.environments import Environment
from rewards.workers.lock import Build
from rlhf_video.report.markdown import markdown_table

Command = Callable[[argparse.Namespace], int]


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands to `rlhf-video rewards`; each sets `run`. Without one the rewards are listed."""
    parser.set_defaults(run=list_rewards)
    commands = parser.add_subparsers(dest="rewards_command")
    commands.add_parser("list", help="every reward that a config may name").set_defaults(run=list_rewards)
    doctor = commands.add_parser("doctor", help="environments of the original packages, and weights found")
    doctor.set_defaults(run=show_health)
    env = commands.add_parser("env", help="environments of the original packages")
    create = env.add_subparsers(dest="env_command", required=True).add_parser("create", help="make one")
    create.add_argument("name", help="for example hpsv2; `rlhf-video rewards doctor` shows all")
    create.add_argument("--wheels", "--offline", type=Path, metavar="DIR", help="take every package from this folder")
    create.add_argument("--force", action="store_true", help="make it anew")
    create.add_argument(
        "--with",
        dest="builds",
        action="append",
        default=[],
        metavar="NAME[=SOURCE]",
        help="build this package from source into it, for example detectron2 for vbench (minutes, needs a C++ "
        "compiler); SOURCE: a checkout or an address for pip, default: the commit in the worker's lock",
    )
    create.add_argument("--installer", choices=("uv", "pip"), help="default: uv where it is on PATH, else pip")
    create.set_defaults(run=create_environment)
    score = commands.add_parser("score", help="score a folder of clips")
    score.add_argument("--reward", required=True, metavar="R", help="short name or package.module:Class")
    score.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="of the reward, as in YAML")
    score.add_argument("--videos", type=Path, required=True, metavar="DIR", help="folder of clips")
    score.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="JSON object {file: prompt}, or .txt/.jsonl with one prompt per clip in the order of the file names; "
        "default: the folder's manifest.json by generate.py, else the file names",
    )
    score.add_argument("--json", type=Path, metavar="OUT", help="write the scores to this file too")
    score.set_defaults(run=score_folder)


def reward_table() -> str:
    """Return every reward's facts as a Markdown table; no weights are loaded."""
    from rewards.catalogue import CATALOGUE

    rows = [
        (name, entry.tier, "yes" if entry.is_differentiable else "no", entry.frames, entry.licence, entry.parity)
        for name, entry in sorted(CATALOGUE.items())
    ]
    return markdown_table(("name", "tier", "differentiable", "frames", "licence", "parity"), rows)


def list_rewards(_arguments: argparse.Namespace) -> int:
    """Print every reward's facts."""
    print(reward_table())
    print("Tier A runs in this process, C in an environment of its own, D behind HTTP.")
    print('Your own: "package.module:Class" of anything that can be imported.')
    return 0


def show_health(_arguments: argparse.Namespace) -> int:
    """Print each worker's environment and each published weight file; 1 where an environment that is made is broken."""
    from rewards.workers.environments import find
    from rewards.workers.health import check_health
    from rewards.workers.lock import known_workers, load_lock

    healthy = True
    for name in known_workers():
        lock = load_lock(name)
        environment = find(lock)
        print(f"\n{name}: {lock.summary}")
        if environment is None:
            print(f"  - not made: rlhf-video rewards env create {name}")
            continue
        problem = check_health(lock, environment.python)
        healthy &= problem is None or bool(lock.needs)
        print(f"  + {environment.path}, Python {environment.python_version}, {len(environment.packages)} packages")
        chief = [f"{package} {version}" for package, version in sorted(lock.pins.items()) if package in SHOWN]
        print(f"    {', '.join(chief)}")
        for build in lock.builds:
            print(f"  {_build_line(name, build, environment)}")
        if name == "vbench":
            print("\n".join(_vbench_dimensions(environment)))
        print("  + health check passes" if problem is None else f"  - {problem}")
        if problem is not None and lock.needs:
            print(f"    It needs {lock.needs}.")
    print("\nWeights\n" + "\n".join(_weights()))
    return 0 if healthy else 1


SHOWN = (
    *("torch", "torchvision", "transformers", "numpy", "timm", "trl", "peft"),
    *("hpsv2", "hpsv3", "image-reward", "vbench", "pyiqa"),
)
"""Packages that decide whether an original works."""


def _build_line(worker: str, build: Build, environment: Environment) -> str:
    if environment.has(build.name):
        return f"+ {build.name}, built from source, for {build.purpose}"
    return f"- {build.name} is not built ({build.purpose}): rlhf-video rewards env create {worker} --with {build.name}"


def _vbench_dimensions(environment: Environment) -> list[str]:
    """Say of every dimension whether its weights are here, and what the others lack."""
    from rewards.workers.vbench_cache import FILES, missing, vbench_cache

    cache = vbench_cache()
    lacks = {dimension: missing(dimension, cache, environment) for dimension in FILES}
    ready = ", ".join(dimension for dimension, lacking in lacks.items() if not lacking)
    absent = dict.fromkeys(one for lacking in lacks.values() for one in lacking)
    users = {one: ", ".join(dimension for dimension, lacking in lacks.items() if one in lacking) for one in absent}
    waiting = [f"  - for {dimensions}: {one}" for one, dimensions in users.items()]
    return [f"  + can run with the weights in {cache}: {ready}", *waiting]


def _weights() -> list[str]:
    """Say of every published weight file whether the Hub's cache has it."""
    from huggingface_hub import try_to_load_from_cache

    from rewards.ledger import LEDGER

    lines = []
    for name, entry in sorted(LEDGER.items()):
        found = None if entry.repository is None else try_to_load_from_cache(entry.repository, entry.file)
        if isinstance(found, str):
            lines.append(f"  + {name:<20} {found} ({Path(found).stat().st_size / 2**30:.2f} GiB)")
        else:
            where = f"{entry.repository}/{entry.file}" if entry.repository else entry.url
            lines.append(f"  - {name:<20} not in the cache: {where} ({entry.licence})")
    return lines


def create_environment(arguments: argparse.Namespace) -> int:
    """Make a worker's environment and check it."""
    from rewards.workers.environments import build_from_source, create, find
    from rewards.workers.health import check_health
    from rewards.workers.lock import load_lock

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S")
    lock = load_lock(arguments.name)
    for wanted in arguments.builds:
        lock.build(wanted.partition("=")[0])  # a wrong name is said before minutes of work
    existed = not arguments.force and find(lock) is not None
    environment = create(lock, wheels=arguments.wheels, force=arguments.force, installer=arguments.installer)
    print(f"environment      {environment.path}{' (was there)' if existed else ''}")
    print(f"python           {environment.python} {environment.python_version}, {len(environment.packages)} packages")
    problem = check_health(lock, environment.python)
    print(f"health           {'passes' if problem is None else problem}")
    for wanted in arguments.builds:
        name, _, source = wanted.partition("=")
        build_from_source(lock, name, source=source or None)
        print(f"built            {lock.build(name).name}, for {lock.build(name).purpose}")
    if problem is not None and lock.needs:
        print(f"needs            {lock.needs}")
    return 0 if problem is None or lock.needs else 1


def score_folder(arguments: argparse.Namespace) -> int:
    """Score every clip of a folder and print a table; 1 where a clip could not be scored."""
    from rewards.registry import build
    from rlhf_video.data.files import write_atomic
    from rlhf_video.reward_scores import find_clips, parse_options, score_clips, statistics_of

    options = parse_options(arguments.option)
    clips = find_clips(arguments.videos, arguments.prompts)
    reward = build(arguments.reward, **options)
    scored = score_clips(reward, clips)
    dimensions = reward.spec.dimensions
    rows = [
        (clip.file, *(f"{clip.values[name]:.4f}" if clip.values else "-" for name in dimensions), clip.reason or "")
        for clip in scored
    ]
    statistics = statistics_of(scored, dimensions)
    count = sum(clip.values is not None for clip in scored)
    for key, note in (("mean", f"{count} of {len(scored)}"), ("std", "")):
        numbers = [statistics[name][key] for name in dimensions]
        rows.append((key, *("-" if number is None else f"{number:.4f}" for number in numbers), note))
    print(markdown_table(("clip", *dimensions, "why not"), rows, align="l" + "r" * len(dimensions) + "l"))
    if arguments.json is not None:
        record = {
            "reward": arguments.reward,
            "options": options,
            "version": reward.spec.version,
            "licence": reward.spec.licence,
            "higher_is_better": reward.spec.higher_is_better,
            "statistics": statistics,
            "scored": count,
            "clips": [clip.record() for clip in scored],
        }
        content = json.dumps(record, indent=1, ensure_ascii=False, default=str, allow_nan=False) + "\n"
        write_atomic(arguments.json, content.encode())
    return 0 if count == len(scored) else 1
