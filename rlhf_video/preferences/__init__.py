"""Preference pairs: the record, the store, and other people's layouts."""

from rlhf_video.preferences.audit import Audit, Finding, audit_pairs
from rlhf_video.preferences.datasets_layout import export_datasets, import_dataset, import_datasets
from rlhf_video.preferences.pair import (
    DIMENSIONS,
    MOTION_QUALITY,
    OVERALL,
    TEXT_ALIGNMENT,
    VISUAL_QUALITY,
    ClipRecord,
    Label,
    PreferencePair,
    SegmentLabel,
)
from rlhf_video.preferences.pickapic_layout import export_pickapic, import_pickapic
from rlhf_video.preferences.store import PreferenceStore, refuse_shared_prompts, split_by_prompt
from rlhf_video.preferences.transfer import Export, Import
from rlhf_video.preferences.trl_layout import export_trl, import_trl
from rlhf_video.preferences.trl_unpaired_layout import export_trl_unpaired
from rlhf_video.preferences.videoalign_layout import export_videoalign, import_videoalign

__all__ = [
    "DIMENSIONS",
    "MOTION_QUALITY",
    "OVERALL",
    "TEXT_ALIGNMENT",
    "VISUAL_QUALITY",
    "Audit",
    "ClipRecord",
    "Export",
    "Finding",
    "Import",
    "Label",
    "PreferencePair",
    "PreferenceStore",
    "SegmentLabel",
    "audit_pairs",
    "export_datasets",
    "export_pickapic",
    "export_trl",
    "export_trl_unpaired",
    "export_videoalign",
    "import_dataset",
    "import_datasets",
    "import_pickapic",
    "import_trl",
    "import_videoalign",
    "refuse_shared_prompts",
    "split_by_prompt",
]
