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
