"""Two image networks in one: what is joined comes apart again as it was."""

import pytest
import torch
from safetensors.torch import load_file

from latentpress.models.channel_order.permutation import permute_latent
from latentpress.models.image.families import build_from_config, build_image_max_network, build_image_network
from latentpress.models.mlic.design import SliceContextDesign
from latentpress.train.twin_weights import Pair, join, main, split
from latentpress.train.warm_start import copy_matching, network_in

SIZES = {"channels": 16, "deep_channels": 16, "latent_channels": 16, "depth": 1, "deep_depth": 1}
HYPER = {"hyper_channels": 4, "hyper_width": 8, "context_channels": 8}


@pytest.fixture
def pair() -> Pair:
    torch.manual_seed(4)
    image = build_image_network(**SIZES, **HYPER)
    image_max = build_image_max_network(
        **SIZES, **HYPER, context=SliceContextDesign(width=8, channel_context=8, selective=None)
    )
    sorted_image = build_image_network(**SIZES, **HYPER)
    sorted_image.load_state_dict(image.state_dict())
    permute_latent(sorted_image, torch.randperm(16), allow_retraining=True)
    state = {k: v for k, v in sorted_image.state_dict().items() if not k.startswith("context.")}
    copy_matching(image_max, state)
    return Pair(image, image_max)


def test_split_undoes_join(pair) -> None:
    before = [{k: v.clone() for k, v in network.state_dict().items()} for network in pair]
    found = split(join(pair))
    for expected, network in zip(before, found, strict=True):
        assert list(expected) == list(network.state_dict())
        for name, value in network.state_dict().items():
            assert torch.equal(value, expected[name]), name


def test_join_leaves_both_as_they_are(pair) -> None:
    before = [{k: v.clone() for k, v in network.state_dict().items()} for network in pair]
    join(pair)
    for expected, network in zip(before, pair, strict=True):
        for name, value in network.state_dict().items():
            assert torch.equal(value, expected[name]), name


def test_added_blocks_change_nothing(pair) -> None:
    known = len(pair.image_max.context.blocks)
    added = join(pair, shared_blocks=known + 2)
    assert len(added.context.blocks) == added.config["context"]["shared_blocks"] == known + 2
    image, quality = torch.rand(1, 64, 64, 3), torch.tensor([60.0])
    with torch.no_grad():
        expected = pair.image_max.eval()(image, quality)
        found = split(added).image_max.eval()(image, quality)
    assert torch.equal(found.y_bits, expected.y_bits)
    assert torch.equal(found.image, expected.image)


def test_blocks_are_not_taken_away(pair) -> None:
    with pytest.raises(ValueError, match="already"):
        join(pair, shared_blocks=0)


def test_commands_join_and_split_files(pair, tmp_path) -> None:
    for network in pair:
        checkpoint = {
            "state_dict": {f"network.{k}": v for k, v in network.state_dict().items()},
            "network_family": network.family,
            "network_config": dict(network.config),
        }
        torch.save(checkpoint, tmp_path / f"{network.family}.ckpt")
    files = ["--image", str(tmp_path / "image.ckpt"), "--image-max", str(tmp_path / "image-max.ckpt")]
    main(["join", *files, "--out", str(tmp_path / "twin.safetensors")])
    twin = join(pair)
    again = build_from_config(twin.family, twin.config)
    again.load_state_dict(load_file(tmp_path / "twin.safetensors"))
    checkpoint = {
        "state_dict": {f"network.{k}": v for k, v in again.state_dict().items()},
        "network_family": twin.family,
        "network_config": dict(twin.config),
        "lambda_range": (0.0006, 0.14),
    }
    torch.save(checkpoint, tmp_path / "twin.ckpt")
    main(["split", "--twin", str(tmp_path / "twin.ckpt"), "--out", str(tmp_path / "parts")])
    for network in pair:
        found = network_in(tmp_path / "parts" / f"{network.family}.ckpt")
        for name, value in found.state_dict().items():
            assert torch.equal(value, network.state_dict()[name]), name


def test_networks_of_the_wrong_family_are_refused(pair, tmp_path, capsys) -> None:
    torch.save(
        {
            "state_dict": {f"network.{k}": v for k, v in pair.image.state_dict().items()},
            "network_family": "image",
            "network_config": dict(pair.image.config),
        },
        tmp_path / "image.ckpt",
    )
    with pytest.raises(SystemExit):
        main(["split", "--twin", str(tmp_path / "image.ckpt"), "--out", str(tmp_path)])
    assert "does not hold a network of image-twin" in capsys.readouterr().err
