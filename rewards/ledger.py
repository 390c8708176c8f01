"""Every published weight file that a reward loads: where it lies, what it weighs, its hash, and what its licence asks.

A hash is stated where the authors or a host publish it. Where none is, the Hub's own hash of the file is checked.
"""

from dataclasses import dataclass

CONSENT_MARKS = ("NC", "NonCommercial", "Noncommercial", "AGPL")
"""Licences with one of these words bind what a user may do: they are asked before a download."""


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """One file."""

    repository: str | None
    """Hub repository "owner/name", None where only `url` has it."""
    file: str
    """Name in the repository, or the name under which to save what lies at `url`."""
    licence: str
    """SPDX name where there is one."""
    size: int | None = None
    """Bytes, None where not stated."""
    sha256: str | None = None
    """Hex, None where not stated."""
    md5: str | None = None
    """Hex, where only this is stated."""
    url: str | None = None
    """Address outside the Hub."""
    note: str = ""
    """What a user should know, one sentence."""

    @property
    def needs_consent(self) -> bool:
        """Whether the licence binds its user beyond naming the author."""
        return any(mark in self.licence for mark in CONSENT_MARKS)


LEDGER: dict[str, WeightFile] = {
    "aesthetic_linear": WeightFile(
        repository=None,
        url="https://raw.githubusercontent.com/LAION-AI/aesthetic-predictor/main/sa_0_4_vit_l_14_linear.pth",
        file="sa_0_4_vit_l_14_linear.pth",
        licence="MIT",
        size=4071,
        sha256="2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
        md5="46ec6a7a3a942a172d20430135301c58",
        note="Head only; it reads clip_vit_l_14. VBench's aesthetic quality uses it.",
    ),
    "aesthetic_mlp": WeightFile(
        repository=None,
        url="https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/sac%2Blogos%2Bava1-l14-linearMSE.pth",
        file="sac+logos+ava1-l14-linearMSE.pth",
        licence="Apache-2.0",
        size=3714759,
        sha256="21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
        md5="b1047fd767a00134b8fd6529bf19521a",
        note="Head only; it reads clip_vit_l_14.",
    ),
    "amt_s": WeightFile(
        repository="lalala125/AMT",
        file="amt-s.pth",
        licence="CC-BY-NC-4.0",
        note="Frame interpolation; VBench's motion smoothness uses it.",
    ),
    "clip_vit_b_32": WeightFile(
        repository="openai/clip-vit-base-patch32",
        file="pytorch_model.bin",
        licence="MIT",
        size=605247071,
        sha256="a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
        note="The licence is that of OpenAI's release, the Hub page states none.",
    ),
    "clip_vit_l_14": WeightFile(
        repository="openai/clip-vit-large-patch14",
        file="model.safetensors",
        licence="MIT",
        size=1710540580,
        sha256="a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
        note="The licence is that of OpenAI's release, the Hub page states none.",
    ),
    "dino_vit_b_16": WeightFile(
        repository=None,
        url="https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
        file="dino_vitbase16_pretrain.pth",
        licence="Apache-2.0",
        note="VBench's subject consistency reads it. Neither size nor hash is published.",
    ),
    "dinov2_vit_b_14": WeightFile(
        repository=None,
        url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
        file="dinov2_vitb14_pretrain.pth",
        licence="Apache-2.0",
        note="VBench-Long's subject consistency reads it. Neither size nor hash is published.",
    ),
    "grit_b": WeightFile(
        repository="OpenGVLab/VBench_Used_Models",
        file="grit_b_densecap_objectdet.pth",
        licence="MIT",
        note="VBench's object class, multiple objects, color and spatial relationship use it; the address in vbench "
        "0.1.5 is dead, its repository names this one.",
    ),
    "hps_v2": WeightFile(
        repository="xswu/HPSv2",
        file="HPS_v2_compressed.pt",
        licence="Apache-2.0",
        size=1972484501,
        sha256="07cb0d20626232204ca3a6ec53ff5984e7e53212a8a7b0e0ec2bac1bdaf125a1",
        md5="fd9180de357abf01fdb4eaad64631db4",
    ),
    "hps_v2_1": WeightFile(
        repository="xswu/HPSv2",
        file="HPS_v2.1_compressed.pt",
        licence="Apache-2.0",
        size=1972490005,
        sha256="c57a38fb4a2f7e7c15bf00da2ea377cdf165448b4dd1052a484c215a998c9837",
        md5="4067542e34ba2553a738c5ac6c1d75c0",
    ),
    "hps_v3": WeightFile(
        repository="MizzenAI/HPSv3",
        file="HPSv3.safetensors",
        licence="MIT",
        size=16_584_387_300,
        sha256="a13d7ff5a07b7ffa0f7824e60d62e6ae144541ceefd5224b4c08fda7ab39f353",
        note="Size and hash from public download scripts, not the authors; the base, Qwen2-VL-7B, is Apache-2.0.",
    ),
    "image_reward": WeightFile(
        repository="THUDM/ImageReward",
        file="ImageReward.pt",
        licence="Apache-2.0",
        sha256="d71dc8d4912bc633c06ab8ef1ef6a81e8199d4369f14b47b29baf1d19de561f6",  # stated on the file's page
        note="The repository has moved to zai-org/ImageReward; the old name leads there.",
    ),
    "mps": WeightFile(
        repository=None,
        url="https://pai-aigc-photog.oss-cn-hangzhou.aliyuncs.com/easyanimate/Third_Party/MPS_overall.pth",
        file="MPS_overall.pth",
        licence="MIT (the authors' code; the file states none)",
        md5="1491cbbbd20565747fe07e7572e2ac56",
        note="VideoX-Fun's copy of the authors' file, as a state dict; theirs is a pickled module and is not read.",
    ),
    "musiq_spaq": WeightFile(
        repository="chaofengc/IQA-PyTorch-Weights",
        file="musiq_spaq_ckpt-358bb6af.pth",
        licence="PolyForm-Noncommercial-1.0.0 (of its host; google-research's own checkpoint is Apache-2.0)",
        sha256="358bb6af275e28ea56821d44fb55c6cb83645db11f394d3ad65b2d149965ab50",
        url="https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/musiq_spaq_ckpt-358bb6af.pth",
        note="VBench's imaging quality uses it. The hash is from a public report, the file's name has its beginning.",
    ),
    "openai_clip_vit_b_32": WeightFile(
        repository=None,
        url="https://openaipublic.azureedge.net/clip/models/40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
        file="ViT-B-32.pt",
        licence="MIT",
        size=353_976_522,
        sha256="40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",  # stated in the address
        note="OpenAI's TorchScript archive, which VBench reads. The size is from public download scripts.",
    ),
    "openai_clip_vit_l_14": WeightFile(
        repository=None,
        url="https://openaipublic.azureedge.net/clip/models/b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
        file="ViT-L-14.pt",
        licence="MIT",
        size=932_768_134,
        sha256="b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",  # stated in the address
        note="OpenAI's TorchScript archive, which VBench reads. The size is from public download scripts.",
    ),
    "pick_score": WeightFile(
        repository="yuvalkirstain/PickScore_v1",
        file="model.safetensors",
        licence="MIT",
    ),
    "raft_large": WeightFile(
        repository=None,
        url="https://download.pytorch.org/models/raft_large_C_T_V1-22a6c225.pth",
        file="raft_large_C_T_V1-22a6c225.pth",
        licence="BSD-3-Clause",
    ),
    "raft_things": WeightFile(
        repository=None,
        url="https://dl.dropboxusercontent.com/s/4j4z58wuv8o0mfz/models.zip",
        file="models.zip",
        licence="BSD-3-Clause",
        note="Unpack the archive: the file to name is models/raft-things.pth, which VBench's dynamic degree uses.",
    ),
    "tag2text_swin": WeightFile(
        repository=None,
        url="https://huggingface.co/spaces/xinyu1205/recognize-anything/resolve/main/tag2text_swin_14m.pth",
        file="tag2text_swin_14m.pth",
        licence="Apache-2.0",
        note="VBench's scene uses it.",
    ),
    "umt_l_16": WeightFile(
        repository="OpenGVLab/VBench_Used_Models",
        file="l16_ptk710_ftk710_ftk400_f16_res224.pth",
        licence="MIT",
        note="VBench's human action uses it.",
    ),
    "v_jepa2_vitl": WeightFile(
        repository="facebook/vjepa2-vitl-fpc64-256",
        file="model.safetensors",
        licence="MIT",
        note="ViT-H and ViT-g (vjepa2-vith-fpc64-256, vjepa2-vitg-fpc64-256) load by path, with their config.json.",
    ),
    "video_align": WeightFile(
        repository="KlingTeam/VideoReward",
        file="checkpoint-11352/model.pth",
        licence="Apache-2.0",
        size=5_031_072_529,
        sha256="48375908e6112de9f0248402db156a23b480709a6960b091c598c6f4c88d21b9",
        note="Size and hash from public download scripts, not the authors; once KwaiVGI/VideoReward.",
    ),
    "viclip_l_14": WeightFile(
        repository="OpenGVLab/VBench_Used_Models",
        file="ViClip-InternVid-10M-FLT.pth",
        licence="MIT",
        note="VBench's overall consistency and temporal style use it; the licence is stated at OpenGVLab/ViCLIP.",
    ),
}
