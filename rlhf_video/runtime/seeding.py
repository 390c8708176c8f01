"""Randomness that depends on what is drawn, never on how many processes draw it or on what was drawn before."""

import hashlib
import random
from typing import cast

import numpy as np
import torch


def generator_for(seed: int, *names: int | str) -> torch.Generator:
    """Return a fresh CPU generator whose stream is fixed by the seed and the names alone.

    A draw named by (seed, "noise", step, prompt index) is the same in one process and in eight, in a straight run and
    in a resumed one, which a shared, advancing generator cannot give.

    Args:
        seed: The run's seed.
        names: What the draw is for. 1 and "1" are different names.
    """
    text = "\0".join(f"{type(name).__name__}:{name}" for name in (seed, *names))
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def deck_batch(num_items: int, batch: int, *, step: int, seed: int, name: str = "prompt order") -> list[int]:
    """Return the items of one optimiser step: the next ones of an endless deck that is reshuffled when it is used up.

    A pure function of seed and step, so resuming needs no state.

    Args:
        num_items: Size of the deck.
        batch: Items per step; may exceed the deck.
        step: Optimiser step 0, 1, ...
        seed: The run's seed.
        name: Which deck; others are shuffled otherwise.
    """
    chosen: list[int] = []
    while len(chosen) < batch:
        epoch, place = divmod(step * batch + len(chosen), num_items)
        deck = torch.randperm(num_items, generator=generator_for(seed, name, epoch))
        chosen += deck[place : place + batch - len(chosen)].tolist()
    return chosen


def rng_state() -> dict[str, object]:
    """Return the state of every global generator (Python, NumPy, torch, CUDA) as tensors and plain values."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = cast(
        tuple[str, np.ndarray, int, int, float],
        np.random.get_state(legacy=True),  # noqa: NPY002
    )
    return {
        "python": (version, torch.tensor(words, dtype=torch.int64), gauss),
        "numpy": (str(name), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, object]) -> None:
    """Restore what `rng_state` returned. CUDA states are restored for the devices that exist here."""
    version, words, gauss = cast(tuple[int, torch.Tensor, float | None], state["python"])
    random.setstate((version, tuple(words.tolist()), gauss))
    name, keys, position, has_gauss, cached = cast(tuple[str, torch.Tensor, int, int, float], state["numpy"])
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(cast(torch.Tensor, state["torch"]))
    for device, cuda_state in enumerate(cast(list[torch.Tensor], state["cuda"])):
        if device < torch.cuda.device_count():
            torch.cuda.set_rng_state(cuda_state, device)
