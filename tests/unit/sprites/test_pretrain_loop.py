"""Pre-training goes on after a kill as if nothing had happened, and never from another recipe's state."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rlhf_video.data.fingerprint import weights_fingerprint
from rlhf_video.errors import CheckpointError
from rlhf_video.sprites.pretrain.loop import fit


class Killed(Exception):
    """Stands for the end of the process."""


def _fit(work: Path, *, kill_at: int | None = None, adamw_rate: float = 0.05) -> nn.Sequential:
    """Fit a line through two layers: Muon trains the one inside the list of blocks, AdamW the head."""
    torch.manual_seed(0)
    model = nn.Sequential(OrderedDict(blocks=nn.Sequential(nn.Linear(3, 3, bias=False)), head=nn.Linear(3, 1)))

    def loss_at(step: int) -> Tensor:
        if step == kill_at:
            raise Killed
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        return (model(x) - x.sum(1, keepdim=True)).square().mean()

    fit(
        model, loss_at, num_steps=220, adamw_rate=adamw_rate, state_file=work / "state.pt", autocast=False,
        warmup=10, ema_decay=0.9,
    )  # fmt: skip
    return model


def test_a_killed_run_ends_with_the_straight_runs_weights(tmp_path: Path) -> None:
    straight = _fit(tmp_path / "straight")
    with pytest.raises(Killed):
        _fit(tmp_path / "killed", kill_at=150)
    resumed = _fit(tmp_path / "killed")
    assert weights_fingerprint(resumed) == weights_fingerprint(straight)
    line = straight(torch.eye(3)) - straight(torch.zeros(1, 3))
    assert line.detach().numpy() == pytest.approx(1, abs=0.1)


def test_the_state_of_another_recipe_is_refused(tmp_path: Path) -> None:
    _fit(tmp_path)
    with pytest.raises(CheckpointError, match="another recipe"):
        _fit(tmp_path, adamw_rate=0.01)
