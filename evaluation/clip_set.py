"""The clips of a system, checked against the suite before anything is scored."""

import json
from pathlib import Path

from evaluation.base import ClipEntry
from evaluation.prompt_suites import Suite
from rlhf_video.data import ClipSize, sha256_file
from rlhf_video.errors import DataError

_SHOWN = 5


def read_clip_set(
    folder: Path, suite: Suite, *, clips_per_prompt: int, size: ClipSize | None, partial: bool = False
) -> tuple[ClipEntry, ...]:
    """Return the clips of a folder that generate.py made, in the order of the suite.

    Raises:
        DataError: Clips are missing.
    """
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        raise DataError(f"'{folder}' has no manifest.json: generate its clips first.")
    clips: dict[str, list[dict[str, str]]] = {}
    for clip in json.loads(manifest.read_text())["clips"]:
        clips.setdefault(clip["prompt"], []).append(clip)
    entries, missing = [], []
    for asked in suite.prompts:
        found = clips.get(asked.prompt, [])
        for sample in range(clips_per_prompt):
            if sample >= len(found) or not (folder / found[sample]["file"]).is_file():
                missing.append(f"{asked.prompt} ({sample})")
                continue
            file = folder / found[sample]["file"]
            entries.append(
                ClipEntry(
                    file=file,
                    sha256=sha256_file(file),
                    prompt=asked.prompt,
                    sample=sample,
                    seed=int(found[sample]["seed"]),
                    dimensions=asked.dimensions,
                    facts=asked.facts,
                )
            )
    if missing and not partial:
        raise DataError(f"'{folder}' lacks {len(missing)} clips: {', '.join(missing[:_SHOWN])}.")
    return tuple(entries)
