"""Preference pairs in TRL's layout (prompt, chosen, rejected): for judges and vision-language models trained there."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_video.data.files import write_atomic
from rlhf_video.errors import DataError
from rlhf_video.preferences.jsonl_file import json_rows
from rlhf_video.preferences.pair import OVERALL, ClipRecord, Label, PreferencePair
from rlhf_video.preferences.store import PreferenceStore
from rlhf_video.preferences.transfer import (
    SAME_CLIP,
    ClipIntake,
    ClipOutlet,
    Export,
    Import,
    import_rows,
    lost_facts,
    refuse_nothing,
    videos_of,
)

_KNOWN = ("prompt", "chosen", "rejected", "margin")


def export_trl(
    pairs: Sequence[PreferencePair],
    store: PreferenceStore,
    path: str | Path,
    *,
    question: str = OVERALL,
    copy_clips: bool = False,
) -> Export:
    """Write the decided pairs as TRL's conversational preference layout, one JSON object a line.

    `prompt` is a user message, `chosen` and `rejected` are assistant messages whose only part is a video, named by its
    absolute path. `margin`, which TRL's reward trainer subtracts from the difference, comes along where every row has
    one. `datasets.load_dataset("json", data_files=...)` reads it. Ties, both-bad, unanswered pairs and pairs of latents
    have no place and are counted out; a soft label becomes its winner, and which side was A, other questions, weights
    and so on are lost and counted.

    Args:
        pairs: Pairs of `store`.
        store: Where the clips lie.
        path: Target .jsonl; replaced where it exists.
        question: Which label decides.
        copy_clips: Whether to copy the clips to `clips` beside the target.

    Raises:
        DataError: No pair is decided, or a clip is missing.
    """
    path, dropped = Path(path), Counter[str]()
    kept: list[PreferencePair] = []
    for pair in videos_of(pairs, dropped):
        if pair.winner(question) is None:
            dropped[f"no winner of {question}"] += 1
        else:
            kept.append(pair)
    refuse_nothing(len(kept), dropped, path)
    store.check_clips(kept, hashes=False)
    outlet = ClipOutlet(store, path.parent, copy=copy_clips)
    has_margins = all(pair.margin is not None for pair in kept)
    rows: list[dict[str, object]] = []
    for pair in kept:
        chosen, rejected = pair.clips if pair.winner(question) == "A" else pair.clips[::-1]
        row = {"prompt": user_message(pair.prompt)}
        row |= {"chosen": video_message(outlet, chosen, path), "rejected": video_message(outlet, rejected, path)}
        rows.append({**row, "margin": pair.margin} if has_margins else {**row})
    write_json_lines(path, rows)
    held = {f"labels.{question}"} | ({"margin"} if has_margins else set())
    return Export(len(rows), dropped, lost_facts(kept, held) + Counter({"which side was A": len(rows)}))


def import_trl(
    path: str | Path, store: PreferenceStore, *, question: str = OVERALL, copy_clips: bool = False
) -> Import:
    """Read TRL's conversational preference layout with videos as pairs of `store`.

    TRL knows no sides: a hash of both clips decides which becomes A, so that neither side always wins.

    Args:
        path: .jsonl with prompt, chosen and rejected as `export_trl` writes them; video paths are absolute or relative
            to its folder.
        store: Where the pairs will go; append them with `store.append(imported.pairs)`.
        question: Which question chosen and rejected answer.
        copy_clips: Whether clips outside the store's folder are copied to its `clips`; else they stay in place.

    Raises:
        DataError: The file is missing or no JSON lines, or a row is wrong or names a missing clip (all are listed).
    """
    path, lost = Path(path), Counter[str]()
    intake = ClipIntake(store, copy=copy_clips)

    def build(row: Mapping[str, Any]) -> PreferencePair | str:
        chosen, rejected = (intake.from_file(_part(row, name, "video"), path.parent) for name in ("chosen", "rejected"))
        if chosen.sha256 == rejected.sha256:
            return SAME_CLIP
        margin = row.get("margin")
        if margin is not None and (isinstance(margin, bool) or not isinstance(margin, int | float)):
            raise DataError(f"margin={margin!r} must be a number")
        lost.update(name for name, value in row.items() if value is not None and name not in _KNOWN)
        digest = hashlib.sha256(min(chosen.sha256, rejected.sha256).encode()).digest()
        is_first = (digest[0] % 2 == 0) == (chosen.sha256 < rejected.sha256)
        a, b = (chosen, rejected) if is_first else (rejected, chosen)
        labels: dict[str, Label] = {question: "A" if is_first else "B"}
        return PreferencePair(prompt=_part(row, "prompt", "text"), a=a, b=b, labels=labels, margin=margin)

    pairs, dropped = import_rows(json_rows(path), build, intake=intake, source=path)
    return Import(pairs, dropped, lost)


def user_message(prompt: str) -> list[dict[str, object]]:
    """Return a prompt as TRL's list of one user message."""
    return [{"role": "user", "content": [{"type": "text", "text": prompt}]}]


def video_message(outlet: ClipOutlet, clip: ClipRecord, path: Path) -> list[dict[str, object]]:
    """Return a clip as TRL's list of one assistant message, the video named by its absolute path."""
    video = os.path.normpath(path.parent.resolve() / outlet(clip))
    return [{"role": "assistant", "content": [{"type": "video", "video": video}]}]


def write_json_lines(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write one JSON object a line, atomically."""
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def _part(row: Mapping[str, Any], name: str, kind: str) -> str:
    """Return the only part of the only message of a column: its text or its video."""
    match row.get(name):
        case [{"content": [{"type": found, **part}]}] if found == kind and isinstance(part.get(kind), str):
            return str(part[kind])
        case [{"content": str(text)}] if kind == "text":
            return text
        case str(text) if kind == "text":
            return text
    raise DataError(f"'{name}' must be one message whose content is one part of type '{kind}'")
