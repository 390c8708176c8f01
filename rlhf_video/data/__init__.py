"""Prompt suites and video files."""

from rlhf_video.data.buckets import TokenBuckets
from rlhf_video.data.clip_facts import video_size
from rlhf_video.data.clip_list import ListedClip, read_clip_list
from rlhf_video.data.contact_sheet import contact_sheet
from rlhf_video.data.files import sha256_file, write_atomic
from rlhf_video.data.latent_cache import LatentCache, encoder_fingerprint, latent_key
from rlhf_video.data.live_video import LiveVideo
from rlhf_video.data.prompts import PromptSuite, load_prompts
from rlhf_video.data.video import ClipSize, encode_mp4, read_frames, read_video, write_lossless, write_video

__all__ = [
    "ClipSize",
    "LatentCache",
    "ListedClip",
    "LiveVideo",
    "PromptSuite",
    "TokenBuckets",
    "contact_sheet",
    "encode_mp4",
    "encoder_fingerprint",
    "latent_key",
    "load_prompts",
    "read_clip_list",
    "read_frames",
    "read_video",
    "sha256_file",
    "video_size",
    "write_atomic",
    "write_lossless",
    "write_video",
]
