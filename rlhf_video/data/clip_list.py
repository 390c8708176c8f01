"""Which clips there are and what each shows: manifest.json as `generate.py` writes it, or JSON lines."""

import json
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from rlhf_video.data.video import read_video
from rlhf_video.errors import DataError


@dataclass(frozen=True)
class ListedClip:
    """A clip and its prompt."""

    file: Path
    prompt: str

    def read(self, shape: tuple[int, int, int, int], *, field: str) -> Tensor:
        """Return the pixels, in [0, 1].

        Args:
            shape: Expected (frames, 3, height, width).
            field: Config field that names the list, for the message.

        Raises:
            DataError: The file is missing or cannot be decoded, or its size is another.
        """
        video = read_video(self.file)[0]
        if tuple(video.shape) != shape:
            raise DataError(
                f"{field}: '{self.file}' has shape {tuple(video.shape)} (frames, channels, height, width), the "
                f"sampling size is {shape}: make the clips and the section `sampling` agree."
            )
        return video


def read_clip_list(path: Path, *, field: str) -> tuple[ListedClip, ...]:
    """Read a list of clips; their files are named relative to the list's folder.

    Args:
        path: manifest.json, {"clips": [{"file": ..., "prompt": ...}, ...]}, or a .jsonl file with one
            {"file": ..., "prompt": ...} a line.
        field: Config field that names it, for the messages.

    Returns:
        The clips, in the order of the list; prompts may repeat.

    Raises:
        DataError: The list is missing, malformed or empty.
    """
    if not path.is_file():
        raise DataError(
            f"{field} '{path}' does not exist: list clips in a .jsonl file ('file' and 'prompt' a line), "
            "write generated ones with rlhf_video/generate.py, or, for the sprite world, rendered ones with "
            "python -m rlhf_video.sprites.clips runs/sprite-clips."
        )
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            records = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            records = json.loads(text)["clips"]
        clips = tuple(ListedClip(path.parent / record["file"], str(record["prompt"])) for record in records)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f'{field} \'{path}\' is not a manifest ({error}): it needs {{"clips": [{{"file": ..., "prompt": ...}}, '
            '...]}, or as .jsonl one {"file": ..., "prompt": ...} a line.'
        ) from error
    if not clips:
        raise DataError(f"{field} '{path}' lists no clips.")
    return clips
