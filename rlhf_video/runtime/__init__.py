"""What a run needs around its maths: a directory, metrics, checkpoints, seeds, memory, and one or many processes."""

from rlhf_video.runtime.batches import cut_equally, cut_padded
from rlhf_video.runtime.distribution import Distribution, create_accelerator
from rlhf_video.runtime.memory import Peak, measure_peak, peak_memory
from rlhf_video.runtime.metrics import read_metrics
from rlhf_video.runtime.run import Run
from rlhf_video.runtime.seeding import deck_batch, generator_for, rng_state, set_rng_state

__all__ = [
    "Distribution",
    "Peak",
    "Run",
    "create_accelerator",
    "cut_equally",
    "cut_padded",
    "deck_batch",
    "generator_for",
    "measure_peak",
    "peak_memory",
    "read_metrics",
    "rng_state",
    "set_rng_state",
]
