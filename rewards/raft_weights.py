"""Published weights of RAFT-large, in torchvision's names or in those of the original repository."""

import re
from pathlib import Path

from torch import Tensor

from rewards.raft import Raft
from rewards.weight_files import load_strictly, read_state, resolve

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
        weights: Name in `rewards.ledger`, or a file: a state dict of torchvision's `raft_large`, or of the original
            repository (raft-things.pth, the same weights).

    Raises:
        RewardError: No such file, one that is no state dict, or one of another network.
    """
    path = resolve(weights)
    model = Raft()
    load_strictly(model, rename_original(read_state(path)), source=path)
    return model


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
