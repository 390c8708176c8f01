"""Prompt suites and video files."""

from rlhf_video.data.clip_list import ListedClip, read_clip_list
from rlhf_video.data.contact_sheet import contact_sheet
from rlhf_video.data.files import sha256_file, write_atomic
from rlhf_video.data.latent_cache import LatentCache
from rlhf_video.data.prompts import PromptSuite, load_prompts
from rlhf_video.data.video import encode_mp4, read_video, write_lossless, write_video

__all__ = [
    "LatentCache",
    "ListedClip",
    "PromptSuite",
    "contact_sheet",
    "encode_mp4",
    "load_prompts",
    "read_clip_list",
    "read_video",
    "sha256_file",
    "write_atomic",
    "write_lossless",
    "write_video",
]
