"""Published weights of RAFT-large, in torchvision's names or in those of the original repository."""

import re
from pathlib import Path

import torch
from torch import Tensor

from rewards.errors import RewardError
from rewards.raft import Raft

SOURCES = (
    "Get raft_large_C_T_V1-22a6c225.pth (20 MB) from https://download.pytorch.org/models/, or raft-things.pth out of "
    "https://dl.dropboxusercontent.com/s/4j4z58wuv8o0mfz/models.zip (github.com/princeton-vl/RAFT): the same weights, "
    "licence BSD-3-Clause."
)
"""Where the weights come from, for messages."""

_RENAMES = (
    (r"^module\.", ""),  # the original was saved inside DataParallel
    (r"^fnet\.", "feature_encoder."),
    (r"^cnet\.", "context_encoder."),
    (r"^(\w+_encoder)\.conv1\.", r"\1.convnormrelu.0."),
    (r"^(\w+_encoder)\.norm1\.", r"\1.convnormrelu.1."),
    (r"^(\w+_encoder)\.conv2\.", r"\1.conv."),
    (r"(\.layer\d\.\d)\.conv(\d)\.", r"\1.convnormrelu\2.0."),
    (r"(\.layer\d\.\d)\.norm(\d)\.", r"\1.convnormrelu\2.1."),
    (r"^update_block\.encoder\.conv([cf])(\d)\.", r"update_block.motion_encoder.conv\1\2.0."),
    (r"\.convc(\d)\.", r".convcorr\1."),
    (r"\.convf(\d)\.", r".convflow\1."),
    (r"^update_block\.encoder\.conv\.", "update_block.motion_encoder.conv.0."),
    (r"^update_block\.gru\.conv([zrq])(\d)\.", r"update_block.recurrent_block.convgru\2.conv\1."),
    (r"^update_block\.mask\.0\.", "mask_predictor.convrelu.0."),
    (r"^update_block\.mask\.2\.", "mask_predictor.conv."),
)
"""Names of princeton-vl/RAFT -> names here, applied one after the other; `flow_head` is called alike."""
_DUPLICATE = re.compile(r"^(module\.)?[fc]net\.layer\d\.\d\.norm3\.")
"""The original registers the norm of a shortcut twice, as norm3 and as downsample.1."""


def load_raft(weights: str | Path) -> Raft:
    """Load frozen float32 weights, in eval mode.

    Args:
        weights: A state dict of torchvision's `raft_large`, or of the original repository (raft-things.pth).

    Raises:
        RewardError: No such file, one that is no state dict, or one of another network; says where to get the weights.
    """
    state = rename_original(_read(Path(weights)))
    model = Raft()
    wanted = model.state_dict()
    for problem, keys in (
        ("lacks", [key for key in wanted if key not in state]),
        ("has the unknown", [key for key in state if key not in wanted]),
        ("has another shape of", [key for key in wanted if key in state and state[key].shape != wanted[key].shape]),
    ):
        if keys:
            raise RewardError(
                f"{weights} is not RAFT-large: it {problem} {keys[0]!r} ({len(keys)} such names). {SOURCES}"
            )
    model.load_state_dict(state)
    return model.requires_grad_(False).eval()


def rename_original(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of princeton-vl/RAFT under the names of `Raft`; any other is returned as it is.

    Args:
        state: Name -> tensor. The original is recognised by its "fnet." names, with or without "module." before them.
    """
    if not any(re.match(r"(module\.)?fnet\.", key) for key in state):
        return state
    return {_rename(key): value for key, value in state.items() if not _DUPLICATE.match(key)}


def _rename(key: str) -> str:
    for pattern, replacement in _RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise RewardError(f"There is no RAFT weight file {path}. {SOURCES}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and storage errors share no base; a torn file raises any of them
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RewardError(f"Cannot read RAFT weights from {path}: {reason}. {SOURCES}") from error
    if not (isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())):
        raise RewardError(f"{path} holds no state dict (names and tensors), so no RAFT weights. {SOURCES}")
    return state
