"""The index codec on the command line: packets and repair."""

import numpy as np
import pytest
import torch
from PIL import Image

from latentpress.codecs.index_payload import split_packets
from latentpress.scripts.cli import main


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    from latentpress.models.index.model import build_index_model
    from latentpress.models.index.quantiser import unit_vectors
    from latentpress.train.export_index import export_index

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        small = {
            f"{part}_{width}_channels": 8
            for part in ("encoder", "decoder", "prior")
            for width in ("fine", "medium", "coarse")
        }
        small |= {name.replace("channels", "depth"): 1 for name in small}
        model = build_index_model(codes=64, code_channels=4, condition_channels=4, **small)
        model.books.fill(unit_vectors(torch.randn(64, 4)), torch.ones(64), model.encoder.heads[0])
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    path.write_bytes(export_index(model.config, model.state_dict()).to_bytes())
    return str(path)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "photo.png"
    Image.radial_gradient("L").resize((96, 64)).convert("RGB").save(path)
    return path


def test_damaged_packets_are_repaired_and_named(weights, picture, tmp_path, capsys) -> None:
    arguments = ["--codec", weights, "--threads", "1"]
    assert main(["encode", str(picture), "--packets", "6", *arguments]) == 0
    packed = tmp_path / "photo.lpz"
    data = bytearray(packed.read_bytes())
    place = bytes(data).index(split_packets(bytes(data))[4])
    data[place + 15] ^= 1
    packed.write_bytes(bytes(data))
    capsys.readouterr()
    out = tmp_path / "out.png"
    assert main(["decode", str(packed), "-o", str(out), *arguments]) != 0
    assert main(["decode", str(packed), "-o", str(out), "--repair", *arguments]) == 0
    assert "lost packets: 4 of 6" in capsys.readouterr().err
    with Image.open(out) as image:
        assert np.asarray(image).shape == (64, 96, 3)


def test_repair_of_a_whole_file_is_decoding(weights, picture, tmp_path, capsys) -> None:
    arguments = ["--codec", weights, "--threads", "1"]
    assert main(["encode", str(picture), "--bpp", "0.5", *arguments]) == 0
    out = tmp_path / "out.png"
    assert main(["decode", str(tmp_path / "photo.lpz"), "-o", str(out), "--repair", *arguments]) == 0
    assert "lost" not in capsys.readouterr().err


def test_an_option_that_the_codec_does_not_have(weights, picture, capsys) -> None:
    assert main(["encode", str(picture), "--psnr", "30", "--codec", weights, "--threads", "1"]) != 0
    assert "no --psnr" in capsys.readouterr().err
    assert main(["encode", str(picture), "--packets", "4", "--codec", "image", "--threads", "1"]) != 0
    assert "no --packets" in capsys.readouterr().err
