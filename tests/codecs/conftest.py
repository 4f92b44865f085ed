"""A tiny image codec that really trades bytes for quality, and pictures for it."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CONFIG = {
    "channels": 12,
    "deep_channels": 48,
    "latent_channels": 48,
    "depth": 1,
    "deep_depth": 1,
    "hyper_channels": 4,
    "hyper_width": 8,
    "context_channels": 8,
    "context_depth": 1,
}

GRAINS = ("coarse", "medium", "fine")

STEPS_PER_UNIT = 20.0


def tiny_state(seed: int) -> dict[str, Any]:
    """Weights of a network whose latent is the picture's 4x4 block means, everything else a little random.

    Quality means something then: the step that the means are rounded with shrinks as it rises.
    """
    import torch

    from latentpress.models.image.network import build_image_network

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = build_image_network(**CONFIG).state_dict()
    generator = torch.Generator().manual_seed(seed)

    def noise(tensor: torch.Tensor) -> torch.Tensor:
        return torch.randn(tensor.shape, generator=generator)

    for name, tensor in state.items():
        if name.startswith(("analysis", "synthesis")) and not name.endswith("gain.knots"):
            tensor.copy_(noise(tensor) * (0.05 if "blocks" in name and "weight" in name else 0.002))
        elif name.startswith("hyper_analysis"):
            tensor.mul_(0.7)
        elif not name.endswith("gain.knots"):
            tensor.mul_(0.5).add_(noise(tensor) * 0.05)
    # Scales that rise with the quality, as trained ones do.
    line = torch.linspace(-0.5, 1.5, len(state["hyper_prior.raw_scale.knots"]))
    state["hyper_prior.raw_scale.knots"] += line[:, None]
    for step in range(4):
        state[f"context.heads.{step}.bias"][48:] += torch.randn(48, generator=generator)
    row = torch.arange(64) // 8
    column = torch.arange(64) % 8
    for block in range(4):
        inside = (row // 4 * 2 + column // 4 == block).float()
        for colour in range(3):
            pixels = torch.arange(64) * 3 + colour
            state["analysis.stem.weight"][block * 3 + colour, pixels] += inside / 16
            state["synthesis.head.weight"][pixels, block * 3 + colour] += inside
    state["analysis.down.linear.weight"] += torch.eye(48)
    state["synthesis.up.linear.weight"] += torch.eye(48)
    state["analysis.head.weight"].copy_(torch.eye(48) * STEPS_PER_UNIT)
    state["synthesis.stem.weight"].copy_(torch.eye(48) / STEPS_PER_UNIT)
    return state


@pytest.fixture(autouse=True)
def one_thread():
    """For pictures this small threads mostly wait for each other, long so where the machine is busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def second_field():
    """The second decoder of field streams, written from docs/bitstream.md."""
    path = Path(__file__).with_name("second_field_decoder.py")
    spec = importlib.util.spec_from_file_location("second_field_decoder", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_weights():
    from latentpress.train.export import export_image

    return export_image(CONFIG, tiny_state(seed=1))


def tiny_max_network(seed: int) -> Any:
    """The network with the slice-wise entropy model, with the same transforms and hyperprior."""
    import torch

    from latentpress.models.image.families import build_image_max_network
    from latentpress.models.mlic.design import LocalAttentionDesign, SliceContextDesign, TokenMixingDesign

    sizes = {name: value for name, value in CONFIG.items() if name != "context_depth"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_image_max_network(
            **sizes,
            context=SliceContextDesign(8, 8, LocalAttentionDesign(8, 1)),
            token_mixing=TokenMixingDesign(1, 1),
        )
        state = tiny_state(seed)
        with torch.no_grad():
            for name, value in network.state_dict().items():
                if name in state:
                    value.copy_(state[name])
                elif name.startswith("context."):
                    value.add_(torch.randn(value.shape) * 0.05)
            for stage in network.context.stages:
                for half in (stage.anchor, stage.other):
                    bias = half.parameters_of.head.bias
                    bias[len(bias) // 2 :] += torch.randn(len(bias) // 2)
                    # Little enough noise that quality still means something.
                    half.residual_prediction.head.weight *= 0.1
                    half.residual_prediction.head.bias *= 0.1
    return network


@pytest.fixture(scope="session")
def tiny_max_codec():
    return max_codec(tiny_max_network(seed=2))


@pytest.fixture(scope="session")
def patient_max_codec():
    """The same, but all elements are coded, whatever their random scales."""
    import torch

    network = tiny_max_network(seed=2)
    with torch.no_grad():
        for stage in network.context.stages:
            for half in (stage.anchor, stage.other):
                half.selective.head.bias -= 1
    return max_codec(network)


def max_codec(network: Any) -> Any:
    from latentpress.codecs.image import ImageCodec
    from latentpress.train.export import export_image

    return ImageCodec(export_image(network.config, network.state_dict(), family=network.family))


@pytest.fixture(scope="session")
def contextual_codec():
    """The tiny codec with a context model of its side information, which has something to say."""
    import torch

    from latentpress.codecs.image import ImageCodec
    from latentpress.models.entropy.hyperprior import SideInformationDesign
    from latentpress.models.image.network import build_image_network
    from latentpress.train.export import export_image

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = build_image_network(**CONFIG, side_information=SideInformationDesign(6, 2))
        for name, value in network.hyper_prior.context.state_dict().items():
            value += torch.randn(value.shape) * (0.5 if name.startswith("heads") else 0.1)
    state = {**network.state_dict(), **tiny_state(seed=1)}
    return ImageCodec(export_image(network.config, state))


@pytest.fixture(scope="session")
def tiny_codec(tiny_weights):
    from latentpress.codecs.image import ImageCodec

    return ImageCodec(tiny_weights)


@pytest.fixture(scope="session")
def picture() -> Callable[..., Any]:
    """Makes pictures with slopes, an edge and some noise: uint8, (channels, height, width)."""
    import torch

    def make(height: int = 40, width: int = 56, channels: int = 3, seed: int = 0) -> torch.Tensor:
        random = np.random.default_rng(seed)
        y, x = np.mgrid[0:height, 0:width]
        planes = [
            90 + 60 * np.sin(x / (9 + c) + seed) + 50 * np.cos(y / (13 - c)) + 40 * (x > y + c)
            for c in range(channels)
        ]
        noisy = np.stack(planes) + random.normal(0, 2, (channels, height, width))
        return torch.from_numpy(noisy.clip(0, 255).astype(np.uint8))

    return make


INDEX_CONFIG = {
    "codes": 64,
    "code_channels": 4,
    **{f"{part}_{width}_channels": 8 for part in ("encoder", "decoder", "prior") for width in GRAINS},
    **{f"{part}_{width}_depth": 1 for part in ("encoder", "decoder", "prior") for width in GRAINS},
    "condition_channels": 4,
}


@pytest.fixture(scope="session")
def tiny_index_weights():
    """A model whose weights are noise, so that indices, their predictions and pictures all vary."""
    import torch

    from latentpress.models.index.model import build_index_model
    from latentpress.models.index.quantiser import unit_vectors
    from latentpress.train.export_index import export_index

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = build_index_model(**INDEX_CONFIG)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        model.books.fill(unit_vectors(torch.randn(64, 4)), torch.rand(64), model.encoder.heads[0])
    return export_index(model.config, model.state_dict())


@pytest.fixture(scope="session")
def tiny_index_codec(tiny_index_weights):
    from latentpress.codecs.index import IndexCodec

    return IndexCodec(tiny_index_weights)


@pytest.fixture(scope="session")
def tiny_residual_weights(tiny_index_weights):
    """The same with 16 patches of noise."""
    import torch

    from latentpress.codecs.index_residual import CLASSES, PATCH, ResidualBook
    from latentpress.train.index_residual import tables_of_counts, with_residual_book

    patches = 0.15 * torch.randn((16, PATCH), generator=torch.Generator().manual_seed(3))
    patches[0] = 0
    patches = patches.half()[patches.square().sum(dim=1).argsort()]
    counts = np.random.default_rng(3).integers(1, 4000, (CLASSES, 16)).astype(np.float64)
    return with_residual_book(tiny_index_weights, ResidualBook(patches, tables_of_counts(counts)))


@pytest.fixture(scope="session")
def tiny_residual_codec(tiny_residual_weights):
    from latentpress.codecs.index import IndexCodec

    return IndexCodec(tiny_residual_weights)


@pytest.fixture(scope="session")
def field_codec(field_helper) -> Any:
    """A tiny field codec of two ratios for waves, see ``field_weights.py``; made once, it takes a while."""
    from latentpress.codecs.field import FieldCodec

    return FieldCodec(field_helper.field_weights())


@pytest.fixture(scope="session")
def shape_codec(shape_helper) -> Any:
    """A tiny shape codec that makes spheres, see ``shape_weights.py``."""
    from latentpress.codecs.shape import ShapeCodec

    return ShapeCodec(shape_helper.make_weights())
