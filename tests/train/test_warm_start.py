"""Weights that are taken over from another network, and what they compute there."""

import pytest
import torch

from latentpress.models.image.families import build_image_max_network
from latentpress.models.image.network import build_image_network
from latentpress.models.mlic.design import SliceContextDesign, TokenMixingDesign
from latentpress.train.export import export_image
from latentpress.train.image_module import ImageTraining
from latentpress.train.warm_start import core_channels, sort_latent, warm_start

SHARED = ("analysis.", "synthesis.", "gain.", "inverse_gain.", "hyper_analysis.", "hyper_prior.")


@pytest.fixture
def source(tiny_config, tiny_state):
    network = build_image_network(**tiny_config)
    network.load_state_dict(tiny_state)
    return network.eval()


@pytest.fixture
def target(tiny_config):
    sizes = {name: value for name, value in tiny_config.items() if name != "context_depth"}
    torch.manual_seed(3)
    design = SliceContextDesign(width=8, channel_context=8)
    return build_image_max_network(**sizes, context=design, token_mixing=TokenMixingDesign(1, 1)).eval()


@pytest.fixture(params=["checkpoint", "weights"])
def path(request, source, tmp_path):
    if request.param == "weights":
        found = tmp_path / "image.safetensors"
        found.write_bytes(export_image(source.config, source.state_dict()).to_bytes())
        return found
    found = tmp_path / "last.ckpt"
    state = {f"network.{name}": value for name, value in source.state_dict().items()}
    torch.save({"state_dict": state, "network_config": dict(source.config)}, found)
    return found


@torch.no_grad()
def test_the_transforms_compute_the_same(source, target, path) -> None:
    taken = warm_start(target, path)
    image, quality = torch.rand(2, 48, 64, 3), torch.tensor([20.0, 80.0])
    expected = source.analysis(image, quality) * source.gain(quality)[:, None, None, :]
    found = target.analysis(image, quality) * target.gain(quality)[:, None, None, :]
    order = sort_latent(source, core_channels(target))
    tolerance = {"rtol": 2e-3, "atol": 2e-2} if path.suffix == ".safetensors" else {}
    torch.testing.assert_close(found, expected[..., order], **tolerance)
    decoded = [
        net.synthesis(x * net.inverse_gain(quality)[:, None, None, :], quality)
        for net, x in ((source, expected[..., order]), (target, found))
    ]
    torch.testing.assert_close(decoded[1], decoded[0], **tolerance)
    assert all(
        name in taken.taken
        for name in target.state_dict()
        if name.startswith(SHARED) and "mixers" not in name
    )
    assert all(name.startswith("context.") or "mixers" in name for name in taken.fresh)


@torch.no_grad()
def test_a_deeper_network_computes_the_same(source, path) -> None:
    deeper = {
        **source.config,
        "depth": source.config["depth"] + 2,
        "deep_depth": source.config["deep_depth"] + 1,
    }
    network = build_image_network(**deeper).eval()
    taken = warm_start(network, path)
    image, quality = torch.rand(1, 48, 64, 3), torch.tensor([40.0])
    tolerance = {"rtol": 2e-3, "atol": 2e-2} if path.suffix == ".safetensors" else {}
    torch.testing.assert_close(network.analysis(image, quality), source.analysis(image, quality), **tolerance)
    y = torch.randn(1, 3, 4, source.latent_channels)
    torch.testing.assert_close(network.synthesis(y, quality), source.synthesis(y, quality), **tolerance)
    assert taken.fresh
    assert all("blocks." in name for name in taken.fresh)
    with pytest.raises(ValueError, match="do not fit"):
        warm_start(build_image_network(**{**source.config, "depth": 0}), path)


def test_training_starts_there(source, target, path, make_trainer, photographs) -> None:
    from latentpress.train.data.images import ImageDataModule
    from latentpress.train.initialise import PrincipalComponents

    module = ImageTraining(target.train(), init_from=str(path), lr=1e-9)
    before = target.analysis.stem.weight.detach().clone()
    data = ImageDataModule(str(photographs), crop_size=64, batch_size=2, workers=1)
    make_trainer(callbacks=[PrincipalComponents()], max_steps=1).fit(module, data)
    torch.testing.assert_close(target.analysis.stem.weight.detach(), before, atol=1e-6, rtol=0)


def test_transforms_of_another_size(target, tmp_path) -> None:
    other = build_image_network(4, 4, 4, 1, 1, 2, 4, 4, 1)
    path = tmp_path / "other.safetensors"
    weights = export_image(other.config, other.state_dict())
    path.write_bytes(weights.to_bytes())
    with pytest.raises(ValueError, match="do not fit this network"):
        warm_start(target, path)
