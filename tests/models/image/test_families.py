"""The families of image networks, and the experiments that train them."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import yaml

from latentpress.models.image.families import build_from_config, build_image_max_network
from latentpress.models.image.network import build_image_network
from latentpress.models.mlic.design import LocalAttentionDesign, SliceContextDesign, TokenMixingDesign
from latentpress.models.mlic.schedule import SliceSchedule

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "image"
DESIGN = SliceContextDesign(8, 8, LocalAttentionDesign(8, 1))
LARGEST_FILE = 10 * 2**20


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(**options):
    torch.manual_seed(0)
    return build_image_max_network(16, 16, 16, 1, 1, 4, 8, 8, context=DESIGN, **options)


def of_experiment(name: str) -> torch.nn.Module:
    """The network of an experiment."""
    content = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    network = content["model"]["init_args"]["network"]
    assert network["class_path"] == "latentpress.models.image.families.build_image_max_network"
    return build_from_config("image-max", network["init_args"])


@pytest.mark.parametrize("mixing", [None, TokenMixingDesign(1, 2)])
def test_built_again_from_what_json_keeps(mixing) -> None:
    network = tiny(schedule=SliceSchedule.serial(4), token_mixing=mixing)
    config = json.loads(json.dumps(network.config))
    again = build_from_config(network.family, config)
    assert again.config == network.config == config
    assert again.context.schedule == network.context.schedule
    again.load_state_dict(network.state_dict())


def test_unknown_family() -> None:
    with pytest.raises(ValueError, match="image-min"):
        build_from_config("image-min", {})


def test_transforms_have_the_shapes_of_the_compact_network() -> None:
    compact = build_image_network(16, 16, 16, 1, 1, 4, 8, 8, 1).state_dict()
    larger = tiny(token_mixing=TokenMixingDesign(1, 1)).state_dict()
    for name, value in compact.items():
        if not name.startswith("context."):
            assert larger[name].shape == value.shape


@pytest.mark.parametrize("size", [(16, 16), (48, 80), (112, 16)])
@torch.no_grad()
def test_any_number_of_positions(size) -> None:
    output = tiny().eval()(torch.rand(2, *size, 3), torch.tensor([10.0, 90.0]))
    assert output.image.shape == (2, *size, 3)
    assert bool((output.y_bits > 0).all())


def test_gradients_reach_every_parameter() -> None:
    network = tiny(token_mixing=TokenMixingDesign(1, 1)).train()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    output = network(torch.rand(21, 32, 64, 3), torch.linspace(0, 100, 21))
    ((output.y_bits + output.z_bits).mean() + output.image.square().sum()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool(parameter.grad.any()), name


def test_selective_compression_saves_bits_in_validation() -> None:
    """Elements below the threshold cost nothing, and are their means."""
    torch.manual_seed(0)
    network = tiny().eval()
    with torch.no_grad():
        for stage in network.context.stages:
            for half in (stage.anchor, stage.other):
                bias = half.parameters_of.head.bias
                bias[len(bias) // 2 :] = -2.6
    with torch.no_grad():
        output = network(torch.rand(1, 32, 32, 3), torch.tensor([50.0]))
    assert float(output.y_bits) == 0


def test_what_is_not_shared_with_the_default_codec_is_small() -> None:
    network = of_experiment("image-max")
    # Integers of 16 bits, of the entropy model alone; the rest is in the weights of the default codec.
    assert 2 * sum(p.numel() for p in network.context.parameters()) < LARGEST_FILE
    assert network.context.schedule == SliceSchedule.grouped(8, core=4)
    assert network.context.parts == 2
    shipped = build_image_network().state_dict()
    own = network.state_dict()
    assert all(own[n].shape == v.shape for n, v in shipped.items() if not n.startswith("context."))


@torch.no_grad()
def test_full_size_runs() -> None:
    """MLICv2's size: 192 channels, ten slices of 32, coded one after the other."""
    network = of_experiment("image-max-full").eval()
    assert network.config["channels"] == 192
    assert network.latent_channels == 320
    assert network.context.schedule == SliceSchedule.serial(10)
    assert all(getattr(DESIGN, f.name) is not None for f in dataclasses.fields(DESIGN))
    assert all(value is not None for value in network.config["context"].values())
    assert sum(p.numel() for p in network.parameters()) > 60e6
    output = network(torch.rand(1, 32, 48, 3), torch.tensor([50.0]))
    assert output.image.shape == (1, 32, 48, 3)
    assert bool(torch.isfinite(output.y_bits).all())
