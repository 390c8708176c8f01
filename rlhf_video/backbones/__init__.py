"""Video diffusion models behind one small interface."""

from rlhf_video.backbones.attention_host import describe_plan
from rlhf_video.backbones.base import BackboneSpec, Conditioning, VideoBackbone, VideoShape
from rlhf_video.backbones.registry import load_backbone, meta_backbone

__all__ = [
    "BackboneSpec",
    "Conditioning",
    "VideoBackbone",
    "VideoShape",
    "describe_plan",
    "load_backbone",
    "meta_backbone",
]
