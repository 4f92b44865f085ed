"""Directions of a lattice, found in decoded pictures and written into weights."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from latentpress.codecs.index import IndexCodec
from latentpress.codecs.weights import read_weight_file
from latentpress.train.index_lattice import DIRECTIONS, lattice_directions, main, window_means

TINY = Path(__file__).parents[1] / "golden" / "v1" / "index_tiny_residual.safetensors"


def test_means_are_of_marked_cells() -> None:
    true = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(4))
    decoded = true.clone()
    pattern = torch.linspace(-1, 1, 192).view(8, 8, 3)
    decoded[0, :32, :32] += pattern.repeat(4, 4, 1)
    mask = torch.ones(1, 8, 8).bool()
    mask[0, 0, :4] = False  # a quarter of the first window
    mask[0, :2, 4:] = False  # half of the second
    found = window_means(decoded, true, mask, 8)
    assert found.contrast.shape == (3,)
    torch.testing.assert_close(
        found.decoded - found.true, pattern.flatten() * torch.tensor([[1.0], [0], [0]])
    )
    marked = true[0, 8:32, :32].reshape(3, 8, 4, 8, 3).mean((0, 2)).flatten()
    torch.testing.assert_close(found.true[0], marked)


def test_the_lattice_of_a_decoder_is_found() -> None:
    """A pattern that a decoder adds to all quarters is in the directions, but for its smooth part."""
    codec = IndexCodec(read_weight_file(TINY))
    generator = torch.Generator().manual_seed(6)
    pattern = torch.randn(8, 8, 3, generator=generator)
    pattern /= pattern.norm()
    inner = codec.finished
    codec.finished = lambda image, grains: inner(image, grains) + 100 * _tiled(pattern, image)
    pictures = [torch.randint(0, 256, (128, 160, 3), generator=generator).byte() for _ in range(3)]
    found = lattice_directions(codec, pictures)
    assert found.medium.shape == (DIRECTIONS, 192)
    assert found.coarse.shape == (DIRECTIONS, 768)
    torch.testing.assert_close(found.medium @ found.medium.T, torch.eye(DIRECTIONS), atol=1e-4, rtol=0)
    assert float((found.medium @ pattern.flatten()).norm()) > 0.9


def _tiled(pattern: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    return pattern.repeat(image.shape[1] // 8, image.shape[2] // 8, 1)


def test_pictures_without_windows_are_refused() -> None:
    codec = IndexCodec(read_weight_file(TINY))
    with pytest.raises(ValueError, match="windows"):
        lattice_directions(codec, [torch.zeros(20, 90, 3).byte()])


def test_weights_get_directions_and_keep_their_fingerprints(photographs, tmp_path, capsys) -> None:
    path = tmp_path / "index.safetensors"
    shutil.copy(TINY, path)
    before = read_weight_file(path)
    arguments = ["--weights", str(path), "--photographs", str(photographs), "--most", "3"]
    main(arguments)
    after = read_weight_file(path)
    assert after.fingerprint() == before.fingerprint()
    assert after.extended_fingerprint() == before.extended_fingerprint()
    assert {name: array.dtype for name, array in after.appearance().items()} == {
        "lattice.coarse": np.float16,
        "lattice.medium": np.float16,
    }
    # Again, from pictures without a lattice's directions: the same.
    main(arguments)
    for name, array in read_weight_file(path).appearance().items():
        np.testing.assert_array_equal(array, after.appearance()[name])
    assert "3 of coarse cells" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--weights", str(tmp_path / "none"), "--photographs", str(photographs)])
