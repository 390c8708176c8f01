"""The clip that another one is measured against: same prompt, same noise, from a folder."""

import json
import re
from collections import Counter
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from evaluation.base import ClipEntry, DecodedClip, SkipClipError
from rlhf_video.data import read_video
from rlhf_video.errors import DataError

_MANIFEST = "manifest.json"
_VBENCH_NAME = re.compile(r"(?P<prompt>.+)-(?P<sample>\d+)")


class ReferenceClips:
    """Clips of a folder by prompt and seed, or by prompt and number where either side recorded no seed."""

    def __init__(self, folder: str | Path) -> None:
        """Read what the folder holds; no clip is decoded yet.

        Args:
            folder: Written by `rlhf_video/generate.py` (manifest.json), or files named `{prompt}-{number}.mp4`.

        Raises:
            DataError: No such folder, no clips in it, a damaged manifest, or two clips of one prompt and seed.
        """
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise DataError(f"There is no folder of reference clips {folder}: generate them, or correct the path.")
        listed = self._from_manifest() if (self.folder / _MANIFEST).is_file() else self._from_names()
        self._by_sample = {(prompt, sample): file for file, prompt, sample, _ in listed}
        self._by_seed = {(prompt, seed): file for file, prompt, _, seed in listed if seed is not None}
        num_seeded = sum(seed is not None for *_, seed in listed)
        if not listed or len(self._by_sample) < len(listed) or len(self._by_seed) < num_seeded:
            what = "two clips of one prompt and seed" if listed else "no clips"
            raise DataError(
                f"{folder} holds {what}: references are a manifest.json of generate.py with its files, or files named "
                "'{prompt}-{number}.mp4', each prompt and number (or seed) once."
            )

    def __call__(self, clip: DecodedClip) -> Tensor:
        """Return the reference of a clip: uint8, same shape as its frames; nobody writes to it.

        Raises:
            SkipClipError: There is none.
            DataError: It has another size or length, or cannot be decoded.
        """
        file = self._find(clip.entry)
        frames = _decode(file, file.stat().st_mtime_ns)
        if frames.shape != clip.frames.shape:
            sizes = " against ".join(
                f"{len(shown)} frames of {shown.shape[-2]}x{shown.shape[-1]}" for shown in (clip.frames, frames)
            )
            raise DataError(f"{clip.entry.file.name} and its reference {file.name} differ in size: {sizes}.")
        return frames

    def _find(self, entry: ClipEntry) -> Path:
        has_seeds = entry.seed is not None and bool(self._by_seed)
        file = (
            self._by_seed.get((entry.prompt, entry.seed or 0))
            if has_seeds
            else self._by_sample.get((entry.prompt, entry.sample))
        )
        if file is None:
            number = f"seed {entry.seed}" if has_seeds else f"number {entry.sample}"
            raise SkipClipError(f"{self.folder} has no clip of this prompt with {number}")
        return file

    def _from_manifest(self) -> list[tuple[Path, str, int, int | None]]:
        """Return file, prompt, number and seed of each clip."""
        path = self.folder / _MANIFEST
        counts: Counter[str] = Counter()
        listed = []
        try:
            for clip in json.loads(path.read_text(encoding="utf-8"))["clips"]:
                prompt = str(clip["prompt"])
                seed = None if clip.get("seed") is None else int(clip["seed"])
                listed.append((self.folder / str(clip["file"]), prompt, counts[prompt], seed))
                counts[prompt] += 1
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is damaged ({error}): generate the reference clips again.") from error
        return listed

    def _from_names(self) -> list[tuple[Path, str, int, int | None]]:
        matches = [(file, _VBENCH_NAME.fullmatch(file.stem)) for file in sorted(self.folder.glob("*.mp4"))]
        return [(file, match["prompt"], int(match["sample"]), None) for file, match in matches if match]


@lru_cache(maxsize=1)
def _decode(file: Path, modified: int) -> Tensor:
    """Return the frames of a file as uint8; the last one is kept, since several metrics ask for it in a row."""
    pixels, _ = read_video(file)
    return pixels.mul_(255.0).round_().to(torch.uint8)
