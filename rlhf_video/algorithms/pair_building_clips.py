"""Clips for pairs on disk: which ones there are, how they are written and read, and what was finished.

The clips are cut into the same batches whatever the number of processes and however often a run was killed, so that
files are the same to the byte. A batch whose record is there is finished.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rlhf_video.algorithms.clip_maker import clip_seed
from rlhf_video.algorithms.pair_building_config import SaveConfig
from rlhf_video.backbones import VideoBackbone
from rlhf_video.data import read_video, sha256_file, write_atomic, write_lossless
from rlhf_video.errors import DataError
from rlhf_video.preferences import ClipRecord
from rlhf_video.settings import to_plain
from rlhf_video.settings.building import build_config

CLIPS, WORK = "clips", "work"
"""Folders of an output folder: the clips, and what a killed run goes on from."""


@dataclass(frozen=True)
class Item:
    """One clip to generate, or (partial re-noising) two copies of it."""

    name: str
    """Of its file, without ending."""
    prompt: str
    seed: int
    """Of its noise: `torch.Generator().manual_seed(seed)`."""
    given: Path | None = None
    """Clip to re-noise; None re-noises a generated one."""
    guidance: float | None = None
    """Scale of the guidance; None takes the sampler's."""


@dataclass(frozen=True)
class PromptClip:
    """A clip on disk and the prompt that it was made for."""

    prompt: str
    clip: ClipRecord


Batch = tuple[PromptClip, ...]


def plan_items(
    prompts: Sequence[str], clips_per_prompt: int, *, seed: int, guidances: Sequence[float] = ()
) -> list[Item]:
    """Return the clips of a run in a fixed order; the same seeds as generate.py's.

    Args:
        prompts: What to show, distinct.
        clips_per_prompt: With different noise.
        seed: The run's seed.
        guidances: What a prompt's clips take in turn; clips of one guidance come one after the other.
    """
    scales: Sequence[float | None] = guidances or (None,)
    items = [
        Item(
            f"{number:04d}-{slug(prompt)}-{clip}",
            prompt,
            clip_seed(seed, prompt, clip),
            guidance=scales[clip % len(scales)],
        )
        for number, prompt in enumerate(prompts)
        for clip in range(clips_per_prompt)
    ]
    return sorted(items, key=lambda item: scales.index(item.guidance))


def slug(prompt: str) -> str:
    """Return a prompt as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60].strip("-")


class Shelf:
    """The clips of an output folder."""

    def __init__(self, folder: Path, config: SaveConfig) -> None:
        """Use a folder; it appears with the first clip."""
        self.folder, self.config = folder, config

    def write(self, name: str, latents: Tensor, backbone: VideoBackbone, **facts: Any) -> ClipRecord:
        """Write a generated clip.

        Args:
            name: File name without ending.
            latents: Shape (channels, Fl, Hl, Wl), normalised.
            backbone: Decodes.
            facts: Further fields of the record, `fps` among them.
        """
        if self.config.format == "latents":
            file = self.folder / CLIPS / f"{name}.safetensors"
            kept = latents.to(getattr(torch, self.config.latents_type)).cpu().contiguous()
            write_atomic(file, save({"latents": kept}))
        else:
            file = self.folder / CLIPS / f"{name}.mkv"
            write_lossless(file, backbone.decode(latents[None])[0].cpu(), facts["fps"])
        return ClipRecord(path=f"{CLIPS}/{file.name}", sha256=sha256_file(file), **facts)

    def copy(self, name: str, given: Path, **facts: Any) -> ClipRecord:
        """File a given clip as it is; arguments as for `write`."""
        file = self.folder / CLIPS / f"{name}{given.suffix}"
        write_atomic(file, given.read_bytes())
        return ClipRecord(path=f"{CLIPS}/{file.name}", sha256=sha256_file(file), **facts)

    def file(self, clip: ClipRecord) -> Path:
        """Return where a clip lies."""
        return self.folder / clip.path

    def read(self, clip: ClipRecord, decode: Callable[[Tensor], Tensor]) -> Tensor:
        """Return a clip's pixels in [0, 1], shape (frames, 3, height, width).

        Args:
            clip: Its record.
            decode: Latents (1, channels, Fl, Hl, Wl) -> pixels; used for latents alone.

        Raises:
            DataError: The file cannot be read.
        """
        if clip.path.endswith(".safetensors"):
            return decode(_read_latents(self.file(clip))[None].float())[0].cpu()
        return read_video(self.file(clip))[0]


def _read_latents(file: Path) -> Tensor:
    try:
        with safe_open(file, framework="pt") as handle:
            latents: Tensor = handle.get_tensor("latents")
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"Latents '{file}' cannot be read ({error}): delete the file and go on with --resume."
        ) from error
    return latents


class Records:
    """What is known of finished batches, one JSON file each."""

    def __init__(self, folder: Path) -> None:
        """Use a folder; it appears with the first record."""
        self.folder = folder

    def read(self, number: int) -> Batch | None:
        """Return a finished batch whose clips are all there and unchanged; None where it must be made (again)."""
        try:
            entries = json.loads(self._file(number).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except json.JSONDecodeError as error:
            raise DataError(f"'{self._file(number)}' is damaged: delete it and go on with --resume.") from error
        batch = tuple(PromptClip(entry["prompt"], build_config(ClipRecord, entry["clip"])) for entry in entries)
        files = [(self.folder.parents[1] / item.clip.path, item.clip.sha256) for item in batch]
        return batch if all(file.is_file() and sha256_file(file) == digest for file, digest in files) else None

    def write(self, number: int, batch: Batch) -> None:
        """Keep a finished batch; its clips are written before."""
        entries = [{"prompt": item.prompt, "clip": to_plain(item.clip)} for item in batch]
        write_atomic(self._file(number), (json.dumps(entries, ensure_ascii=False, indent=1) + "\n").encode())

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:05d}.json"
