"""The comparison at low rates, with a small codec and small pictures."""

import json

import pytest
import torch
from PIL import Image

from latentpress.scripts import low_rate_comparison
from latentpress.scripts.low_rate_comparison import Row, available_rivals, main, means_table, pairs_table


def test_everything_is_written(small_index_weights, tmp_path, capsys, monkeypatch) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.radial_gradient("L").resize((208, 192)).convert("RGB").save(folder / "disc.png")
    monkeypatch.setattr(low_rate_comparison, "TOLERANCE", 20.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path / "out"
    arguments = ["--codec", str(small_index_weights), "--data", str(folder), "--out", str(out)]
    assert main([*arguments, "--rates", "0.1", "--sheets", "disc"]) == 0
    torch.set_num_threads(threads)
    content = json.loads((out / "index_low_rates.json").read_text())
    by_codec = {row["codec"]: row for row in content["rows"]}
    assert {"index", "AVIF", "AVIF at half size", "WebP"} <= by_codec.keys()
    assert by_codec["index"]["bytes"] * 8 <= 0.1 * 208 * 192
    assert all(row["measures"]["wasserstein"] >= 0 for row in content["rows"])
    assert len(content["fingerprint"]) == 16
    with Image.open(out / "index_disc.png") as sheet:
        assert sheet.width > 500
    printed = capsys.readouterr().out
    assert "lower WD" in printed
    assert "skipped: lpips" in printed


def test_wrong_codec(tmp_path, capsys) -> None:
    arguments = ["--codec", "nothing", "--data", str(tmp_path), "--out", str(tmp_path)]
    assert main(arguments) != 0
    assert "nothing" in capsys.readouterr().err


def test_half_size_keeps_the_size(tmp_path) -> None:
    half = next(rival for rival in available_rivals()[0] if rival.name == "AVIF at half size")
    pixels = torch.randint(0, 256, (3, 31, 45), dtype=torch.uint8)
    data = half.encode(pixels, 50)
    assert half.decode(data, (31, 45)).shape == (3, 31, 45)


def test_means_and_pairs() -> None:
    rows = [
        Row("a", 0.1, "index", 10, 0.1, {"wasserstein": 1.0, "psnr": 20.0}),
        Row("a", 0.1, "AVIF", 10, 0.1, {"wasserstein": 2.0, "psnr": 22.0}),
        Row("b", 0.1, "index", 10, 0.1, {"wasserstein": 3.0, "psnr": 21.0}),
        Row("b", 0.1, "AVIF", 10, 0.1, {"wasserstein": 2.5, "psnr": 25.0}),
        Row("c", 0.1, "index", 10, 0.1, {"wasserstein": 9.0, "psnr": 9.0}),
    ]
    line = pairs_table(rows).splitlines()[-1].split()
    assert line == ["0.1", "AVIF", "2", "2.00", "2.25", "20.50", "23.50", "1", "of", "2"]
    table = means_table(rows, ("wasserstein",))
    assert "index" in table
    assert "4.3333" in table


def test_streams_are_made_first_and_measured_later(small_index_weights, tmp_path, capsys) -> None:
    folder, streams, out = (tmp_path / name for name in ("pictures", "streams", "out"))
    folder.mkdir()
    Image.radial_gradient("L").resize((208, 192)).convert("RGB").save(folder / "disc.png")
    arguments = ["--codec", str(small_index_weights), "--data", str(folder), "--rates", "0.1"]
    assert main([*arguments, "--write-streams", str(streams)]) == 0
    data = (streams / "disc-0.1.lpz").read_bytes()
    assert [path.name for path in streams.iterdir()] == ["disc-0.1.lpz"]
    assert main([*arguments, "--streams", str(streams), "--out", str(out)]) == 0
    content = json.loads((out / "index_low_rates.json").read_text())
    assert next(row for row in content["rows"] if row["codec"] == "index")["bytes"] == len(data)
    assert content["effort"] is None
    assert main([*arguments[:-1], "0.2", "--streams", str(streams), "--out", str(out)]) != 0
    assert "no stream" in capsys.readouterr().err


@pytest.mark.parametrize("asked", [[], ["--out", "a", "--write-streams", "b"]])
def test_either_results_or_streams(tmp_path, asked) -> None:
    with pytest.raises(SystemExit):
        main(["--data", str(tmp_path), *asked])
