"""A short name for a model's weights."""

import hashlib

from torch import nn


def weights_fingerprint(model: nn.Module) -> str:
    """Return 12 hex digits that change with any weight: what was made from these weights carries them in its name."""
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:12]
