"""Training products in bfloat16 where autocast does not reach."""

import contextlib
import types
from collections.abc import Iterator

from torch import Tensor, nn


@contextlib.contextmanager
def bfloat16_linears(model: nn.Module) -> Iterator[None]:
    """Multiply in bfloat16 within every Linear of a model, and keep the rest in float32.

    Autocast's attention backward is 7 times slower on a CPU, and rewards switch autocast off.
    """
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]

    def forward(linear: nn.Linear, x: Tensor) -> Tensor:
        bias = None if linear.bias is None else linear.bias.bfloat16()
        return nn.functional.linear(x.bfloat16(), linear.weight.bfloat16(), bias).float()

    for linear in linears:
        linear.forward = types.MethodType(forward, linear)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for linear in linears:
            del linear.forward
