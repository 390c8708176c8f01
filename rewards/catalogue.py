"""The zoo: one record per reward that a config may name. Facts here cost no weights; tests hold them to the classes."""

from dataclasses import dataclass
from typing import Literal

Tier = Literal["A", "C", "D"]
"""A: in this process, torch only. C: the original package in an environment of its own. D: a model behind HTTP."""


@dataclass(frozen=True, kw_only=True)
class RewardEntry:
    """What `rlhf-video rewards list` prints of a reward, and where its class is."""

    target: str
    """"package.module:Class"; imported when the reward is built."""
    tier: Tier
    """Where it runs."""
    is_differentiable: bool
    """Whether gradients reach the pixels."""
    frames: str
    """Which frames it looks at by default, in words."""
    licence: str
    """Of code and weights, SPDX names where there are some."""
    parity: str
    """What it was compared with, and how closely."""
    weights: tuple[str, ...] = ()
    """Names in rewards/ledger.py of the files that it loads by default."""


OWN = "Apache-2.0"
CLOSED_FORM = "closed form, tested by hand-made clips"

CATALOGUE: dict[str, RewardEntry] = {
    "aesthetic": RewardEntry(
        target="rewards.aesthetic:Aesthetic",
        tier="A",
        is_differentiable=True,
        frames="all, mean",
        licence="Apache-2.0 (mlp), MIT (linear)",
        parity="heads as published on transformers.CLIPModel, score and gradient <= 1e-5",
        weights=("aesthetic_mlp", "clip_vit_l_14"),
    ),
    "brightness": RewardEntry(
        target="rewards.testing:BrightnessReward",
        tier="A",
        is_differentiable=True,
        frames="all",
        licence=OWN,
        parity=CLOSED_FORM,
    ),
    "clip_preference": RewardEntry(
        target="rewards.clip_preference:ClipPreference",
        tier="A",
        is_differentiable=True,
        frames="all, mean",
        licence="the folder's",
        parity="transformers.CLIPModel, score <= 1e-5",
    ),
    "clip_score": RewardEntry(
        target="rewards.clip_score:ClipScore",
        tier="A",
        is_differentiable=True,
        frames="all, mean",
        licence="MIT",
        parity="the paper's formula on transformers.CLIPModel, score and gradient <= 1e-5",
        weights=("clip_vit_b_32",),
    ),
    "colourfulness": RewardEntry(
        target="rewards.colourfulness:Colourfulness",
        tier="A",
        is_differentiable=True,
        frames="all",
        licence=OWN,
        parity=CLOSED_FORM,
    ),
    "dynamic_degree": RewardEntry(
        target="rewards.dynamic_degree:DynamicDegree",
        tier="A",
        is_differentiable=True,
        frames="8 fps",
        licence="BSD-3-Clause",
        parity="torchvision's RAFT, flow <= 2e-5 px",
        weights=("raft_large",),
    ),
    "ensemble": RewardEntry(
        target="rewards.ensemble:Ensemble",
        tier="A",
        is_differentiable=True,
        frames="its members'",
        licence="its members'",
        parity=CLOSED_FORM,
    ),
    "exposure": RewardEntry(
        target="rewards.exposure:Exposure",
        tier="A",
        is_differentiable=True,
        frames="all",
        licence=OWN,
        parity=CLOSED_FORM,
    ),
    "flow_motion": RewardEntry(
        target="rewards.flow_motion:FlowMotion",
        tier="A",
        is_differentiable=True,
        frames="8 fps",
        licence="BSD-3-Clause",
        parity="closed form on torchvision's RAFT, flow <= 2e-5 px",
        weights=("raft_large",),
    ),
    "frame_difference": RewardEntry(
        target="rewards.frame_difference:FrameDifference",
        tier="A",
        is_differentiable=True,
        frames="all",
        licence=OWN,
        parity=CLOSED_FORM,
    ),
    "hps_v2": RewardEntry(
        target="rewards.hps_v2:HpsV2",
        tier="A",
        is_differentiable=True,
        frames="all, mean",
        licence="Apache-2.0",
        parity="hpsv2 and open_clip, tokens, pixels, features, score, gradient <= 1e-5",
        weights=("hps_v2",),
    ),
    "hps_v2_1": RewardEntry(
        target="rewards.hps_v2:HpsV21",
        tier="A",
        is_differentiable=True,
        frames="all, mean",
        licence="Apache-2.0",
        parity="hpsv2 and open_clip, tokens, pixels, features, score, gradient <= 1e-5",
        weights=("hps_v2_1",),
    ),
    "hps_v2_worker": RewardEntry(
        target="rewards.workers.shipped:hps_v2_worker",
        tier="C",
        is_differentiable=False,
        frames="all, mean",
        licence="Apache-2.0",
        parity="is the original: hpsv2 1.2.0, resident = its score() <= 1e-6",
        weights=("hps_v2_1",),
    ),
    "hps_v3": RewardEntry(
        target="rewards.hps_v3:HpsV3",
        tier="A",
        is_differentiable=True,
        frames="4 uniform, mean",
        licence="MIT",
        parity="hpsv3 1.0.0's code, score and pixel gradient <= 1e-5",
        weights=("hps_v3",),
    ),
    "image_reward": RewardEntry(
        target="rewards.image_reward:ImageReward",
        tier="A",
        is_differentiable=True,
        frames="all, mean",
        licence="Apache-2.0",
        parity="image-reward 1.5, random weights: score, features, gradient <= 1e-5",
        weights=("image_reward",),
    ),
    "image_reward_worker": RewardEntry(
        target="rewards.workers.shipped:image_reward_worker",
        tier="C",
        is_differentiable=False,
        frames="all, mean",
        licence="Apache-2.0",
        parity="is the original: image-reward 1.5, resident = its score() <= 1e-6",
        weights=("image_reward",),
    ),
    "mps": RewardEntry(
        target="rewards.mps:Mps",
        tier="A",
        is_differentiable=True,
        frames="all, mean",
        licence="MIT",
        parity="Kwai-Kolors/MPS in float32, features, score, gradient <= 1e-5",
        weights=("mps",),
    ),
    "pick_score": RewardEntry(
        target="rewards.pick_score:PickScore",
        tier="A",
        is_differentiable=True,
        frames="all, mean",
        licence="MIT",
        parity="the official script on the same pixels <= 1e-5; its Pillow resize differs by a grey level",
        weights=("pick_score",),
    ),
    "preference_head": RewardEntry(
        target="rewards.preference_head:PreferenceHead",
        tier="A",
        is_differentiable=True,
        frames="all, or the folder's",
        licence="the folder's",
        parity="none: a head of our own, its folder scores as it was trained",
    ),
    "saturation": RewardEntry(
        target="rewards.saturation:Saturation",
        tier="A",
        is_differentiable=True,
        frames="all",
        licence=OWN,
        parity=CLOSED_FORM,
    ),
    "sharpness": RewardEntry(
        target="rewards.sharpness:Sharpness",
        tier="A",
        is_differentiable=True,
        frames="all",
        licence=OWN,
        parity=CLOSED_FORM,
    ),
    "temporal_flicker": RewardEntry(
        target="rewards.temporal_flicker:TemporalFlicker",
        tier="A",
        is_differentiable=True,
        frames="all",
        licence=OWN,
        parity=CLOSED_FORM,
    ),
    "unified_reward": RewardEntry(
        target="rewards.unified_reward:UnifiedReward",
        tier="D",
        is_differentiable=False,
        frames="uniform, 16",
        licence="MIT",
        parity="prompt and answer form of the authors' code; a local server made for the test",
    ),
    "v_jepa_surprise": RewardEntry(
        target="rewards.v_jepa_surprise:VJepaSurprise",
        tier="A",
        is_differentiable=True,
        frames="all, windows of 16",
        licence="MIT",
        parity="transformers.VJEPA2Model, tokens <= 1e-6; closed form",
        weights=("v_jepa2_vitl",),
    ),
    "video_align": RewardEntry(
        target="rewards.video_align:VideoAlign",
        tier="A",
        is_differentiable=True,
        frames="2 fps, even, 4 or more",
        licence="MIT code, Apache-2.0 weights",
        parity="KwaiVGI/VideoAlign's code, score and patch gradient <= 1e-5",
        weights=("video_align",),
    ),
    "video_score2": RewardEntry(
        target="rewards.video_score2:VideoScore2",
        tier="D",
        is_differentiable=False,
        frames="2 fps",
        licence="Apache-2.0",
        parity="prompt, frame rule and soft score of the authors' code; a local server made for the test",
    ),
    "video_text": RewardEntry(
        target="rewards.video_text:VideoText",
        tier="A",
        is_differentiable=True,
        frames="uniform, as many as the model takes",
        licence="the folder's",
        parity="transformers.XCLIPModel, score <= 1e-5",
    ),
    "warp_error": RewardEntry(
        target="rewards.warp_error:WarpError",
        tier="A",
        is_differentiable=True,
        frames="all",
        licence="BSD-3-Clause",
        parity="closed form on torchvision's RAFT, flow <= 2e-5 px",
        weights=("raft_large",),
    ),
    "weighted": RewardEntry(
        target="rewards.terms:weighted",
        tier="A",
        is_differentiable=True,
        frames="its terms'",
        licence="its terms'",
        parity=CLOSED_FORM,
    ),
}
