"""Preference pairs as a folder that Hugging Face `datasets` loads with Video columns: metadata.parquet and clips/.

`datasets.load_dataset(folder)` gives the columns `a` and `b` of type Video beside the whole record. Decoding them needs
torchcodec; nothing here does: clips are taken by path or by bytes.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_video.errors import DataError
from rlhf_video.preferences.pair import PreferencePair
from rlhf_video.preferences.parquet_file import pairs_table, read_rows, require_pyarrow, row_to_pair, write_tables
from rlhf_video.preferences.store import PreferenceStore
from rlhf_video.preferences.transfer import (
    ClipIntake,
    ClipOutlet,
    Export,
    Import,
    import_rows,
    refuse_nothing,
    videos_of,
)

METADATA = "metadata.parquet"
_BATCH = 16  # rows in memory: each may hold two clips


def export_datasets(
    pairs: Sequence[PreferencePair], store: PreferenceStore, path: str | Path, *, copy_clips: bool = True
) -> Export:
    """Write a folder for `datasets.load_dataset`, or to upload as a dataset repository.

    The layout holds everything but a clip's own path, since the clips are copied under names made of their content
    (`datasets` takes words like "train" in a file's name for a split). Pairs of latents are left out and counted.

    Args:
        pairs: Pairs of `store`.
        store: Where the clips lie.
        path: Target folder; its metadata.parquet is replaced where it exists.
        copy_clips: Must be true: `datasets` reads only clips inside the folder.

    Raises:
        DataError: A clip is missing, no pair can be written, the clips are not to be copied, or pyarrow is missing.
    """
    folder, dropped = Path(path), Counter[str]()
    if not copy_clips:
        raise DataError("copy_clips=False does not fit the datasets layout: it reads only clips inside its folder.")
    if folder.suffix in (".parquet", ".jsonl", ".csv") or folder.is_file():
        raise DataError(f"'{folder}' must be a folder: it gets {METADATA} and clips/.")
    require_pyarrow(folder / METADATA)
    kept = list(videos_of(pairs, dropped))
    refuse_nothing(len(kept), dropped, folder)
    store.check_clips(kept, hashes=False)
    outlet = ClipOutlet(store, folder, copy=True)
    table = pairs_table(kept)
    names = [{"a": "a_record", "b": "b_record"}.get(name, name) for name in table.column_names]
    table = table.rename_columns(names)
    for side in ("a", "b"):  # a column `x_file_name` becomes a Video column `x`
        table = table.append_column(f"{side}_file_name", [[outlet(getattr(pair, side)) for pair in kept]])
    write_tables(folder / METADATA, table.schema, [table])
    return Export(len(kept), dropped, {})


def import_datasets(path: str | Path, store: PreferenceStore, *, copy_clips: bool = False) -> Import:
    """Read what `export_datasets` wrote, or what `datasets` made of it, as pairs of `store`.

    Args:
        path: The folder with metadata.parquet; or a .parquet file with Video columns, which `Dataset.to_parquet` and
            `push_to_hub` write, or a folder of such files.
        store: Where the pairs will go; append them with `store.append(imported.pairs)`.
        copy_clips: Whether clips outside the store's folder are copied to its `clips`; embedded ones always are.

    Raises:
        DataError: There is no such file, a row is no pair or names a missing clip (all are listed), a clip is not the
            recorded one, or pyarrow is missing.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    files = [path / METADATA] if (path / METADATA).is_file() else sorted(path.rglob("*.parquet"))
    if path.is_file():
        files = [path]
    if not files:
        raise DataError(f"'{path}' holds no {METADATA} and no other Parquet file: export one, or correct the path.")
    rows = (row for file in files for row in read_rows(file, batch_size=_BATCH))
    return _import(rows, store, folder, copy_clips=copy_clips, source=path)


def import_dataset(dataset: Any, store: PreferenceStore, *, copy_clips: bool = False) -> Import:
    """Read a loaded `datasets.Dataset` with the columns of this layout as pairs of `store`; no clip is decoded.

    Args:
        dataset: `datasets.Dataset` or `IterableDataset`.
        store: Where the pairs will go.
        copy_clips: As in `import_datasets`.

    Raises:
        DataError: This version of `datasets` has no Video feature, or as in `import_datasets`.
    """
    import datasets

    if not hasattr(datasets, "Video"):
        raise DataError(f"datasets {datasets.__version__} has no Video feature: pip install -U 'datasets>=4'.")
    for side in ("a", "b"):
        dataset = dataset.cast_column(side, datasets.Video(decode=False))
    rows = ((f"Row {number}", row) for number, row in enumerate(dataset, start=1))
    return _import(rows, store, Path(), copy_clips=copy_clips, source=Path(f"{dataset.info.dataset_name or 'dataset'}"))


def _import(
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    store: PreferenceStore,
    folder: Path,
    *,
    copy_clips: bool,
    source: Path,
) -> Import:
    intake = ClipIntake(store, copy=copy_clips)

    def build(row: dict[str, Any]) -> PreferencePair:
        row = dict(row)
        for side in ("a", "b"):
            value = row.pop(f"{side}_file_name", row.pop(side, None))
            record = row.pop(f"{side}_record", None)
            if value is None or not isinstance(record, Mapping):
                raise DataError(f"'{side}' or '{side}_record' is missing: export the pairs with this program")
            clip = intake.from_value(value, folder)
            if clip.sha256 != record.get("sha256"):
                raise DataError(f"the clip of '{side}' is not the recorded one (sha256 differs)")
            row[side] = {**record, "path": clip.path}
        return row_to_pair(row, where="the row")

    pairs, dropped = import_rows(((where, dict(row)) for where, row in rows), build, intake=intake, source=source)
    return Import(pairs, dropped, {})
