"""Preference pairs as VideoAlign's CSV (arXiv:2501.13918): VQ, MQ and TA of two videos, each A, B, same or invalid."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlhf_video.data.clip_facts import read_clip_facts
from rlhf_video.data.files import write_atomic
from rlhf_video.errors import DataError
from rlhf_video.preferences.pair import (
    MOTION_QUALITY,
    OVERALL,
    TEXT_ALIGNMENT,
    VISUAL_QUALITY,
    ClipRecord,
    Label,
    PreferencePair,
)
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

QUESTIONS = {"VQ": VISUAL_QUALITY, "MQ": MOTION_QUALITY, "TA": TEXT_ALIGNMENT, "Overall": OVERALL}
"""Their column -> our question."""
REQUIRED = ("path_A", "path_B", "prompt", "VQ", "MQ", "TA")
SIZES = ("fps_A", "num_frames_A", "fps_B", "num_frames_B")
MODELS = ("A_model", "B_model")
_ANSWERS: dict[str, Label | None] = {"A": "A", "B": "B", "same": "tie", "invalid": None, "": None}
_NO_ANSWER = "no valid answer"


def import_videoalign(path: str | Path, store: PreferenceStore, *, copy_clips: bool = False) -> Import:
    """Read VideoAlign's CSV as pairs of `store`; append them with `store.append(imported.pairs)`.

    "same" is a tie; "invalid" and an empty cell are no answer. Columns that a pair has no place for (MOS_A_VQ,
    metainfo_idx, ...) are counted in `lost`.

    Args:
        path: CSV with a header, UTF-8; paths in it are absolute or relative to its folder.
        store: Where the pairs will go.
        copy_clips: Whether clips outside the store's folder are copied to its `clips`; else they stay in place.

    Raises:
        DataError: The file is missing or no such CSV, a row is wrong or names a missing clip (all are listed), or no
            row has a valid answer.
    """
    path = Path(path)
    intake = ClipIntake(store, copy=copy_clips)
    lost: Counter[str] = Counter()

    def build(row: dict[str, str]) -> PreferencePair | str:
        labels = {}
        for column, question in QUESTIONS.items():
            answer = _answer(column, row.get(column, ""))
            if answer is not None:
                labels[question] = answer
        a, b = (_read_clip(row, side, path.parent, intake) for side in "AB")
        if a.sha256 == b.sha256:
            return SAME_CLIP
        lost.update(name for name, value in row.items() if value and name not in _KNOWN)
        return PreferencePair(prompt=row["prompt"], a=a, b=b, labels=labels) if labels else _NO_ANSWER

    pairs, dropped = import_rows(_read_csv(path), build, intake=intake, source=path)
    return Import(pairs, dropped, lost)


def export_videoalign(
    pairs: Sequence[PreferencePair], store: PreferenceStore, path: str | Path, *, copy_clips: bool = False
) -> Export:
    """Write VideoAlign's CSV; paths in it are relative to its folder.

    The layout knows three answers: soft labels become the side above one half, a tie and "both-bad" are both "same".
    Overall, A_model and B_model appear where a pair has them. Frames and rates that a record lacks are read from the
    clip. Seeds, adapters, samplers, margins, weights, segments and other questions have no place; what was lost is
    counted. Pairs of latents, and those without an answer to the four questions, are left out and counted.

    Args:
        pairs: Pairs of `store`.
        store: Where the clips lie.
        path: Target .csv; replaced where it exists.
        copy_clips: Whether to copy the clips to `clips` beside the target.

    Raises:
        DataError: A clip is missing, or no pair can be written.
    """
    path, dropped, lost = Path(path), Counter[str](), Counter[str]()
    written: list[PreferencePair] = []
    for pair in videos_of(pairs, dropped):
        if any(question in pair.labels or question in pair.soft for question in QUESTIONS.values()):
            written.append(pair)
        else:
            dropped[_NO_ANSWER] += 1
    refuse_nothing(len(written), dropped, path)
    store.check_clips(written, hashes=False)
    outlet = ClipOutlet(store, path.parent, copy=copy_clips)
    rows = [_to_row(pair, outlet, store, lost) for pair in written]
    columns = [*REQUIRED, *SIZES, *(name for name in ("Overall", *MODELS) if any(row[name] for row in rows))]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue().encode())
    held = {f"labels.{question}" for question in QUESTIONS.values()}
    return Export(
        len(rows), dropped, lost + lost_facts(written, held | {"clips.fps", "clips.num_frames", "clips.model"})
    )


_KNOWN = frozenset((*REQUIRED, *SIZES, *MODELS, "Overall"))


def _read_csv(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    if not path.is_file():
        raise DataError(f"There is no file '{path}': correct the path.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, restkey="", restval=None, strict=True)
            missing = [name for name in REQUIRED if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(
                    f"'{path}' lacks the columns {', '.join(missing)}: VideoAlign's CSV has {', '.join(REQUIRED)}, and "
                    f"optionally {', '.join((*SIZES, 'Overall', *MODELS))}."
                )
            for row in reader:
                if "" in row or None in row.values():
                    raise DataError(f"Line {reader.line_num} of '{path}' has more or fewer cells than the header.")
                yield f"Line {reader.line_num}", row
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' is not CSV in UTF-8 ({error}): save it as such.") from error


def _answer(column: str, text: str) -> Label | None:
    if text.strip() not in _ANSWERS:
        raise DataError(f"{column}={text!r} must be A, B, same or invalid")
    return _ANSWERS[text.strip()]


def _read_clip(row: dict[str, str], side: str, folder: Path, intake: ClipIntake) -> ClipRecord:
    num_frames, fps = (_number(name, row.get(name, "")) for name in (f"num_frames_{side}", f"fps_{side}"))
    if num_frames is not None and not num_frames.is_integer():
        raise DataError(f"num_frames_{side}={num_frames} must be a whole number")
    return intake.from_file(
        row[f"path_{side}"].strip(),
        folder,
        model=row.get(f"{side}_model") or None,
        num_frames=None if num_frames is None else int(num_frames),
        fps=fps,
    )


def _number(column: str, text: str) -> float | None:
    """Return a cell's number; None where it is empty."""
    try:
        return float(text) if text.strip() else None
    except ValueError:
        raise DataError(f"{column}={text!r} must be a number") from None


def _to_row(pair: PreferencePair, outlet: ClipOutlet, store: PreferenceStore, lost: Counter[str]) -> dict[str, object]:
    row: dict[str, object] = {"prompt": pair.prompt}
    for column, question in QUESTIONS.items():
        if question in pair.labels or question in pair.soft:
            row[column] = pair.winner(question) or "same"
        else:
            row[column] = "" if column == "Overall" else "invalid"
        if pair.labels.get(question) == "both-bad" and row[column] == "same":
            lost[f"both-bad of {question}, written as same"] += 1
    for side, clip in zip("AB", pair.clips, strict=True):
        num_frames, fps = clip.num_frames, clip.fps
        if num_frames is None or fps is None:
            facts = read_clip_facts(store.clip_path(clip), decode=False)
            num_frames, fps = num_frames or facts.num_frames, fps or facts.fps
        row |= {f"num_frames_{side}": num_frames, f"fps_{side}": fps, f"{side}_model": clip.model or ""}
        row[f"path_{side}"] = outlet(clip)
    return row
