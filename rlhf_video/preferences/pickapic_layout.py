"""Preference pairs as in Pick-a-Pic (arXiv:2305.01569), with videos: caption, mp4_0, mp4_1 and the soft label label_0.

Two forms, by the ending of the file: .parquet with the bytes of the clips inside, as Pick-a-Pic is published, and
.jsonl with their paths. Diffusion-DPO's loader (arXiv:2311.12908) reads label_0 in {0, 1}, PickScore's any share.
"""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_video.data.files import write_atomic
from rlhf_video.errors import DataError
from rlhf_video.preferences.jsonl_file import json_rows
from rlhf_video.preferences.pair import OVERALL, ClipRecord, Label, PreferencePair
from rlhf_video.preferences.parquet_file import read_rows, require_pyarrow, write_tables
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
    text_of,
    videos_of,
)

_LABELS: dict[float, Label] = {1.0: "A", 0.5: "tie", 0.0: "B"}
_SHARES = {label: share for share, label in _LABELS.items()}
_REQUIRED = ("caption", "mp4_0", "mp4_1", "label_0")
_KNOWN = frozenset((*_REQUIRED, "label_1", "model_0", "model_1", "has_label", "are_different"))
_BATCH = 16  # rows in memory: each holds two clips


def import_pickapic(
    path: str | Path, store: PreferenceStore, *, question: str = OVERALL, copy_clips: bool = False
) -> Import:
    """Read Pick-a-Pic-type rows as pairs of `store`; append them with `store.append(imported.pairs)`.

    label_0 of 1, 0.5 and 0 become the labels A, tie and B, any other share a soft label. Rows whose has_label is false
    are counted out; columns that a pair has no place for are counted in `lost`.

    Args:
        path: .parquet, where a clip is bytes, {"bytes", "path"} or a path, or .jsonl, where it is a path; paths are
            absolute or relative to the file's folder.
        store: Where the pairs will go; embedded clips are written to its `clips`.
        question: Which question label_0 answers.
        copy_clips: Whether clips that are named by path and lie outside the store's folder are copied to `clips` too.

    Raises:
        DataError: The file is missing or damaged, a row is wrong or names a missing clip (all are listed), no row is a
            pair, or pyarrow, which Parquet needs, is missing.
    """
    path, lost = Path(path), Counter[str]()
    intake = ClipIntake(store, copy=copy_clips)

    def build(row: Mapping[str, Any]) -> PreferencePair | str:
        absent = [name for name in _REQUIRED if row.get(name) is None]
        if row.get("has_label") in (False, 0):
            return "has_label is false"
        if absent:
            raise DataError(f"{', '.join(absent)} is missing: a row has {', '.join(_REQUIRED)}")
        share, caption = _share(row), text_of(row, "caption") or ""
        a, b = (intake.from_value(row[f"mp4_{i}"], path.parent, model=text_of(row, f"model_{i}")) for i in (0, 1))
        if a.sha256 == b.sha256:
            return SAME_CLIP
        lost.update(name for name, value in row.items() if value is not None and name not in _KNOWN)
        if share in _LABELS:
            return PreferencePair(prompt=caption, a=a, b=b, labels={question: _LABELS[share]})
        return PreferencePair(prompt=caption, a=a, b=b, soft={question: share})

    rows = read_rows(path, batch_size=_BATCH) if path.suffix == ".parquet" else json_rows(path)
    pairs, dropped = import_rows(rows, build, intake=intake, source=path)
    return Import(pairs, dropped, lost)


def export_pickapic(
    pairs: Sequence[PreferencePair],
    store: PreferenceStore,
    path: str | Path,
    *,
    question: str = OVERALL,
    copy_clips: bool = False,
) -> Export:
    """Write one question of the pairs as Pick-a-Pic-type rows.

    label_0 is the soft label where there is one, else 1, 0.5 or 0. The layout knows no "both-bad" (one half would be a
    tie): such pairs, those that nobody answered and those of latents are left out and counted. Other questions,
    margins, weights, seeds, sizes and so on have no place and are counted as lost.

    Args:
        pairs: Pairs of `store`.
        store: Where the clips lie.
        path: Target; .parquet embeds the clips, .jsonl names them relative to its folder. Replaced where it exists.
        question: Which answer to write.
        copy_clips: Whether .jsonl's clips are copied to `clips` beside it.

    Raises:
        DataError: Another ending, a clip is missing, no pair can be written, or pyarrow is missing.
    """
    path, dropped = Path(path), Counter[str]()
    if path.suffix not in (".parquet", ".jsonl"):
        raise DataError(f"'{path}' must end in .parquet, with the clips inside, or in .jsonl, with their paths.")
    written: list[tuple[PreferencePair, float]] = []
    for pair in videos_of(pairs, dropped):
        share = _share_of(pair, question)
        if share is None:
            dropped["both-bad" if question in pair.labels else f"no answer to {question}"] += 1
        else:
            written.append((pair, share))
    refuse_nothing(len(written), dropped, path)
    kept = [pair for pair, _ in written]
    store.check_clips(kept, hashes=False)
    if path.suffix == ".parquet":
        _write_parquet(path, (_to_row(p, share, lambda c: store.clip_path(c).read_bytes()) for p, share in written))
    else:
        outlet = ClipOutlet(store, path.parent, copy=copy_clips)
        lines = [json.dumps(_to_row(pair, share, outlet), ensure_ascii=False) + "\n" for pair, share in written]
        write_atomic(path, "".join(lines).encode())
    held = {f"labels.{question}", f"soft.{question}", "clips.model"}
    return Export(len(written), dropped, lost_facts(kept, held))


def _share(row: Mapping[str, Any]) -> float:
    share, other = row["label_0"], row.get("label_1")
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise DataError(f"label_0={share!r} must be a number between 0 and 1")
    if other is not None and abs(share + other - 1) > 1e-6:
        raise DataError(f"label_0={share!r} and label_1={other!r} must sum to 1")
    return float(share)


def _share_of(pair: PreferencePair, question: str) -> float | None:
    """Return the share of A; None where nobody answered or both clips are bad."""
    if question in pair.soft:
        return pair.soft[question]
    return _SHARES.get(pair.labels[question]) if question in pair.labels else None


def _to_row(pair: PreferencePair, share: float, clip: Callable[[ClipRecord], object]) -> dict[str, Any]:
    row: dict[str, Any] = {"caption": pair.prompt, "mp4_0": clip(pair.a), "mp4_1": clip(pair.b)}
    row |= {"label_0": share, "label_1": 1.0 - share, "model_0": pair.a.model, "model_1": pair.b.model}
    return row | {"has_label": True, "are_different": True}


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    pa = require_pyarrow(path)
    text, clip, number, flag = pa.string(), pa.large_binary(), pa.float64(), pa.bool_()
    columns = [("caption", text), ("mp4_0", clip), ("mp4_1", clip), ("label_0", number), ("label_1", number)]
    columns += [("model_0", text), ("model_1", text), ("has_label", flag), ("are_different", flag)]
    schema = pa.schema(columns)
    batches = iter(lambda: list(itertools.islice(rows, _BATCH)), [])
    write_tables(path, schema, (pa.Table.from_pylist(batch, schema=schema) for batch in batches))
