"""Pictures of every kind through the codec and back: what survives is the same byte for byte."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from latentpress.codecs.registry import load
from latentpress.scripts import check_pictures
from latentpress.scripts.check_pictures import round_trip
from latentpress.scripts.exif import upright
from latentpress.scripts.failures import PictureError
from latentpress.scripts.picture_samples import picture_samples
from latentpress.scripts.pictures import picture_file, read_picture

SAMPLES = {sample.name: sample for sample in picture_samples()}

names = pytest.mark.parametrize("name", SAMPLES)


@pytest.fixture(scope="module")
def codec(repository):
    return load(repository / "tests" / "golden" / "v1" / "image_tiny.safetensors")


def test_there_are_enough():
    assert len(SAMPLES) >= 30
    assert sum(not sample.refusal for sample in SAMPLES.values()) >= 30
    assert {sample.channels for sample in SAMPLES.values()} == {1, 2, 3, 4}
    assert {sample.bits for sample in SAMPLES.values()} == {8, 16}
    assert {block for sample in SAMPLES.values() for block in sample.kept} == {"icc", "exif", "xmp"}


@names
def test_round_trip(codec, name):
    sample = SAMPLES[name]
    trip = round_trip(name, sample.data, codec, 90.0)
    assert trip.faults == ()
    if sample.refusal:
        assert trip.result.startswith("refused: ")
        assert sample.refusal in trip.result
        assert "\n" not in trip.result
        return
    assert trip.came_back == f"{check_pictures._CHANNELS[sample.channels]} {sample.bits}"
    assert (sample.note in trip.result) if sample.note else (trip.result == "ok")
    for block, state in zip(check_pictures.BLOCKS, trip.blocks, strict=True):
        if block in sample.kept:
            assert state == "kept"


@names
def test_what_is_read(name):
    """The same facts without the code under test of `round_trip`."""
    sample = SAMPLES[name]
    if sample.refusal:
        with pytest.raises(PictureError, match=sample.refusal):
            read_picture(sample.data)
        return
    picture = read_picture(sample.data)
    assert picture.pixels.shape[0] == sample.channels
    assert 8 * picture.pixels.element_size() == sample.bits
    for block, content in sample.kept.items():
        assert picture.metadata[block] == content
    assert (sample.note in picture.notes[0]) if sample.note else (picture.notes == ())


@pytest.mark.parametrize("name", [name for name in SAMPLES if name.startswith("orientation")])
def test_orientation(codec, name):
    sample = SAMPLES[name]
    trip = round_trip(name, sample.data, codec, 90.0)
    assert f"orientation-{trip.orientation}." in name
    picture = read_picture(sample.data)
    with Image.open(io.BytesIO(sample.data)) as image:
        stored = np.array(image)
        assert image.getexif()[0x0112] == trip.orientation
    turns = {3: lambda x: x[::-1, ::-1], 5: lambda x: x.transpose(1, 0, 2), 6: lambda x: np.rot90(x, -1)}
    turns[8] = np.rot90
    expected = turns[trip.orientation](stored)
    np.testing.assert_array_equal(picture.pixels.permute(1, 2, 0).numpy(), expected)
    assert picture.metadata["exif"] == upright(picture.metadata["exif"])


def test_the_documentation_shows_all(repository):
    page = (repository / "docs" / "pictures.md").read_text("utf-8")
    rows = {line.split()[0]: line for line in page.splitlines() if line and line.split()[0] in SAMPLES}
    assert list(rows) == list(SAMPLES)
    for name, sample in SAMPLES.items():
        assert sample.refusal in rows[name]
        assert sample.note in rows[name]


class TestFaults:
    """What the table is for: a codec that loses something is found out."""

    def test_alpha(self, codec, monkeypatch):
        compress = codec.compress
        monkeypatch.setattr(codec, "compress", lambda x, **options: compress(x[:3], **options))
        trip = round_trip("rgba.png", SAMPLES["rgba.png"].data, codec, 90.0)
        assert "came back" in trip.result

    def test_metadata(self, codec, monkeypatch):
        compress = codec.compress

        def forgetful(x, metadata, **options):
            return compress(x, metadata={**metadata, "icc": metadata["icc"][:-1]}, **options)

        monkeypatch.setattr(codec, "compress", forgetful)
        trip = round_trip("metadata.jpg", SAMPLES["metadata.jpg"].data, codec, 90.0)
        assert trip.faults == ("icc changed",)
        assert trip.blocks == ("lost", "kept", "kept")

    def test_colour(self, codec, monkeypatch):
        compress = codec.compress
        monkeypatch.setattr(codec, "compress", lambda x, **options: compress(255 - x, **options))
        trip = round_trip("rgb.png", SAMPLES["rgb.png"].data, codec, 90.0)
        assert trip.faults == ("one colour all over would have been closer",)


class TestCommand:
    @pytest.fixture
    def weights(self, repository):
        return str(repository / "tests" / "golden" / "v1" / "image_tiny.safetensors")

    def test_generated_files(self, weights, capsys):
        assert check_pictures.main(["--codec", weights]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1] == f"{len(SAMPLES)} files, 5 refused, 0 with a fault"
        assert len(lines) == len(SAMPLES) + 4

    def test_a_folder(self, weights, tmp_path, capsys):
        (tmp_path / "below").mkdir()
        (tmp_path / "below" / "a.png").write_bytes(SAMPLES["rgba.png"].data)
        (tmp_path / "b.txt").write_text("text")
        assert check_pictures.main([str(tmp_path), "--codec", weights]) == 0
        out = capsys.readouterr().out
        assert "below/a.png" in out
        assert out.splitlines()[-1] == "2 files, 1 refused, 0 with a fault"

    def test_a_fault(self, weights, tmp_path, capsys, monkeypatch):
        shutil.copy(weights, tmp_path / "weights.safetensors")
        monkeypatch.setattr(
            check_pictures, "picture_file", lambda pixels, *_: picture_file(pixels // 2, ".png")
        )
        (tmp_path / "a.png").write_bytes(SAMPLES["rgb.png"].data)
        assert check_pictures.main([str(tmp_path), "--codec", weights]) == 1
        assert "the PNG file has other pixels" in capsys.readouterr().out
