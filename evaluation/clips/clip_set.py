"""The clips of a system, checked against the suite before anything is scored."""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.base import ClipEntry, LeftOutClip
from evaluation.clips.clip_files import Declared, check_clip_file
from evaluation.clips.clip_listing import FoundClip, Listing, list_clips
from evaluation.clips.clip_problems import ClipProblem, describe_problems
from evaluation.prompt_suites import Suite, SuitePrompt
from rlhf_video.data import ClipSize, sha256_file
from rlhf_video.data.clip_facts import ClipFacts
from rlhf_video.errors import DataError

logger = logging.getLogger(__name__)
_SHOWN = 3


@dataclass(frozen=True)
class ClipSet:
    """What a folder holds of a suite."""

    entries: tuple[ClipEntry, ...]
    """Good clips, in the order of the suite."""
    left_out: tuple[LeftOutClip, ...]
    """Every other clip that the suite asks for."""
    problems: tuple[ClipProblem, ...]
    """Everything that is missing or wrong."""
    notes: tuple[str, ...]
    """What is odd and no error: clips that nobody asked for, several sizes or frame rates, equal clips."""


@dataclass(frozen=True)
class _Checked:
    clip: FoundClip
    sha256: str
    facts: ClipFacts | None
    problems: tuple[ClipProblem, ...]


def read_clip_set(
    folder: Path, suite: Suite, *, size: ClipSize | None = None, fps: float | None = None, partial: bool = False
) -> ClipSet:
    """Return the clips of a folder in the order of the suite, once all of them are known to be good.

    Args:
        folder: Of generate.py (manifest.json), or with files named as VBench names them, `{prompt}-{number}.mp4`.
        suite: What is asked.
        size: What every clip must be like; None takes what manifest.json declares, if anything.
        fps: Frames per second, likewise.
        partial: Return the good clips and what is left out, instead of refusing.

    Raises:
        DataError: There is nothing to read, or clips are missing or wrong (unless partial); all problems in one text.
    """
    found = check_clip_set(folder, suite, size=size, fps=fps)
    for note in found.notes:
        logger.warning("%s: %s", folder, note)
    if found.problems:
        text = describe_problems(found.problems)
        if not partial:
            raise DataError(
                f"The clips in '{folder}' do not fit '{suite.name}': {text}. Put this right, or add --partial to score "
                f"the {len(found.entries)} good ones: every number then says what it lacks."
            )
        logger.warning("%s: left out of '%s': %s", folder, suite.name, text)
    return found


def check_clip_set(folder: Path, suite: Suite, *, size: ClipSize | None = None, fps: float | None = None) -> ClipSet:
    """Find the clips of a suite and check every one; arguments as of `read_clip_set`.

    Files are hashed and their packets listed (`clip_files`); no picture is decoded.

    Raises:
        DataError: There is no folder, nothing in it, or a damaged manifest.
    """
    listing = list_clips(folder, suite)
    declared = Declared(size or listing.declared.size, fps or listing.declared.fps)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing and FFmpeg leave Python's lock
        checked = list(pool.map(lambda clip: _check(clip, declared), listing.clips))
    copies, alike = _same_content(checked)
    problems = [*listing.problems, *(problem for item in checked for problem in item.problems), *copies]
    by_file = {problem.clip: problem for problem in reversed(problems)}
    entries = [_entry(item) for item in checked if item.clip.file.name not in by_file]
    left_out = [_left_out(asked, number, problem) for asked, number, problem in listing.lost]
    left_out += [
        _left_out(clip.asked, clip.sample, by_file[clip.file.name])
        for clip in listing.clips
        if clip.file.name in by_file
    ]
    return ClipSet(tuple(entries), tuple(left_out), tuple(problems), (*_notes(listing, checked), *alike))


def _check(clip: FoundClip, declared: Declared) -> _Checked:
    try:
        sha256 = sha256_file(clip.file)
        if clip.sha256 is not None and sha256 != clip.sha256:
            changed = ClipProblem("changed", clip.file.name, f"{sha256[:12]}, recorded {clip.sha256[:12]}")
            return _Checked(clip, sha256, None, (changed,))
        return _Checked(clip, sha256, *check_clip_file(clip.file, declared))
    except OSError as error:
        return _Checked(clip, "", None, (ClipProblem("unreadable", clip.file.name, str(error.strerror)),))


def _same_content(checked: Sequence[_Checked]) -> tuple[list[ClipProblem], list[str]]:
    """Return copies among clips that nobody recorded, and notes on equal clips that a manifest vouches for.

    A model that makes the same clip again from other noise has collapsed, which scores should show; without a manifest
    a file was more likely copied under a wrong name.
    """
    groups: dict[str, list[FoundClip]] = {}
    for item in checked:
        if not item.problems:
            groups.setdefault(item.sha256, []).append(item.clip)
    problems, notes = [], []
    for clips in groups.values():
        names = [clip.file.name for clip in clips]
        if len(clips) > 1 and all(clip.sha256 is not None for clip in clips):
            notes.append(f"{len(names)} clips are equal to the byte ({', '.join(names[:_SHOWN])}): has it collapsed?")
        elif len(clips) > 1:
            problems += [ClipProblem("copy", name, f"of '{names[0]}'") for name in names[1:]]
            problems.append(ClipProblem("copy", names[0], f"of '{names[1]}'"))
    return problems, notes


def _notes(listing: Listing, checked: Sequence[_Checked]) -> list[str]:
    notes = []
    if listing.extra:
        named = ", ".join(repr(name) for name in listing.extra[:_SHOWN])
        notes.append(f"{len(listing.extra)} clips are not asked for and not scored, for example {named}")
    good = [item.facts for item in checked if item.facts is not None and not item.problems]
    sizes = Counter(str(ClipSize(facts.num_frames, facts.height, facts.width)) for facts in good)
    if len(sizes) > 1:
        named = ", ".join(f"{count} of {size}" for size, count in sizes.most_common(_SHOWN))
        notes.append(f"clips of {len(sizes)} sizes ({named}): scores depend on it, declare 'video' to refuse others")
    rates = Counter(f"{facts.fps:.4g}" for facts in good)
    if len(rates) > 1:
        named = ", ".join(f"{count} at {rate}" for rate, count in rates.most_common(_SHOWN))
        notes.append(
            f"clips of {len(rates)} frame rates ({named} a second): scores depend on it, declare 'video.fps' to refuse "
            "others"
        )
    return notes


def _left_out(asked: SuitePrompt, number: int, problem: ClipProblem) -> LeftOutClip:
    return LeftOutClip(
        clip=problem.clip, prompt=asked.prompt, sample=number, dimensions=asked.dimensions, reason=problem.reason
    )


def _entry(item: _Checked) -> ClipEntry:
    clip = item.clip
    measured: dict[str, Any] = {} if item.facts is None else vars(item.facts)  # fields of one name
    return ClipEntry(
        file=clip.file,
        sha256=item.sha256,
        prompt=clip.asked.prompt,
        sample=clip.sample,
        seed=clip.seed,
        wording=clip.asked.wording,
        dimensions=clip.asked.dimensions,
        facts=clip.asked.facts,
        seconds=None if item.facts is None else item.facts.num_frames / item.facts.fps,
        **measured,
    )
