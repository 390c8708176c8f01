"""Every published weight file that a reward loads: where it lies, what it weighs, its hash, and what its licence asks.

A hash is stated where the authors or a host publish it. Where none is, the Hub's own hash of the file is checked.
"""

from dataclasses import dataclass

CONSENT_MARKS = ("NC", "NonCommercial", "AGPL")
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
    "image_reward": WeightFile(
        repository="THUDM/ImageReward",
        file="ImageReward.pt",
        licence="Apache-2.0",
        sha256="d71dc8d4912bc633c06ab8ef1ef6a81e8199d4369f14b47b29baf1d19de561f6",  # stated on the file's page
        note="The repository has moved to zai-org/ImageReward; the old name leads there.",
    ),
    "hps_v3": WeightFile(
        repository="MizzenAI/HPSv3",
        file="HPSv3.safetensors",
        licence="MIT",
        size=16_584_387_300,
        sha256="a13d7ff5a07b7ffa0f7824e60d62e6ae144541ceefd5224b4c08fda7ab39f353",
        note="Size and hash as VERL-Omni's scripts check them; the base model, Qwen2-VL-7B, is Apache-2.0.",
    ),
    "raft_large": WeightFile(
        repository=None,
        url="https://download.pytorch.org/models/raft_large_C_T_V1-22a6c225.pth",
        file="raft_large_C_T_V1-22a6c225.pth",
        licence="BSD-3-Clause",
        note="raft-things.pth of github.com/princeton-vl/RAFT holds the same weights and is read as well.",
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
        note="Size and hash as VERL-Omni's and Helios's scripts check them; once KwaiVGI/VideoReward.",
    ),
}
