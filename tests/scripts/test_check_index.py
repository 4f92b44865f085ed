"""The index codec's promises, with a small codec and a small picture."""

import json

import torch
from PIL import Image

from latentpress.scripts.check_index import LOST, PACKETS, main


def test_everything_is_measured(small_index_weights, tmp_path, capsys) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.radial_gradient("L").resize((208, 192)).convert("RGB").save(folder / "disc.png")
    out = tmp_path / "out.json"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert main(["--codec", str(small_index_weights), "--data", str(folder), "--out", str(out)]) == 0
    (first,) = json.loads(out.read_text())["pictures"]
    again = tmp_path / "again.json"
    more = ["--earlier", str(out), "--out", str(again)]
    assert main(["--codec", str(small_index_weights), "--data", str(folder), *more]) == 0
    assert json.loads(again.read_text())["pictures"] == [first]
    torch.set_num_threads(threads)
    (found,) = json.loads(out.read_text())["pictures"]
    assert found["lowest"] < found["achieved"]["0.12"] <= 0.12 < found["highest"]
    maps, indexes, raw = found["parts"]["100"]
    assert maps < 0.001 < indexes
    assert 0.3 < raw <= 6 / 16
    assert found["loss"]["told"]
    measured = found["loss"]["measures"]
    assert measured["whole"]["psnr"] > 0
    assert measured["repaired"] != measured["zeros"]
    printed = capsys.readouterr().out
    assert f"{LOST} of {PACKETS} packets lost" in printed
    assert "losses told exactly: 1 of 1" in printed


def test_other_codecs_are_told(tmp_path, capsys) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert main(["--codec", "image", "--data", str(tmp_path), "--out", str(tmp_path / "x")]) == 1
    assert "codec index" in capsys.readouterr().err
