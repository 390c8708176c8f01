"""Preference pairs: the record, the store, and other people's layouts."""

from rlhf_video.preferences.pair import OVERALL, ClipRecord, Label, PreferencePair, SegmentLabel
from rlhf_video.preferences.store import PreferenceStore, refuse_shared_prompts, split_by_prompt
from rlhf_video.preferences.trl_layout import Export, export_trl, trl_rows

__all__ = [
    "OVERALL",
    "ClipRecord",
    "Export",
    "Label",
    "PreferencePair",
    "PreferenceStore",
    "SegmentLabel",
    "export_trl",
    "refuse_shared_prompts",
    "split_by_prompt",
    "trl_rows",
]
