import pytest
import torch
from torch import nn

from rlhf_video.errors import ConfigError
from rlhf_video.lora import Ema


def _parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([[4.0]]))]


def test_the_average_follows_with_the_decay() -> None:
    parameters = _parameters()
    ema = Ema(parameters, decay=0.75)
    parameters[0].data.fill_(5.0)
    ema.update()
    with ema.swapped():
        assert parameters[0].tolist() == [2.0, 2.75]
        assert parameters[1].tolist() == [[4.0]]


def test_swapping_shows_the_average_and_returns_the_trained_values_bit_equal() -> None:
    parameters = _parameters()
    ema = Ema(parameters, decay=0.5)
    trained = torch.randn(2)
    parameters[0].data.copy_(trained)
    with ema.swapped():
        assert parameters[0].tolist() == [1.0, 2.0]
    assert torch.equal(parameters[0].data, trained)
    with pytest.raises(KeyError), ema.swapped():
        raise KeyError
    assert torch.equal(parameters[0].data, trained)
    assert parameters[0].requires_grad


def test_decay_zero_follows_exactly() -> None:
    parameters = _parameters()
    ema = Ema(parameters, decay=0.0)
    trained = torch.randn(2)
    parameters[0].data.copy_(trained)
    ema.update()
    with ema.swapped():
        assert torch.equal(parameters[0].data, trained)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_outside_the_range_is_refused(decay: float) -> None:
    with pytest.raises(ConfigError, match="decay"):
        Ema(_parameters(), decay=decay)
