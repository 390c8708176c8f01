"""Preference pairs in TRL's layout (prompt, chosen, rejected): for judges and vision-language models trained there."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_video.data.files import write_atomic
from rlhf_video.errors import DataError
from rlhf_video.preferences.pair import OVERALL, PreferencePair
from rlhf_video.preferences.store import PreferenceStore


@dataclass(frozen=True)
class Export:
    """What an export wrote and what it left out."""

    num_rows: int
    num_undecided: int
    """Pairs that nobody answered, ties and both-bad: the layout has no place for them."""


def trl_rows(
    pairs: Sequence[PreferencePair], store: PreferenceStore, *, question: str = OVERALL
) -> list[dict[str, object]]:
    """Return the decided pairs as rows of TRL's conversational preference layout.

    `prompt` is a user message, `chosen` and `rejected` are assistant messages whose only part is a video, named by its
    path. `margin`, which TRL's reward trainer subtracts from the difference, comes along where every row has one.

    Args:
        pairs: Pairs of `store`.
        store: Where the clips lie; paths in the rows are absolute.
        question: Which label decides.
    """
    rows: list[dict[str, object]] = []
    for pair in pairs:
        winner = pair.winner(question)
        if winner is None:
            continue
        videos = [str(store.clip_path(clip).resolve()) for clip in pair.clips]
        if winner == "B":
            videos.reverse()
        prompt = [{"role": "user", "content": [{"type": "text", "text": pair.prompt}]}]
        chosen, rejected = ([{"role": "assistant", "content": [{"type": "video", "video": v}]}] for v in videos)
        rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected, "margin": pair.margin})
    if any(row["margin"] is None for row in rows):
        for row in rows:
            del row["margin"]
    return rows


def export_trl(
    pairs: Sequence[PreferencePair], store: PreferenceStore, path: str | Path, *, question: str = OVERALL
) -> Export:
    """Write the rows of `trl_rows` as JSON lines, which `datasets.load_dataset("json", data_files=...)` reads.

    Args:
        pairs: Pairs of `store`.
        store: Where the clips lie.
        path: Target .jsonl; replaced where it exists.
        question: Which label decides.

    Raises:
        DataError: No pair is decided.
    """
    rows = trl_rows(pairs, store, question=question)
    if not rows:
        raise DataError(f"None of {len(pairs)} pairs has a winner of '{question}': TRL's layout has no place for ties.")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomic(Path(path), lines.encode())
    return Export(len(rows), len(pairs) - len(rows))
