"""Which files of a folder are which clips of a suite: by generate.py's manifest.json, or by VBench's file names."""

import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.clips.clip_files import Declared
from evaluation.clips.clip_problems import ClipProblem
from evaluation.prompt_suites import Suite, SuitePrompt, same_but_for_case
from rlhf_video.data import ClipSize
from rlhf_video.data.files import MANIFEST
from rlhf_video.errors import DataError

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".gif")
Wanted = Mapping[tuple[str, int], SuitePrompt]
"""(prompt, number) -> prompt; VBench names that clip "prompt-number"."""
_NUMBER = re.compile(r"-(\d+)$")


@dataclass(frozen=True)
class FoundClip:
    """A file that the suite asks for."""

    file: Path
    asked: SuitePrompt
    sample: int
    seed: int | None = None
    sha256: str | None = None
    """As recorded; None where nobody did."""


@dataclass
class Listing:
    """What a folder holds."""

    clips: list[FoundClip] = field(default_factory=list)
    lost: list[tuple[SuitePrompt, int, ClipProblem]] = field(default_factory=list)
    """Prompt and number of each clip without a file of its own, and why."""
    problems: list[ClipProblem] = field(default_factory=list)
    """Of names and manifest, those of `lost` among them."""
    extra: list[str] = field(default_factory=list)
    """Names of clips that the suite does not ask for; they are not scored, which is no error."""
    declared: Declared = field(default_factory=Declared)
    """What the manifest says of every clip."""


def list_clips(folder: Path, suite: Suite) -> Listing:
    """Find the clips of a suite in a folder.

    Args:
        folder: With manifest.json, or with files `{prompt}-{number}.mp4`, numbers from 0.
        suite: What is asked.

    Raises:
        DataError: There is no folder, no clip in it, or the manifest is damaged.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder '{folder}': generate its clips first, or correct the path.")
    wanted = {(asked.prompt, number): asked for asked in suite.prompts for number in range(asked.num_samples)}
    names = sorted(
        entry.name
        for entry in os.scandir(folder)
        if Path(entry.name).suffix.lower() in VIDEO_SUFFIXES and not entry.name.startswith(".") and entry.is_file()
    )
    has_manifest = (folder / MANIFEST).is_file()
    if not names and not has_manifest:
        raise DataError(f"'{folder}' has no {MANIFEST} and no video: generate its clips first, or correct the path.")
    listing = _by_manifest(folder, wanted, names) if has_manifest else _by_name(folder, wanted, names)
    listing.problems += [problem for _, _, problem in listing.lost]
    return listing


def _by_manifest(folder: Path, wanted: Wanted, names: Sequence[str]) -> Listing:
    content = read_manifest(folder / MANIFEST)
    records = content["clips"]
    recorded = [record["file"] for record in records]
    made = content.get("clips_per_prompt", 0)
    listing = Listing(declared=_declared(content))
    listing.problems += [ClipProblem("twice", name, MANIFEST) for name, n in Counter(recorded).items() if n > 1]
    listing.problems += _twins(set(recorded))
    by_text: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_text.setdefault(record["prompt"], []).append(record)
    prompts = {asked.prompt: asked for asked in wanted.values()}
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for asked in prompts.values():
        of_prompt = by_text.pop(asked.text, [])
        found |= {(asked.prompt, number): record for number, record in _numbered(of_prompt, made)}
    for (prompt, number), asked in wanted.items():
        record = found.pop((prompt, number), None)
        if record is None or not (folder / record["file"]).is_file():
            missing = ClipProblem("missing", f"{prompt}-{number}", record["file"] if record else "")
            listing.lost.append((asked, number, missing))
        else:
            file = folder / record["file"]
            listing.clips.append(FoundClip(file, asked, number, record["seed"], record["sha256"]))
    listing.extra += sorted({*names} - {*recorded})
    listing.extra += [record["file"] for record in found.values()]
    listing.extra += [record["file"] for of_prompt in by_text.values() for record in of_prompt]
    return listing


def _by_name(folder: Path, wanted: Wanted, names: Sequence[str]) -> Listing:
    listing = Listing()
    stems: dict[str, list[str]] = {}
    for name in names:
        stems.setdefault(_composed(Path(name).stem), []).append(name)
    expected = {_composed(f"{prompt}-{number}"): key for key in wanted for prompt, number in [key]}
    others = {stem: of_stem for stem, of_stem in stems.items() if stem not in expected}
    near: dict[str, list[str]] = {}
    for stem, of_stem in others.items():
        near.setdefault(same_but_for_case(stem), []).extend(of_stem)
    for stem, (prompt, number) in expected.items():
        asked = wanted[prompt, number]
        of_stem = stems.get(stem, [])
        alike = near.pop(same_but_for_case(stem), [])
        if len(of_stem) > 1:
            listing.lost.append((asked, number, ClipProblem("twice", of_stem[0], f"also {', '.join(of_stem[1:])}")))
        elif of_stem:
            listing.clips.append(FoundClip(folder / of_stem[0], asked, number))
        else:
            detail = f"there is '{alike[0]}', which differs in case or white space" if alike else ""
            listing.lost.append((asked, number, ClipProblem("missing", f"{prompt}-{number}", detail)))
        if of_stem and alike:
            listing.problems.append(ClipProblem("case", of_stem[0], f"and '{alike[0]}'"))
    listing.extra += [name for of_stem in near.values() for name in of_stem]
    return listing


def _twins(names: Collection[str]) -> list[ClipProblem]:
    """Return names that are one file where the file system ignores case."""
    first: dict[str, str] = {}
    twins = [(first.setdefault(name.casefold(), name), name) for name in sorted(names)]
    return [ClipProblem("case", name, f"and '{other}'") for other, name in twins if other != name]


def _composed(name: str) -> str:
    """Return a name with its accents composed: macOS writes "c" and a cedilla where VBench's file has one letter."""
    return unicodedata.normalize("NFC", name)


def _numbered(records: Sequence[dict[str, Any]], made: int) -> list[tuple[int, dict[str, Any]]]:
    """Return a prompt's clips by number: that at the end of generate.py's file names, else the place in the manifest.

    Args:
        records: Clips of one prompt, some of which may be lacking.
        made: How many clips of a prompt generate.py was to make; 0 where the manifest does not say.
    """
    ends = [_NUMBER.search(Path(record["file"]).stem) for record in records]
    numbers = [int(end[1]) for end in ends if end and int(end[1]) < made]
    if len(set(numbers)) < len(records):
        numbers = list(range(len(records)))
    return list(zip(numbers, records, strict=True))


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest.json of generate.py.

    Raises:
        DataError: It is damaged: a clip lacks its file, prompt, seed or hash.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for record in content["clips"]:
            named = [record[key] for key in ("file", "prompt", "sha256")]
            if not all(isinstance(value, str) for value in named) or not isinstance(record["seed"], int):
                raise TypeError(f"clip {record}")
        if not isinstance(content.get("clips_per_prompt", 0), int):
            raise TypeError("clips_per_prompt is no number")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"'{path}' is damaged ({type(error).__name__}: {error}): each clip needs file, prompt, seed and sha256. "
            "Generate the clips again, or delete it where the files have VBench's names."
        ) from error
    return dict(content)


def _declared(content: Mapping[str, Any]) -> Declared:
    """Return what a manifest says of all its clips; generate.py writes it, others may leave it out."""
    video = content.get("video")
    if not isinstance(video, dict):
        return Declared()
    numbers = [video.get(key) for key in ("num_frames", "height", "width")]
    known = [number for number in numbers if isinstance(number, int)]
    fps = video.get("fps")
    return Declared(ClipSize(*known) if len(known) == 3 else None, float(fps) if isinstance(fps, int | float) else None)
