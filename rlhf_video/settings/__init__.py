"""Typed settings: strict YAML, dotted command-line overrides, a resolved dump."""

from rlhf_video.settings.arguments import Flags, Shortcut, StrictParser, parse_arguments
from rlhf_video.settings.building import to_plain
from rlhf_video.settings.loading import changed_fields, config_hash, dump_yaml, load_config, read_tree
from rlhf_video.settings.ranges import check_range

__all__ = [
    "Flags",
    "Shortcut",
    "StrictParser",
    "changed_fields",
    "check_range",
    "config_hash",
    "dump_yaml",
    "load_config",
    "parse_arguments",
    "read_tree",
    "to_plain",
]
