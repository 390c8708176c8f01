"""LPIPS's networks in plain torch, loaded from torchvision's and LPIPS's own files.

Zhang et al. 2018 (arXiv:1801.03924), version 0.1: AlexNet or VGG-16 up to its last convolution, the features after five
of its ReLUs, and one weight per channel.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from rewards.errors import RewardError
from rewards.weight_files import load_strictly, read_state
from rlhf_video.errors import ConfigError

Network = Literal["alex", "vgg"]

TORCHVISION_FILES: dict[str, str] = {
    "alex": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    "vgg": "https://download.pytorch.org/models/vgg16-397923af.pth",
}
"""Where the networks' ImageNet weights lie."""
LINEAR_FILES = "lpips/weights/v0.1/{alex,vgg}.pth of the Python package lpips or its repository"
_TAPS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}
"""Places of the ReLUs after which features are read."""
_CHANNELS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""LPIPS's scaling layer: ImageNet's statistics for pixels in [-1, 1]."""
_TINY = 1e-10


class LpipsModel(nn.Module):
    """The distance of frames, with random weights until they are loaded."""

    shift: Tensor
    scale: Tensor

    def __init__(self, network: Network) -> None:
        """Build the network.

        Args:
            network: "alex" or "vgg".

        Raises:
            ConfigError: Neither.
        """
        super().__init__()
        if network not in _TAPS:
            raise ConfigError(f"Unknown LPIPS network {network!r}. Known: {', '.join(_TAPS)}.")
        self._taps = _TAPS[network]
        self.features = _alex() if network == "alex" else _vgg()
        self.linear = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=False) for width in _CHANNELS[network])
        self.register_buffer("shift", torch.tensor(_SHIFT).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(3, 1, 1), persistent=False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the distances (n,) of frames (n, 3, height, width) in [0, 1]."""
        distance = torch.zeros(len(first), dtype=first.dtype, device=first.device)
        pairs = zip(self._read(first), self._read(second), strict=True)
        for weigh, (one, other) in zip(self.linear, pairs, strict=True):
            distance = distance + weigh((one - other).square()).mean(dim=(1, 2, 3))
        return distance

    def _read(self, frames: Tensor) -> list[Tensor]:
        """Return the features at the taps, each place's channels of unit length."""
        found = []
        hidden = (2 * frames - 1 - self.shift) / self.scale
        for place, layer in enumerate(self.features):
            hidden = layer(hidden)
            if place in self._taps:
                length = hidden.square().sum(dim=1, keepdim=True).sqrt()
                found.append(hidden / (length + _TINY))
        return found


def load_lpips(network: Network, *, backbone: str | Path, linear: str | Path) -> LpipsModel:
    """Load the distance, frozen, in float32.

    Args:
        network: "alex" or "vgg".
        backbone: torchvision's file of the network, with its "features.*" (its classifier is left out).
        linear: LPIPS's own file of version 0.1, with its "lin0.model.1.weight" and so on.

    Raises:
        ConfigError: Unknown network.
        RewardError: A file is missing, corrupt, or of another network.
    """
    model = LpipsModel(network)
    for part, path, translate in ((model.features, backbone, _features), (model.linear, linear, _weights)):
        if not Path(path).is_file():
            raise RewardError(
                f"There is no weight file {path}. LPIPS ({network}) takes backbone: the file of "
                f"{TORCHVISION_FILES[network]}, and linear: {LINEAR_FILES}."
            )
        load_strictly(part, translate(read_state(Path(path))), source=path)
    return model.requires_grad_(False).eval()


def _features(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the convolutions of a torchvision network."""
    return {
        name.removeprefix("features."): value for name, value in state.items() if not name.startswith("classifier.")
    }


def _weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return "0.weight" and so on of LPIPS's "lin0.model.1.weight"; other names stay and are refused."""
    return {name.removeprefix("lin").replace(".model.1.", "."): value for name, value in state.items()}


def _alex() -> nn.Sequential:
    """Return torchvision's `alexnet().features` without the last pooling."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


def _vgg() -> nn.Sequential:
    """Return torchvision's `vgg16().features` without the last pooling."""
    layers: list[nn.Module] = []
    before = 3
    for width, convolutions in zip(_CHANNELS["vgg"], (2, 2, 3, 3, 3), strict=True):
        layers += [nn.MaxPool2d(2, 2)] if layers else []
        for _ in range(convolutions):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
    return nn.Sequential(*layers)
