"""A folder of pairs without the clips that no pair names: what is published, or kept in a repository."""

from dataclasses import dataclass
from pathlib import Path

from rlhf_video.data.files import write_atomic
from rlhf_video.errors import DataError
from rlhf_video.preferences.store import PreferenceStore

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Packed:
    """What was copied."""

    num_pairs: int
    num_clips: int
    num_bytes: int
    """Of clips, pairs and manifest."""


def pack(folder: Path, target: Path) -> Packed:
    """Copy every .jsonl file of pairs, the clips that they name, and the manifest.

    Args:
        folder: As `build_pairs.py` writes it.
        target: New folder.

    Raises:
        DataError: There is no file of pairs, a clip is missing or changed, or the target exists.
    """
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise DataError(f"'{folder}' holds no .jsonl file of preference pairs: build them with build_pairs.py first.")
    if target.exists():
        raise DataError(f"'{target}' exists: name a new folder, or delete it.")
    clips: set[str] = set()
    num_pairs = 0
    for file in files:
        store = PreferenceStore(file)
        pairs = store.read()
        store.check_clips(pairs)
        clips |= {clip.path for pair in pairs for clip in pair.clips}
        num_pairs += len(pairs)
    names = sorted(clips) + [file.name for file in files]
    names += [MANIFEST] if (folder / MANIFEST).is_file() else []
    num_bytes = 0
    for name in names:
        content = (folder / name).read_bytes()
        write_atomic(target / name, content)
        num_bytes += len(content)
    return Packed(num_pairs, len(clips), num_bytes)
