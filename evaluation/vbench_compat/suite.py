"""VBench's prompt suite (arXiv:2311.17982), from its own VBench_full_info.json; the file itself is not shipped here.

It has 946 entries of 944 prompts (two stand there twice, with other dimensions each, and become one), each with the
dimensions that it is for and what these look for. Two prompts differ in case alone: both stay, see
`Suite.generation_parts`. VBench's extended prompts make another suite, of another name and hash: scores of clips made
from them do not compare with scores of raw prompts.
"""

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.prompt_suites import Suite, SuitePrompt, make_suite
from evaluation.vbench_compat.official import FACT_KEYS, WORKER
from evaluation.vbench_compat.totals import VBENCH_DIMENSIONS
from rewards.workers.environments import require
from rlhf_video.errors import ConfigError, DataError

FILE = "VBench_full_info.json"
INSTALLED = Path("installed")
"""In place of a file: the one of the installed package."""
NUM_SAMPLES, NUM_FLICKERING_SAMPLES = 5, 25
"""Clips that VBench makes of a prompt, and of one for temporal_flickering. Of these 25 its `static_filter.py` keeps
five that hardly move, and so does the port (`static_filter`); without it the flickering score also measures motion."""
_KNOWN = {"5dd2de80ee43cda750b2b72ea7023657c0b90d3702041c7e4608c65dbe50dccd": "0.1.5"}
"""SHA-256 of the file -> version of the package that ships it."""


def load_vbench_suite(
    file: Path,
    *,
    clips_per_prompt: int | None = None,
    dimensions: Collection[str] = (),
    extended: Path | None = None,
) -> Suite:
    """Read VBench's suite, or a file of its form with prompts of your own.

    Args:
        file: VBench_full_info.json, or `INSTALLED` for that of the `vbench` environment.
        clips_per_prompt: Clips of every prompt; None takes VBench's own numbers, 5 and 25 for temporal_flickering.
        dimensions: Only prompts of these, asked of nothing else; empty takes all.
        extended: What models get in place of the prompts: a text file of one line per entry of `file`, in its order
            (the order of VBench's all_dimension.txt, so VBench's own augmented files fit).

    Raises:
        ConfigError: An unknown dimension is asked for.
        DataError: A file is missing or malformed, or its lines do not fit.
        RewardError: The installed file is asked for, and the environment is not made.
    """
    path = installed_file() if file == INSTALLED else file
    content = _read(path)
    try:
        records = json.loads(content)
    except ValueError as error:
        raise DataError(f"'{path}' is not JSON ({error}): give VBench's {FILE}.") from error
    if not isinstance(records, list) or not records:
        raise DataError(f"'{path}' holds no list of prompts: give VBench's {FILE}, or a file of its form.")
    entries = [_entry(record, f"Entry {number} of '{path}'") for number, record in enumerate(records)]
    version = _KNOWN.get(hashlib.sha256(content).hexdigest())
    name = "vbench" if version else path.stem
    if extended is not None:
        entries = [
            dataclasses.replace(entry, wording=line)
            for entry, line in zip(entries, _lines(extended, len(entries)), strict=True)
        ]
        name = f"{name}+{extended.stem}"
    prompts = _restricted(_merged(entries, path), dimensions)
    if dimensions:
        name = f"{name}-{len(set(dimensions))}-dimensions"
    counted = [dataclasses.replace(asked, num_samples=clips_per_prompt or _num_samples(asked)) for asked in prompts]
    return make_suite(name, version or "1", counted)


def installed_file() -> Path:
    """Return VBench's file in the worker's environment.

    Raises:
        RewardError: The environment is not made; the message has the command.
        DataError: It lacks the file.
    """
    environment = require(WORKER).path
    found = sorted(environment.glob(f"lib/python*/site-packages/vbench/{FILE}"))
    if not found:
        raise DataError(f"'{environment}' holds no {FILE}: make the environment anew, or give the file itself.")
    return found[0]


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise DataError(
            f"'{path}' does not exist: give VBench's {FILE} (it lies in its package and in its repository), or "
            f"'{INSTALLED}' for the one of the '{WORKER}' environment."
        )
    return path.read_bytes()


def _entry(record: object, where: str) -> SuitePrompt:
    """Check one entry of the file."""
    if not isinstance(record, dict):
        raise DataError(f"{where} is no object with prompt_en and dimension.")
    prompt, asked, facts = record.get("prompt_en"), record.get("dimension"), record.get("auxiliary_info", {})
    if not isinstance(prompt, str) or not prompt.strip():
        raise DataError(f"{where} has no text under prompt_en.")
    if not isinstance(asked, list) or not asked or not isinstance(facts, dict):
        raise DataError(f"{where} ('{prompt[:60]}') needs a list under dimension, and an object under auxiliary_info.")
    for dimension in asked:
        check_dimension(dimension, where)
        if dimension in FACT_KEYS and dimension not in facts:
            raise DataError(
                f"{where} ('{prompt[:60]}') asks for {dimension} and does not say what to look for: add "
                f"auxiliary_info {{{dimension}: {{{FACT_KEYS[dimension]}: ...}}}}."
            )
    return SuitePrompt(prompt.strip(), frozenset(asked), {key: facts[key] for key in asked if key in facts})


def check_dimension(dimension: object, where: str) -> None:
    """Refuse what is no dimension of VBench.

    Raises:
        DataError: With the nearest name.
    """
    if dimension not in VBENCH_DIMENSIONS:
        close = difflib.get_close_matches(str(dimension), VBENCH_DIMENSIONS, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise DataError(f"{where}: unknown dimension '{dimension}'.{hint} VBench has: {', '.join(VBENCH_DIMENSIONS)}.")


def _merged(entries: Sequence[SuitePrompt], path: Path) -> list[SuitePrompt]:
    """Join entries of one prompt."""
    merged: dict[str, SuitePrompt] = {}
    for entry in entries:
        known = merged.get(entry.prompt)
        if known is None:
            merged[entry.prompt] = entry
            continue
        if any(known.facts.get(key, value) != value for key, value in entry.facts.items()):
            raise DataError(f"'{path}' contradicts itself about '{entry.prompt[:80]}': correct its auxiliary_info.")
        merged[entry.prompt] = dataclasses.replace(
            known,
            dimensions=(known.dimensions or frozenset()) | (entry.dimensions or frozenset()),
            facts={**known.facts, **entry.facts},
        )
    return list(merged.values())


def _restricted(prompts: Sequence[SuitePrompt], dimensions: Collection[str]) -> list[SuitePrompt]:
    if not dimensions:
        return list(prompts)
    kept = []
    for dimension in dimensions:
        try:
            check_dimension(dimension, "suite.dimensions")
        except DataError as error:
            raise ConfigError(str(error)) from error
    for asked in prompts:
        if left := (asked.dimensions or frozenset()) & set(dimensions):
            facts: Mapping[str, Any] = {key: asked.facts[key] for key in sorted(left) if key in asked.facts}
            kept.append(dataclasses.replace(asked, dimensions=left, facts=facts))
    if not kept:
        raise ConfigError(f"suite.dimensions={sorted(dimensions)} leaves no prompt of this file: name others.")
    return kept


def _num_samples(asked: SuitePrompt) -> int:
    return NUM_FLICKERING_SAMPLES if "temporal_flickering" in (asked.dimensions or ()) else NUM_SAMPLES


def _lines(path: Path, count: int) -> list[str]:
    if not path.is_file():
        raise DataError(f"'{path}' does not exist: give a text file of one extended prompt a line.")
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if len(lines) != count or not all(lines):
        raise DataError(
            f"'{path}' has {len(lines)} lines ({lines.count('')} empty) for {count} entries: one extended prompt a "
            "line is needed, in the order of the entries."
        )
    return lines
