"""Layouts of preference pairs by name, for the command line."""

from collections.abc import Callable
from dataclasses import dataclass

from rlhf_video.preferences.datasets_layout import export_datasets, import_datasets
from rlhf_video.preferences.pickapic_layout import export_pickapic, import_pickapic
from rlhf_video.preferences.transfer import Export, Import
from rlhf_video.preferences.trl_layout import export_trl, import_trl
from rlhf_video.preferences.trl_unpaired_layout import export_trl_unpaired
from rlhf_video.preferences.videoalign_layout import export_videoalign, import_videoalign


@dataclass(frozen=True)
class Layout:
    """One layout."""

    summary: str
    export_pairs: Callable[..., Export]
    """f(pairs, store, path, *, copy_clips, [question])"""
    import_pairs: Callable[..., Import] | None
    """f(path, store, *, copy_clips, [question]); None where rows are not pairs."""
    asks_one_question: bool
    """Whether the functions take `question`."""
    must_copy: bool = False
    """Whether exported clips always go along."""


LAYOUTS = {
    "videoalign": Layout("CSV with VQ, MQ, TA", export_videoalign, import_videoalign, asks_one_question=False),
    "pickapic": Layout(
        "mp4_0, mp4_1, caption, label_0 (.parquet or .jsonl)", export_pickapic, import_pickapic, asks_one_question=True
    ),
    "datasets": Layout(
        "folder for Hugging Face datasets, everything kept",
        export_datasets,
        import_datasets,
        asks_one_question=False,
        must_copy=True,
    ),
    "trl": Layout("prompt, chosen, rejected (.jsonl)", export_trl, import_trl, asks_one_question=True),
    "trl-unpaired": Layout(
        "prompt, completion, label for KTO (.jsonl)", export_trl_unpaired, None, asks_one_question=True
    ),
}
