"""A context model of side information, fitted to pictures and put into weight files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentpress.codecs.card import ModelCard, read_card
from latentpress.codecs.registry import load
from latentpress.codecs.weights import WeightFile, read_weight_file
from latentpress.models.entropy.hyperprior import ContextualHyperPrior, SideInformationDesign
from latentpress.models.entropy.latent_model import to_nearest
from latentpress.models.image.network import build_image_network
from latentpress.train import fit_side_information as module
from latentpress.train.export import export_image
from latentpress.train.fit_side_information import (
    SideInformation,
    bits_of,
    collect,
    contextual_prior,
    fit,
    main,
    with_prior,
    with_prior_of,
)

DESIGN = SideInformationDesign(8, 1)
SIZES = {"channels": 8, "deep_channels": 8, "latent_channels": 8, "depth": 1, "deep_depth": 1}
HYPER = {"hyper_channels": 4, "hyper_width": 8, "context_channels": 8, "context_depth": 1}


@pytest.fixture(scope="module")
def weights() -> WeightFile:
    torch.manual_seed(3)
    network = build_image_network(**SIZES, **HYPER)
    # So that z is more than zeros.
    network.hyper_analysis.gain.knots.data += 3
    return export_image(network.config, network.state_dict())


@pytest.fixture(scope="module")
def file(weights, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    path.write_bytes(weights.to_bytes())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Photographs of several sizes, one of them too small."""
    path = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(5)
    for number, (height, width) in enumerate([(260, 400), (640, 300), (100, 500), (800, 530)]):
        coarse = random.integers(0, 256, (height // 20, width // 20, 3), np.uint8)
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path / f"{number}.png")
    return path


def busy_and_smooth(count: int, seed: int) -> SideInformation:
    """Windows in which all channels of a position are large, or all are small."""
    random = np.random.default_rng(seed)
    size = np.exp(random.normal(0, 1.5, (count, 4, 6, 1)))
    z = torch.from_numpy(size * random.normal(0, 1, (count, 4, 6, 8))).float()
    return SideInformation(z, torch.from_numpy(random.uniform(0, 100, count)).float())


def test_fitting_finds_what_channels_have_in_common() -> None:
    torch.manual_seed(2)
    prior = ContextualHyperPrior(8, SideInformationDesign(16, 1))
    prior.raw_scale.knots.data.fill_(-0.3)
    seen, unseen = busy_and_smooth(256, 1), busy_and_smooth(64, 2)
    before = bits_of(prior, [unseen]).mean()
    fit(prior, [seen], steps=300)
    assert bits_of(prior, [unseen]).mean() < 0.9 * before


def test_windows_have_few_sizes_and_are_made_as_asked(file, folder) -> None:
    codec, paths = load(file), sorted(folder.iterdir())
    done: list[int] = []
    groups = collect(codec, paths, progress=done.append)
    assert done == [1, 2, 3, 4]
    assert sum(len(group.z) for group in groups) == 6
    for group in groups:
        assert {*group.z.shape[1:3]} <= {*module.LENGTHS}
        assert ((group.quality >= 0) & (group.quality <= 100)).all()
    for group, again in zip(groups, collect(codec, paths), strict=True):
        assert torch.equal(group.z, again.z)


def test_untrained_it_is_what_the_weights_have(file, folder) -> None:
    prior = contextual_prior(file, DESIGN)
    groups = collect(load(file), sorted(folder.iterdir()))
    side = prior.quantise(*groups[0], to_nearest)
    assert not side.mean.any()
    assert torch.equal(side.raw_scale[:, 0, 0], prior(groups[0].quality))


def test_streams_of_fitted_weights_decode(weights, file, folder, tmp_path) -> None:
    prior = contextual_prior(file, DESIGN)
    for parameter in prior.context.heads.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path / "fitted.safetensors"
    path.write_bytes(with_prior(weights, prior).to_bytes())
    codec = load(path)
    assert codec.fingerprint != weights.fingerprint()
    assert isinstance(codec.network.hyper_prior, ContextualHyperPrior)
    picture = torch.from_numpy(np.array(Image.open(folder / "0.png"))).permute(2, 0, 1)
    for options in ({"quality": 40}, {"quality": 90, "effort": 1}, {"quality": 60, "tile_size": 128}):
        data = codec.compress(picture, **options)
        codec.verify(data)
        assert codec.decompress(data).shape == picture.shape


def test_a_second_fit_goes_on_from_the_first(weights, file, tmp_path) -> None:
    prior = contextual_prior(file, DESIGN)
    for parameter in prior.context.heads.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path / "fitted.safetensors"
    path.write_bytes(with_prior(weights, prior).to_bytes())
    again = contextual_prior(path, SideInformationDesign(32, 3))
    assert again.bias.knots.shape[1] == DESIGN.channels
    torch.testing.assert_close(
        again.context.heads[1].weight, prior.context.heads[1].weight, atol=1e-3, rtol=0
    )


def test_of_other_weights(weights, file) -> None:
    fitted = with_prior(weights, contextual_prior(file, DESIGN))
    assert with_prior_of(weights, fitted).fingerprint() == fitted.fingerprint()
    with pytest.raises(ValueError, match="no context model"):
        with_prior_of(fitted, weights)
    name = "hyper_analysis.head.linear.weight"
    others = {**weights.tensors, name: weights.tensors[name] + 1}
    with pytest.raises(ValueError, match="of their own"):
        with_prior_of(WeightFile("image", weights.config, others), fitted)


def test_command_line(weights, file, folder, tmp_path, capsys) -> None:
    out, other = tmp_path / "fitted.safetensors", tmp_path / "other.safetensors"
    arguments = ["--weights", str(file), "--out", str(out), "--steps", "3", "--channels", "8"]
    card = ModelCard(
        "tiny", "image", weights.config, weights.fingerprint().hex(), 1, 1, "", "", "", "", (1, 2)
    )
    file.with_suffix(".json").write_text(card.to_json())
    main([*arguments, "--data", str(folder)])
    assert "windows held out" in capsys.readouterr().out
    fitted = read_weight_file(out)
    assert fitted.config["side_information"] == {"channels": 8, "depth": 1}
    assert read_card(out).config == fitted.config
    assert read_card(out).parameters > 1
    assert "3 steps of 16 windows" in read_card(out).training
    assert read_card(out).fingerprint == fitted.fingerprint().hex() == load(out).fingerprint.hex()
    main(["--weights", str(file), "--like", str(out), "--out", str(other)])
    assert read_weight_file(other).fingerprint() == fitted.fingerprint()
    assert "of fitted" in read_card(other).training
    for wrong in (["--data", str(tmp_path / "nowhere")], ["--like", str(file)]):
        with pytest.raises(SystemExit):
            main([*arguments, *wrong])
