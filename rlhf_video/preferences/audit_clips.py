"""Defects of the files behind preference pairs: missing, changed, corrupt, or of two sizes."""

import os
import typing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from rlhf_video.data.clip_facts import read_clip_facts
from rlhf_video.errors import DataError
from rlhf_video.preferences.finding import Finding, pair_name
from rlhf_video.preferences.pair import ClipRecord, PreferencePair
from rlhf_video.preferences.store import PreferenceStore

LATENTS = "latents"
"""Name of the tensor in a file of latents."""
_RATE_TOLERANCE = 1e-3  # relative; containers keep rates as fractions


@dataclass(frozen=True)
class _Size:
    """What decides whether two clips can be compared element by element."""

    video: tuple[int, int, int] | None
    """Frames, height and width in pixels; None for latents whose record does not say."""
    latent: tuple[int, ...] | None = None
    """Shape of the tensor; None for videos."""
    fps: float | None = None

    def differs(self, other: "_Size") -> bool:
        """Whether the two are known to differ; latents and a video are compared by what the records say."""
        if self.latent is not None and other.latent is not None:
            return self.latent != other.latent
        return self.video is not None and other.video is not None and self.video != other.video

    def __str__(self) -> str:
        if self.latent is not None:
            return f"latents {'x'.join(map(str, self.latent))}"
        return "x".join(map(str, self.video or ()))


def clip_findings(
    pairs: Sequence[PreferencePair], store: PreferenceStore, *, decode: bool, hashes: bool, same_size: bool
) -> list[Finding]:
    """Return the defects of the clips.

    Args:
        pairs: Pairs of `store`.
        store: Where the clips lie.
        decode: Whether to decode every clip, which also compares its size with the record.
        hashes: Whether to compare contents with the recorded hashes.
        same_size: Whether two sizes or lengths in one pair are an error.
    """
    findings = []
    broken = store.clip_problems(pairs, hashes=hashes)
    if broken:
        remedy = "Restore these files, or leave their pairs out."
        findings.append(
            Finding("clips", "error", f"{len(broken)} clips cannot be used", remedy, tuple(broken.values()))
        )
    records = {clip.path: clip for pair in pairs for clip in pair.clips if clip.path not in broken}
    sizes, corrupt = _measure(records, store, decode=decode)
    if corrupt:
        remedy = "Generate these clips again, or leave their pairs out."
        title = f"{len(corrupt)} clips cannot be decoded"
        findings.append(Finding("corrupt", "error", title, remedy, tuple(corrupt)))
    wrong = [case for clip in (c for pair in pairs for c in pair.clips) for case in _wrong_record(clip, sizes)]
    if wrong:
        remedy = "Correct num_frames, height, width and fps of these records, or leave the fields out."
        title = f"{len(wrong)} records differ from their file"
        findings.append(Finding("records", "error", title, remedy, tuple(dict.fromkeys(wrong))))
    return [*findings, *_beyond_end(pairs, sizes), *_differences(pairs, sizes, same_size=same_size)]


def _measure(
    records: Mapping[str, ClipRecord], store: PreferenceStore, *, decode: bool
) -> tuple[dict[str, _Size], list[str]]:
    """Return the size of every readable clip by path, and what is wrong with the others."""

    def measure(clip: ClipRecord) -> _Size | str:
        try:
            return _size(clip, store.clip_path(clip), decode=decode)
        except DataError as error:
            return f"{clip.path} ({error})"

    sizes: dict[str, _Size] = {}
    corrupt: list[str] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # FFmpeg decodes outside of Python's lock
        for path, found in zip(records, pool.map(measure, records.values()), strict=True):
            if isinstance(found, str):
                corrupt.append(found)
            else:
                sizes[path] = found
    return sizes, corrupt


def _size(clip: ClipRecord, file: Path, *, decode: bool) -> _Size:
    """Measure a clip by its file, or by its record where that says all and nothing is decoded.

    Raises:
        DataError: The file cannot be read.
    """
    said = (clip.num_frames, clip.height, clip.width)
    recorded = None if None in said else typing.cast(tuple[int, int, int], said)
    if clip.is_latent:
        return _Size(recorded, _latent_shape(file), clip.fps)
    if recorded is not None and not decode:
        return _Size(recorded, fps=clip.fps)
    facts = read_clip_facts(file, decode=decode)
    return _Size((facts.num_frames, facts.height, facts.width), fps=facts.fps)


def _latent_shape(file: Path) -> tuple[int, ...]:
    try:
        with safe_open(file, framework="pt") as handle:
            if LATENTS not in handle.keys():  # noqa: SIM118  # it is no mapping
                raise DataError(f"it holds no tensor '{LATENTS}'")
            return tuple(handle.get_slice(LATENTS).get_shape())
    except (SafetensorError, OSError) as error:
        raise DataError(f"no safetensors file: {error}") from error


def _wrong_record(clip: ClipRecord, sizes: Mapping[str, _Size]) -> list[str]:
    """Return where a record of a video differs from its file."""
    size = sizes.get(clip.path)
    if size is None or size.latent is not None or size.video is None:
        return []
    num_frames, height, width = size.video
    said = {"num_frames": clip.num_frames, "height": clip.height, "width": clip.width}
    found = {"num_frames": num_frames, "height": height, "width": width}
    wrong = [f"{name} {said[name]}, file {found[name]}" for name in said if said[name] not in (None, found[name])]
    if clip.fps and size.fps and _rates_differ(clip.fps, size.fps):
        wrong.append(f"fps {clip.fps:g}, file {size.fps:g}")
    return [f"{clip.path} (record: {', '.join(wrong)})"] if wrong else []


def _beyond_end(pairs: Sequence[PreferencePair], sizes: Mapping[str, _Size]) -> Iterator[Finding]:
    """Find segment labels of frames that a clip does not have."""
    cases = []
    for index, pair in enumerate(pairs):
        last = max((segment.stop for segment in pair.segments), default=0)
        known = [size.video[0] for clip in pair.clips if (size := sizes.get(clip.path)) and size.video]
        if known and last > min(known):
            cases.append(f"{pair_name(index)} (frame {last} of {min(known)})")
    if cases:
        title = f"segments of {len(cases)} pairs end after their clip"
        yield Finding("segments", "error", title, "Count segments in pixel frames, `stop` not included.", tuple(cases))


def _differences(pairs: Sequence[PreferencePair], sizes: Mapping[str, _Size], *, same_size: bool) -> list[Finding]:
    """Find pairs whose clips differ in size, length or rate."""
    shapes: list[str] = []
    rates: list[str] = []
    for index, pair in enumerate(pairs):
        a, b = (sizes.get(clip.path) for clip in pair.clips)
        if a is None or b is None:
            continue
        if a.differs(b):
            shapes.append(f"{pair_name(index)} ({a} and {b})")
        if a.fps and b.fps and _rates_differ(a.fps, b.fps):
            rates.append(f"{pair_name(index)} ({a.fps:g} and {b.fps:g})")
    findings = []
    if shapes and same_size:
        title = f"the clips of {len(shapes)} pairs differ in frames x height x width"
        remedy = "Cut and scale both clips of a pair to one size: they share their noise in training."
        findings.append(Finding("sizes", "error", title, remedy, tuple(shapes)))
    if rates:
        title = f"the clips of {len(rates)} pairs differ in frames per second"
        remedy = "Raters saw two speeds: make sure that this is meant."
        findings.append(Finding("rates", "warning", title, remedy, tuple(rates)))
    return findings


def _rates_differ(one: float, other: float) -> bool:
    return abs(one - other) > _RATE_TOLERANCE * max(one, other)
