"""Networks that do not fit, or cannot be proved exact, are refused wherever they are loaded."""

import importlib.util
import resource
import threading
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from latentpress.codecs.network_loading import build_network, fill_network
from latentpress.codecs.registry import load
from latentpress.codecs.weights import WeightFile, read_weight_file
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


class TestSizes:
    """A configuration cannot ask for more than its file holds."""

    def test_what_fits_is_built(self):
        held = {"weight": np.zeros((3, 2)), "bias": np.zeros(3)}
        network = build_network(lambda: nn.Linear(2, 3), {}, held)
        assert network.weight.device.type == "cpu"

    def test_a_large_layer_is_given_up(self):
        with pytest.raises(ValueError, match="far larger"):
            build_network(lambda: nn.Linear(10**9, 10**9), {}, {"weight": np.zeros(8)})

    @pytest.mark.parametrize("config", [{"a": [1, {"b": 10**18}]}, {"a": -(10**18)}, {"a": (10**18,)}])
    def test_whole_numbers_however_deep(self, config):
        with pytest.raises(ValueError, match="sizes of 1000000000000000000"):
            build_network(lambda: pytest.fail("built"), config, {"weight": np.zeros(8)})

    def test_endless_layers_are_given_up(self):
        made = []

        def build() -> nn.Module:
            while True:
                made.append(nn.Linear(1, 1))

        with pytest.raises(ValueError, match="far larger"):
            build_network(build, {}, {"weight": np.zeros(8)})
        assert len(made) < 1000

    def test_other_threads_and_later_modules_do_not_count(self):
        def build() -> nn.Module:
            other = threading.Thread(target=lambda: [nn.Linear(1, 1, device="cpu") for _ in range(1000)])
            other.start()
            other.join()
            return nn.Linear(1, 1)

        build_network(build, {}, {"weight": np.zeros(2)})
        assert [nn.Linear(1, 1) for _ in range(1000)]


GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "v1"


@pytest.fixture(scope="module")
def field_weights() -> WeightFile:
    path = Path(__file__).with_name("tiny_field.py")
    spec = importlib.util.spec_from_file_location("tiny_field", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_weights()


def sizes(config: object, path: tuple = ()) -> list[tuple]:
    """Where a configuration has whole numbers."""
    if isinstance(config, dict):
        return [found for key, value in config.items() for found in sizes(value, (*path, key))]
    return [path] if isinstance(config, int) and not isinstance(config, bool) else []


def replaced(config: dict, path: tuple, value: int) -> dict:
    if not path:
        return value
    return {**config, path[0]: replaced(config[path[0]], path[1:], value)}


@pytest.mark.parametrize("value", [30_000, 1_000_000, 2**40])
@pytest.mark.parametrize("family", ["image", "index", "shape", "field"])
def test_no_size_of_a_family_costs_memory(family, value, tmp_path, request):
    """Every number of every configuration, one after the other, far beyond what the file holds."""
    if family == "field":
        weights = request.getfixturevalue("field_weights")
    else:
        weights = read_weight_file(GOLDEN / f"{family}_tiny.safetensors")
    places = sizes(dict(weights.config))
    assert len(places) > 5
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for place in places:
        config = replaced(dict(weights.config), place, value)
        path = tmp_path / "a.safetensors"
        path.write_bytes(WeightFile(family, config, weights.tensors).to_bytes())
        with pytest.raises(ValueError, match=r"asks for|fit|groups|far larger"):
            load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "KiB"
