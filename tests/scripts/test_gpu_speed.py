"""Batches beside one by one, with tiny codecs on the processor; nothing here depends on how fast it is."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from latentpress.scripts import gpu_speed
from latentpress.scripts.gpu_speed import Speed, main, median_seconds, some_pictures, table


def test_everything_is_measured(small_index_weights, repository, tmp_path, capsys) -> None:
    weights = str(repository / "tests" / "golden" / "v1" / "image_tiny.safetensors")
    out = tmp_path / "speed.json"
    sizes = ["--size", "64x48", "--frame-size", "96x64", "--pictures", "2", "--frame-batch", "2"]
    codecs = ["--codecs", weights, str(small_index_weights), "--frames", weights, "--repetitions", "1"]
    assert main([*sizes, *codecs, "--precisions", "float32", "bfloat16", "--out", str(out)]) == 0
    content = json.loads(out.read_text())
    rows = content["rows"]
    assert [(row["codec"], row["action"], row["precision"]) for row in rows] == [
        (codec, action, precision)
        for codec, precision in (
            ("image_tiny", "float32"),
            (small_index_weights.stem, "float32"),
            ("image_tiny", "float32"),
            ("image_tiny", "bfloat16"),
        )
        for action in ("encode", "decode")
    ]
    assert [row["width"] for row in rows] == [64] * 4 + [96] * 4
    assert rows[0]["batched"]
    assert all(
        row["single"] > 0 and row["together"] > 0 and row["bpp"] > 0 and row["batch"] == 2 for row in rows
    )
    assert len(content["fingerprint"].split()) == 2
    assert "2 frames of 96 x 64" in capsys.readouterr().out


def test_wrong_codec(capsys) -> None:
    assert main(["--codecs", "nothing", "--frames", ""]) != 0
    assert "nothing" in capsys.readouterr().err


def test_a_slow_batch_on_a_gpu_is_no_success(monkeypatch, capsys) -> None:
    class Standin:
        device = torch.device("cuda")
        fingerprint = bytes(8)

    monkeypatch.setattr(gpu_speed, "open_codec", lambda *_: Standin())
    for together, code in ((7.9, 1), (8.1, 0)):
        row = Speed("image", "decode", "float32", 8, 8, 2, True, 1.0, 2.0, together)
        monkeypatch.setattr(gpu_speed, "measure", lambda *_, row=row: [row])
        assert main(["--codecs", "image", "--frames", "", "--size", "8x8", "--pictures", "2"]) == code
        assert ("less than 4 times: image decode" in capsys.readouterr().out) == bool(code)


def test_pictures_of_a_folder(tmp_path) -> None:
    values = np.arange(20 * 50 * 3, dtype=np.uint32).reshape(20, 50, 3).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    pictures = some_pictures(3, (40, 24), str(tmp_path))
    assert all(picture.shape == (3, 24, 40) and picture.dtype == torch.uint8 for picture in pictures)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no picture"):
        some_pictures(1, (8, 8), str(tmp_path / "empty"))


def test_repetitions_end_with_the_time() -> None:
    calls: list[int] = []
    assert median_seconds(lambda: calls.append(1), torch.device("cpu"), 3, 0.0)[0] >= 0
    assert len(calls) == 2


def test_a_loop_is_called_one() -> None:
    row = Speed("index", "encode", "float32", 8, 8, 2, False, 1.0, 2.0, 3.0)
    assert "2, a loop" in table([row])
