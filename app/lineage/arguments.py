"""Arguments of the commands around training; apart from what they do, so that --help loads no model code."""

import argparse
from collections.abc import Mapping
from pathlib import Path

HELP = {
    "export": "write the votes of a study as training data: export STUDY",
    "register": "let an adapter that was trained on an export compete: register STUDY NAME RUN CLIPS",
    "scores": "take in what a reward says of a study's clips: scores STUDY FILE",
    "lineage": "print who was trained from whom, and whether people and rewards saw it: lineage STUDY",
}


def add_arguments(parsers: Mapping[str, argparse.ArgumentParser]) -> None:
    """Give the commands of HELP their arguments."""
    for name in HELP:
        parsers[name].add_argument("study", help="short name")
    parsers["export"].add_argument("--rule", type=Path, metavar="FILE", help="YAML of an ExportConfig")
    parsers["export"].add_argument(
        "--with",
        dest="changes",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a field of it: votes.ties=soft",
    )
    parsers["export"].add_argument(
        "--evaluation",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="prompts that may not be trained on",
    )
    parsers["register"].add_argument("name", help="of the new system")
    parsers["register"].add_argument("run", type=Path, help="run directory of train_dpo.py")
    parsers["register"].add_argument("clips", type=Path, help="folder that generate.py made with its adapter")
    parsers["register"].add_argument("--parent", metavar="SYSTEM", help="what it started from; default: found by hash")
    parsers["register"].add_argument("--skip-bad", action="store_true", help="leave out clips that cannot be used")
    parsers["scores"].add_argument(
        "file", type=Path, help=".json of `rlhf-video rewards score`, or .jsonl of a judged reward"
    )
    parsers["scores"].add_argument("--clips", type=Path, metavar="FOLDER", help="the folder that a .json scored")
    parsers["lineage"].add_argument("--question", default="overall", help="which answer counts (overall)")
