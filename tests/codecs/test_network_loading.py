"""Networks that do not fit, or cannot be proved exact, are refused wherever they are loaded."""

import numpy as np
import pytest
from torch import nn

from latentpress.codecs.network_loading import fill_network
from latentpress.models.entropy.fixed_point import InexactLayer, convert


def arrays(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


@pytest.fixture
def network() -> nn.Module:
    return nn.Sequential(convert(nn.Linear(64, 4)))


def test_fills(network) -> None:
    wanted = arrays(network)
    wanted["0.weight"][:] = 3
    fill_network(network, wanted)
    assert (arrays(network)["0.weight"] == 3).all()


def test_missing_arrays(network) -> None:
    with pytest.raises(ValueError, match="do not fit their configuration"):
        fill_network(network, {})


def test_layers_are_proved(network, monkeypatch) -> None:
    def refuse(layer) -> None:
        raise InexactLayer("a sum may round")

    monkeypatch.setattr(type(network[0]), "prove_exact", refuse)
    with pytest.raises(InexactLayer, match="a sum may round"):
        fill_network(network, arrays(network))
