"""The same random weights on every machine, from a parameter's name, shape and a seed: NumPy only, no torch.

Parity tests build an original package's model and ours from them, in environments that share nothing but this file.
Matrices keep the variance of what they multiply: with the usual deviation of 0.02 a deep tower is blind to its input,
and a wrong epsilon or another resize would pass the test.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np


def random_array(key: str, shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Return one parameter, float32.

    Args:
        key: Its name in the original's state dict: equal names give equal values.
        shape: Its shape.
        seed: Another set of weights.

    Returns:
        Matrices and kernels: uniform with variance 1 / fan-in. Vectors: scales ("weight", "running_var", "gamma") in
        [0.8, 1.2], anything else in [-0.2, 0.2]. Scalars are the caller's business and come as 0.1.
    """
    if not shape:
        return np.array(0.1, dtype=np.float32)
    noise = _uniform(f"{seed}/{key}", math.prod(shape)).reshape(shape)
    if len(shape) >= 2:
        return (noise * math.sqrt(3 / math.prod(shape[1:]))).astype(np.float32)
    is_scale = key.rsplit(".", 1)[-1] in ("weight", "running_var", "gamma")
    return (0.2 * noise + is_scale).astype(np.float32)


def _uniform(text: str, count: int) -> np.ndarray:
    """Return numbers in [-1, 1): the bit stream of Philox is fixed by NumPy's promise, its distributions are not."""
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    bits = np.random.Philox(key=key).random_raw(count)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1
