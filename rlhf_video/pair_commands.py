"""`rlhf-video pairs ...`: preference pairs from and to other layouts, and everything that is wrong with them."""

import argparse
from pathlib import Path
from typing import Any

from rlhf_video.errors import ConfigError, DataError
from rlhf_video.preferences import OVERALL, PreferenceStore, audit_pairs
from rlhf_video.preferences.layouts import LAYOUTS, Layout
from rlhf_video.preferences.pack import pack
from rlhf_video.preferences.transfer import counts_text


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands to `rlhf-video pairs`; each sets `run`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "layouts:\n" + "\n".join(f"  {name:<13} {layout.summary}" for name, layout in LAYOUTS.items())
    commands = parser.add_subparsers(dest="pairs_command", required=True)
    take = commands.add_parser("import", help="read another layout")
    give = commands.add_parser("export", help="write another layout")
    readable = [name for name, layout in LAYOUTS.items() if layout.import_pairs is not None]
    take.add_argument("layout", choices=readable, metavar="LAYOUT", help=", ".join(readable))
    take.add_argument("source", type=Path, metavar="SRC", help="file or folder in that layout")
    take.add_argument("target", type=Path, metavar="DST", help="new .jsonl or .parquet file of pairs")
    give.add_argument("layout", choices=list(LAYOUTS), metavar="LAYOUT", help=", ".join(LAYOUTS))
    give.add_argument("source", type=Path, metavar="SRC", help=".jsonl or .parquet file of pairs")
    give.add_argument("target", type=Path, metavar="DST", help="file or folder in that layout")
    for command in (take, give):
        command.add_argument("--question", metavar="Q", help=f"for layouts with one answer; default: {OVERALL}")
        command.add_argument("--copy-clips", action="store_true", help="copy the clips to `clips` beside DST")
    take.set_defaults(run=import_pairs)
    give.set_defaults(run=export_pairs)
    check = commands.add_parser("check", help="list everything that is wrong; 1 where there are errors")
    check.add_argument("file", type=Path, metavar="FILE", help=".jsonl or .parquet file of pairs")
    check.add_argument("--question", action="append", metavar="Q", help=f"to be trained on; default: {OVERALL}")
    check.add_argument("--any-size", action="store_true", help="clips of a pair may differ in size, as for judges")
    check.add_argument("--no-decode", action="store_true", help="believe records and file headers")
    check.add_argument("--no-hashes", action="store_true", help="do not compare contents with recorded hashes")
    check.add_argument("--limit", type=int, default=5, metavar="N", help="cases to list of each defect; default: 5")
    check.set_defaults(run=check_pairs)
    packing = commands.add_parser("pack", help="copy a folder of pairs without the clips that no pair names")
    packing.add_argument("source", type=Path, metavar="SRC", help="folder that build_pairs.py wrote")
    packing.add_argument("target", type=Path, metavar="DST", help="new folder")
    packing.set_defaults(run=pack_pairs)


def import_pairs(arguments: argparse.Namespace) -> int:
    """Read another layout into a new file of pairs."""
    layout, store = LAYOUTS[arguments.layout], PreferenceStore(arguments.target)
    if store.path.exists():
        raise DataError(f"'{store.path}' exists: an import makes a new file, name another one.")
    assert layout.import_pairs is not None  # the parser offers no other
    options = {**_question(layout, arguments), "copy_clips": arguments.copy_clips}
    imported = layout.import_pairs(arguments.source, store, **options)
    store.append(imported.pairs)
    print(f"pairs            {len(imported.pairs)} in {store.path}")
    _print_counts("left out", imported.dropped)
    _print_counts("columns lost", imported.lost)
    print(f"next             rlhf-video pairs check {store.path}")
    return 0


def export_pairs(arguments: argparse.Namespace) -> int:
    """Write a file of pairs in another layout."""
    layout, store = LAYOUTS[arguments.layout], PreferenceStore(arguments.source)
    if arguments.target.resolve() == store.path.resolve():
        raise DataError(f"'{arguments.target}' is the file of pairs itself: name another target.")
    options = {**_question(layout, arguments), "copy_clips": arguments.copy_clips or layout.must_copy}
    exported = layout.export_pairs(store.read(), store, arguments.target, **options)
    print(f"rows             {exported.num_rows} in {arguments.target}")
    _print_counts("pairs left out", exported.dropped)
    _print_counts("facts lost", exported.lost)
    return 0


def check_pairs(arguments: argparse.Namespace) -> int:
    """Print every defect of a file of pairs; 1 where one is an error."""
    store = PreferenceStore(arguments.file)
    audit = audit_pairs(
        store.read(),
        store,
        questions=arguments.question or (OVERALL,),
        decode=not arguments.no_decode,
        hashes=not arguments.no_hashes,
        same_size=not arguments.any_size,
    )
    print(audit.message(arguments.limit))
    return 1 if audit.errors else 0


def pack_pairs(arguments: argparse.Namespace) -> int:
    """Copy a folder of pairs without the clips that no pair names."""
    packed = pack(arguments.source, arguments.target)
    print(f"pairs            {packed.num_pairs} in {arguments.target}")
    print(f"clips            {packed.num_clips}, {packed.num_bytes / 1e6:.1f} MB in all")
    return 0


def _question(layout: Layout, arguments: argparse.Namespace) -> dict[str, Any]:
    if layout.asks_one_question:
        return {"question": arguments.question or OVERALL}
    if arguments.question is not None:
        raise ConfigError(f"--question does not fit {arguments.layout}, which holds several questions: leave it out.")
    return {}


def _print_counts(name: str, counts: Any) -> None:
    if counts:
        print(f"{name:<16} {counts_text(counts)}")
