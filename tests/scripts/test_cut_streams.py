"""What a cut stream shows beside a whole one."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentpress.codecs.registry import load
from latentpress.scripts import cut_streams


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with small weights and a folder of pictures."""
    folder = tmp_path_factory.mktemp("cut")
    weights = Path(__file__).parents[1] / "golden" / "v1" / "image-max_plain.safetensors"
    (folder / "image-max.safetensors").write_bytes(weights.read_bytes())
    (folder / "pictures").mkdir()
    coarse = np.random.default_rng(3).integers(0, 256, (2, 6, 8, 3), np.uint8)
    for number, pixels in enumerate(coarse):
        picture = Image.fromarray(pixels).resize((80, 64), Image.Resampling.BICUBIC)
        picture.save(folder / "pictures" / f"{number}.png")
    return folder


def test_less_of_a_stream_shows_less(place) -> None:
    codec = load(place / "image-max.safetensors")
    cut = cut_streams.cut_picture(codec, place / "pictures" / "0.png", 80.0)
    assert 0 < cut.core_share < 1
    assert cut.psnr > cut.core_psnr > cut.side_psnr


@pytest.mark.parametrize(("name", "steps"), [("image-max_plain", 1), ("side_information_image-max", 4)])
def test_side_information_alone_reads_its_groups(repository, place, monkeypatch, name, steps) -> None:
    """All but the side information is as if there were no symbols: residuals of nothing but zeros."""
    codec = load(repository / "tests" / "golden" / "v1" / f"{name}.safetensors")
    seen = []

    class Watched(cut_streams.SideInformationAlone):
        def read(self, part, tables, prefix):
            reading = super().read(part, tables, prefix)
            get = reading.get

            def watched(indexes):
                found = get(indexes)
                seen.append(found.result())
                return found

            reading.get = watched
            return reading

    monkeypatch.setattr(cut_streams, "SideInformationAlone", Watched)
    cut_streams.cut_picture(codec, place / "pictures" / "1.png", 80.0)
    assert all(group.any() for group in seen[:steps] if group.size)
    assert seen[0].any()
    assert len(seen) > steps + 1
    assert not any(group.any() for group in seen[steps:])


def test_command_prints_a_row_a_quality(place, capsys) -> None:
    weights = str(place / "image-max.safetensors")
    arguments = ["--weights", weights, "--data", str(place / "pictures"), "--qualities", "40", "90"]
    assert cut_streams.main([*arguments, "--limit", "1"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows[-2:]] == ["40", "90"]


def test_weights_with_one_part_are_refused(repository, place, capsys) -> None:
    weights = str(repository / "tests" / "golden" / "v1" / "image_tiny.safetensors")
    assert cut_streams.main(["--weights", weights, "--data", str(place / "pictures")]) != 0
    assert "one part only" in capsys.readouterr().err
