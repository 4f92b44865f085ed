"""``latentpress demo`` and what it compares with."""

import numpy as np
import pytest
import torch
from PIL import Image

from latentpress.scripts import peers
from latentpress.scripts.cli import main
from latentpress.scripts.comparison_sheet import Box, Panel, centred, comparison_sheet


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    values = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(values).resize((230, 170), Image.Resampling.BICUBIC).save(path)
    return path


def test_demo(codec, picture, tmp_path, capsys) -> None:
    out = tmp_path / "demo"
    arguments = ["--picture", str(picture), "--out", str(out), "--qualities", "0,20"]
    assert main(["demo", *arguments]) == 0
    printed, err = capsys.readouterr()
    assert err == ""
    for quality in (0, 20):
        size = (out / f"q{quality}.lpz").stat().st_size
        assert f"latentpress        {quality}" in printed or f"latentpress       {quality}" in printed
        for name in ("jpeg.jpg", "webp.webp", "avif.avif"):
            assert 0 < (out / f"q{quality}-{name}").stat().st_size <= size
        with Image.open(out / f"q{quality}.png") as decoded:
            assert decoded.size == (230, 170)
    assert f"are in {out}/" in printed
    with Image.open(out / "comparison.png") as sheet:
        assert sheet.width > 1000


def test_picture_of_the_demo_is_a_photograph() -> None:
    from latentpress.scripts.commands.demo import _photo

    photo = _photo(None)
    assert photo.pixels.shape == (3, 512, 512)
    assert photo.crop == centred(photo.crop, 512, 512)


@pytest.mark.parametrize("peer", peers.PEERS, ids=lambda peer: peer.name)
def test_peers_stay_below_the_size(picture, peer) -> None:
    pixels = torch.from_numpy(np.array(Image.open(picture))).permute(2, 0, 1).contiguous()
    below, *nearest = peers.at_size(peer, pixels, 6000)
    assert len(below.data) <= 6000
    assert below.decoded.shape == pixels.shape
    for other in nearest:
        assert 0 < len(other.data) - 6000 < 6000 - len(below.data)
    (smallest,) = peers.at_size(peer, pixels, 1)
    assert smallest.quality == peer.low


@pytest.mark.parametrize("target", [0, 99, 100, 149, 150, 151, 250, 9999])
def test_bisection_is_as_good_as_a_search(target) -> None:
    sizes = {quality: 100 * quality for quality in range(1, 9)}
    found = peers.around(sizes.__getitem__, 1, 8, target)
    below = [quality for quality in sizes if sizes[quality] <= target]
    assert found[0] == (max(below) if below else 1)
    gaps = [abs(size - target) for size in sizes.values()]
    assert abs(sizes[found[-1]] - target) == min(gaps)


@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 40, 900), (3, 300, 20)])
def test_sheet_of_any_picture(shape) -> None:
    pixels = torch.zeros(shape, dtype=torch.uint8)
    box = centred(Box(0, 0, 128, 128), *shape[1:])
    sheet = comparison_sheet(pixels, [[Panel("a", "b", pixels)] * 2] * 2, box, "title", "subtitle")
    assert sheet.mode == "RGB"
