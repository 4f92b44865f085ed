"""Weight files that leave out what another one has."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save

from latentpress.codecs.registry import load
from latentpress.codecs.shared_weights import ORDER, with_shared, without_shared
from latentpress.codecs.weights import SHARED, WeightFile, read_weight_file
from latentpress.models.image.families import build_image_max_network
from latentpress.models.image.network import build_image_network
from latentpress.models.mlic.design import SliceContextDesign
from latentpress.train.export import export_image
from latentpress.train.share_weights import main, share_weights
from latentpress.train.warm_start import warm_start

SIZES = (16, 16, 16, 1, 1, 4, 8, 8)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An image codec, and image-max with its transforms, whose channels are sorted: both complete."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(4)
    image = build_image_network(*SIZES, 1)
    bytes_for = ["*.blocks.*"]
    weights = export_image(image.config, image.state_dict(), matrices_in_bytes=bytes_for)
    (folder / "base.safetensors").write_bytes(weights.to_bytes())
    network = build_image_max_network(*SIZES, context=SliceContextDesign(width=8, channel_context=8))
    warm_start(network, folder / "base.safetensors")
    largest = export_image(network.config, network.state_dict(), family="image-max")
    (folder / "whole.safetensors").write_bytes(largest.to_bytes())
    share_weights(folder / "whole.safetensors", folder / "base.safetensors", folder / "max.safetensors")
    return folder


def test_the_shared_file_is_a_fraction(files) -> None:
    stored = set(load_file(files / "max.safetensors"))
    assert ORDER in stored
    assert all(name.startswith(("context.", "tables.", ORDER)) for name in stored)
    assert (files / "max.safetensors").stat().st_size < (files / "whole.safetensors").stat().st_size


def test_it_reads_as_a_whole(files) -> None:
    found, whole = (read_weight_file(files / f"{name}.safetensors") for name in ("max", "whole"))
    assert found.family == "image-max"
    assert found.config == whole.config
    alone = files / "alone.safetensors"
    alone.write_bytes(found.to_bytes())
    again = read_weight_file(alone, shared=False)
    assert again.fingerprint() == found.fingerprint()
    assert set(again.tensors) == set(found.tensors)


@torch.no_grad()
def test_channels_are_sorted(files) -> None:
    """Latents are those of the complete file, up to the rounding of matrices; so are pictures of latents."""
    order = load_file(files / "max.safetensors")[ORDER]
    assert order.tolist() != sorted(order.tolist())
    shared, whole = (load(files / f"{name}.safetensors").network for name in ("max", "whole"))
    picture, quality = torch.rand(1, 64, 48, 3), torch.tensor([70.0])
    y, expected = (n.analysis(picture, quality) * n.gain(quality)[:, None, None] for n in (shared, whole))
    near = 0.02 * float(expected.abs().max())
    torch.testing.assert_close(y, expected, rtol=0, atol=near)
    assert (y - expected[..., order.argsort()]).abs().max() > 10 * near
    pictures = [
        n.synthesis(expected * n.inverse_gain(quality)[:, None, None], quality) for n in (shared, whole)
    ]
    torch.testing.assert_close(*pictures, rtol=0, atol=0.02)


def test_a_complete_file_decodes_streams_of_the_shared_one(files) -> None:
    data = load(files / "max.safetensors").compress(torch.rand(3, 32, 32))
    alone = files / "again.safetensors"
    alone.write_bytes(read_weight_file(files / "max.safetensors").to_bytes())
    assert load(alone).decompress(data).shape == (3, 32, 32)


def _rewritten(files, tmp_path, **changes):
    """A copy of the shared file, beside its base, with another description or other arrays."""
    shutil.copy(files / "base.safetensors", tmp_path / "base.safetensors")
    with safe_open(files / "max.safetensors", framework="np") as file:
        metadata = dict(file.metadata())
    arrays = load_file(files / "max.safetensors")
    description = json.loads(metadata[SHARED]) | changes.pop("description", {})
    metadata[SHARED] = changes.pop("text", json.dumps(description))
    path = tmp_path / "max.safetensors"
    path.write_bytes(save(arrays | changes, metadata))
    return path


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"text": "[]"}, "not told"),
        ({"text": "{"}, "not told"),
        ({"description": {"name": "../base"}}, "cannot be the name"),
        ({"description": {"name": 3}}, "cannot be the name"),
        ({"description": {"name": "elsewhere"}}, "not beside it"),
        ({"description": {"fingerprint": "00" * 8}}, "another"),
        ({"description": {"arrays": ["analysis.no"]}}, "not arrays of that file"),
        ({"description": {"arrays": 3}}, "not told"),
        ({ORDER: np.zeros(16, np.int32)}, "no order"),
        ({ORDER: np.arange(9, dtype=np.int32)}, "no order"),
        ({"gain.knots": np.zeros(3, np.float32)}, "not arrays of that file"),
    ],
)
def test_what_does_not_fit_is_told(files, tmp_path, changes, told) -> None:
    path = _rewritten(files, tmp_path, **changes)
    with pytest.raises(ValueError, match=told) as error:
        read_weight_file(path)
    assert str(path) in str(error.value)


def test_no_chains(files, tmp_path) -> None:
    path = _rewritten(files, tmp_path)
    shutil.copy(path, tmp_path / "base.safetensors")
    with pytest.raises(ValueError, match="third file"):
        read_weight_file(path)


def test_nothing_in_common() -> None:
    first, second = (WeightFile("image", {}, {name: np.ones(2)}) for name in "ab")
    with pytest.raises(ValueError, match="nothing in common"):
        without_shared(first, second, "second")
    with pytest.raises(ValueError, match="cannot be the name"):
        without_shared(first, first, "a/b")
    with pytest.raises(ValueError, match="not told"):
        with_shared(first, "null", None)


def test_other_transforms_are_refused(files, tmp_path, capsys) -> None:
    torch.manual_seed(5)
    other = build_image_network(*SIZES, 1)
    path = tmp_path / "other.safetensors"
    path.write_bytes(export_image(other.config, other.state_dict()).to_bytes())
    with pytest.raises(SystemExit):
        main(
            ["--weights", str(files / "whole.safetensors"), "--base", str(path), "--out", str(tmp_path / "x")]
        )
    assert "not that of the other weights" in capsys.readouterr().err
