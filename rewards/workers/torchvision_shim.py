"""Lets torchvision be imported beside a torch without CUDA: copied into a worker's environment, started by a .pth file.

The one torchvision wheel on the package index is built for CUDA. Beside a CPU torch its compiled operators do not load,
and the import fails because it registers rules for `nms` and `qnms`, which are then unknown. Declaring the two names is
enough for everything that does not call them. Nothing is done beside a torch with CUDA.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class DeclareOperators(MetaPathFinder):
    """Declares the operators at the first import of torchvision, then steps aside: no other program pays for torch."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find nothing; see the class."""
        if name == "torchvision":
            sys.meta_path.remove(self)
            declare()
        return None


def declare() -> None:
    """Declare `torchvision::nms` and `torchvision::qnms`, without an implementation."""
    import torch

    if torch.version.cuda is None:
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)  # an operator lives as long as its library object


_kept: list[object] = []
sys.meta_path.insert(0, DeclareOperators())
