"""The measure of a lattice, with a small codec and small pictures."""

import pytest
import torch
from PIL import Image

from latentpress.codecs.index import IndexCodec
from latentpress.codecs.weights import read_weight_file
from latentpress.models.index.cell_lattice import LatticeDirections
from latentpress.scripts.index_lattice import main, prominences
from latentpress.scripts.low_rate_comparison import main as compare
from latentpress.train.index_lattice import with_lattice


def test_prominence_finds_a_lattice_where_it_is() -> None:
    image = torch.rand(3, 64, 128, generator=torch.Generator().manual_seed(2)) * 8
    image[:, ::8, ::8] += 16 * (torch.arange(128)[::8] < 64)
    left, right = torch.zeros(2, 8, 16).bool().unbind()
    left[:, :8] = True
    right[:, 8:] = True
    found = [float(prominences(image, mask, 8).mean().exp()) for mask in (left, right)]
    assert found[0] > 3 > 1.2 > found[1]
    assert prominences(image, torch.zeros(8, 16).bool(), 8).numel() == 0
    assert prominences(image[:, :16], left[:2], 8).numel() == 0


def test_rows_for_the_original_and_both_pictures(small_index_weights, tmp_path, capsys) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.radial_gradient("L").resize((150, 140)).convert("RGB").save(folder / "disc.png")
    streams = tmp_path / "streams"
    arguments = ["--data", str(folder), "--rates", "0.2"]
    assert compare(["--codec", str(small_index_weights), *arguments, "--write-streams", str(streams)]) == 0
    arguments += ["--streams", str(streams)]
    capsys.readouterr()
    assert main(["--codec", str(small_index_weights), *arguments]) != 0
    assert "lattice" in capsys.readouterr().err
    weights = read_weight_file(small_index_weights)
    directions = LatticeDirections(torch.eye(768)[:1], torch.eye(192)[:1])
    path = tmp_path / "latticed.safetensors"
    path.write_bytes(with_lattice(weights, directions).to_bytes())
    assert IndexCodec(read_weight_file(path)).lattice is not None
    assert main(["--codec", str(path), *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[-3:]] == ["original", "with", "without"]
    assert lines[-2].split()[-4:] != lines[-1].split()[-4:]


@pytest.mark.parametrize("codec", ["image", "nothing"])
def test_other_weights_are_refused(codec, tmp_path, capsys) -> None:
    assert main(["--codec", codec, "--data", str(tmp_path), "--streams", str(tmp_path)]) != 0
    assert codec in capsys.readouterr().err
