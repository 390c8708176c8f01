"""KTO's reference point: the one number of a step that needs all of the global batch before any of it is trained.

z is a mean over the clips of every process and of every micro-batch, and the loss of each clip depends on it. So their
errors are computed once without gradient first, two more forward passes a pair; z is detached, hence the gradient that
follows is the exact one in one piece or many, both members at once or one after the other.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rlhf_video.algorithms.dpo_loss import PairErrors
from rlhf_video.algorithms.dpo_metrics import Table
from rlhf_video.algorithms.dpo_rows import pair_errors
from rlhf_video.algorithms.dpo_setup import Trained


@torch.no_grad()
def look_ahead(
    trained: Trained, visits: Sequence[tuple[int, int]], pieces: Sequence[Sequence[int]], beta: float
) -> tuple[Tensor, list[PairErrors]]:
    """Return z of a global batch, scalar, and the reference's errors of each of this process's micro-batches.

    Call it on every process.

    Args:
        trained: Model, pairs, reference.
        visits: (index of a pair, number of its visit) over the global batch.
        pieces: Places in it of each micro-batch, from `cut_padded`.
        beta: Pull to the reference.
    """
    loss, parts = trained.config.loss, []
    for places in pieces:
        rows, is_fill = trained.piece(visits, places)
        policy = pair_errors(trained.world.backbone, rows, loss)
        parts.append((rows.without_latents(), policy, trained.reference_errors(rows), is_fill))
    table = Table.gather(parts, trained.learner.distribution, width=trained.pairs.num_segments)
    return table.reference_point(loss, beta).to(trained.world.backbone.device), [part[2] for part in parts]
