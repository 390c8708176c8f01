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
    assert ema.state_dict()["0000"].tolist() == [2.0, 2.75]
    assert ema.state_dict()["0001"].tolist() == [[4.0]]


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


def test_decay_zero_follows_exactly_and_state_goes_round() -> None:
    parameters = _parameters()
    ema = Ema(parameters, decay=0.0)
    parameters[0].data.copy_(torch.randn(2))
    ema.update()
    assert torch.equal(ema.state_dict()["0000"], parameters[0].data)
    other = Ema(_parameters(), decay=0.0)
    other.load_state_dict(ema.state_dict())
    assert torch.equal(other.state_dict()["0000"], parameters[0].data)


def test_bad_decay_and_foreign_state_are_refused() -> None:
    for decay in (-0.1, 1.0):
        with pytest.raises(ConfigError, match="decay"):
            Ema(_parameters(), decay=decay)
    ema = Ema(_parameters(), decay=0.5)
    with pytest.raises(ConfigError, match="1 tensors"):
        ema.load_state_dict({"0000": torch.zeros(2)})
    with pytest.raises(ConfigError, match="shape"):
        ema.load_state_dict({"0000": torch.zeros(3), "0001": torch.zeros(1, 1)})
