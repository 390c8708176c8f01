"""What the scripts that record originals share; they import it by name, from their own folder."""

import importlib.metadata

import torch

_KEPT: list[torch.library.Library] = []
"""Operators exist as long as the library that defines them."""


def samples(tensor: torch.Tensor) -> dict[str, object]:
    """Return the sum and about 48 evenly spread elements."""
    flat = tensor.flatten()
    step = len(flat) // 48
    return {"sum": float(flat.double().sum()), "every": step, "values": flat[::step].tolist()}


def define_missing_operators() -> None:
    """Let torchvision be imported where its compiled operators are missing; nothing here calls them."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT.append(library)


def versions(*names: str) -> dict[str, str]:
    """Return the versions of installed packages."""
    return {name: importlib.metadata.version(name) for name in names}
