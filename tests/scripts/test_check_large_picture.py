"""The script that measures large pictures, on one that is not large."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from latentpress.scripts import check_large_picture
from latentpress.scripts.check_large_picture import BAND, draw_photo


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    y, x = np.mgrid[:60, :90]
    for number in range(3):
        pixels = np.stack([2 * x + 20 * number, 3 * y, x + y], axis=-1).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_all_of_it(repository, photos, tmp_path, capsys):
    weights = str(repository / "tests" / "golden" / "v1" / "image_tiny.safetensors")
    arguments = ["--data", str(photos), "--out", str(tmp_path), "--width", "640", "--height", "576"]
    # Whether it holds is a matter of the weights and the machine.
    assert check_large_picture.main([*arguments, "--weights", weights, "--tile-size", "128"]) in (0, 1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("640 x 576 pixels")
    assert [line.partition(":")[0] for line in lines if "GiB of memory" in line] == ["encode", "decode"]
    assert sum(line.startswith("PSNR within 16 pixels") for line in lines) == 2
    with Image.open(tmp_path / "restored.png") as restored:
        assert restored.size == (640, 576)


def test_seams_are_found(tmp_path, monkeypatch):
    """Errors on both sides of tile borders, and nowhere else."""
    random = np.random.default_rng(0)
    original = random.integers(40, 200, (256, 256, 3), dtype=np.uint8)
    decoded = original + 1
    decoded[128 - BAND // 2 : 128 + BAND // 2] += 9
    for name, pixels in (("a.png", original), ("b.png", decoded)):
        Image.fromarray(pixels).save(tmp_path / name)

    said = SimpleNamespace(parameters={"tile_size": 128})
    monkeypatch.setattr(check_large_picture.latentpress, "inspect", lambda data: said)
    (tmp_path / "c.lpz").write_bytes(b"")
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.lpz")]
    assert check_large_picture.measure_seams(*paths, tmp_path) < -10


def test_the_same_photo_for_the_same_seed(photos, tmp_path):
    for name, seed in (("a.png", 1), ("b.png", 1), ("c.png", 2)):
        draw_photo(tmp_path / name, photos, 300, 1000, seed)
    a, b, c = ((tmp_path / name).read_bytes() for name in ("a.png", "b.png", "c.png"))
    assert a == b
    assert a != c
