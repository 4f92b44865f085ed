"""Pillow reads and writes pictures of the library as it does those of any format."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError

import latentpress
from latentpress.codecs import pillow
from latentpress.codecs.bitstream import CodecId, SectionType, UnknownModel, write_container
from latentpress.codecs.card import ModelCard
from latentpress.codecs.field import FieldCodec
from latentpress.codecs.registry import inspect, read_metadata

EXIF = b"II*\0\x08\0\0\0\0\0\0\0\0\0"


@pytest.fixture(autouse=True)
def tiny_weights_ship(tiny_weights, tmp_path_factory, monkeypatch):
    """The tiny model ships under the name that the plugin takes by default."""
    path = tmp_path_factory.mktemp("weights") / "image.safetensors"
    path.write_bytes(tiny_weights.to_bytes())
    fingerprint = tiny_weights.fingerprint().hex()
    card = ModelCard("image", "image", {}, fingerprint, 1, 1, "2025-01-01", "Apache-2.0", "", "", (0.1, 1))
    path.with_suffix(".json").write_text(card.to_json())
    monkeypatch.setattr("latentpress.codecs.registry.shipped_weights", lambda: {"image": path})
    pillow._codec.cache_clear()
    yield path
    pillow._codec.cache_clear()


@pytest.fixture
def photo(picture) -> Image.Image:
    return Image.fromarray(picture(23, 37).permute(1, 2, 0).numpy())


def saved(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "LATENTPRESS", **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


class TestFiles:
    def test_extension_decides(self, photo, tmp_path):
        photo.save(tmp_path / "photo.lpz", quality=40)
        with Image.open(tmp_path / "photo.lpz") as image:
            assert (image.format, image.size, image.mode) == ("LATENTPRESS", (37, 23), "RGB")
            assert image.info["quality"] == 40.0
            assert image.get_format_mimetype() == "image/x-latentpress"

    def test_same_bytes_and_pixels_as_the_codec(self, photo, picture, tiny_codec):
        data = saved(photo, quality=70)
        assert data == tiny_codec.compress(picture(23, 37), quality=70)
        expected = tiny_codec.decompress(data).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(np.array(opened(data)), expected)

    def test_grey(self, picture, tiny_codec):
        data = saved(Image.fromarray(picture(9, 5, 1)[0].numpy()))
        assert data == tiny_codec.compress(picture(9, 5, 1))
        image = opened(data)
        assert (image.mode, image.size) == ("L", (5, 9))
        np.testing.assert_array_equal(np.array(image), tiny_codec.decompress(data)[0].numpy())

    def test_saved_over_itself(self, photo, tmp_path):
        path = tmp_path / "photo.lpz"
        photo.save(path, quality=90)
        with Image.open(path) as image:
            image.save(path, quality=10)
        with Image.open(path) as image:
            assert image.info["quality"] == 10.0
            image.load()

    def test_pixels_can_be_asked_for_twice_and_after_closing(self, photo, tmp_path):
        photo.save(tmp_path / "photo.lpz")
        with Image.open(tmp_path / "photo.lpz") as image:
            first = np.array(image)
        np.testing.assert_array_equal(np.array(image), first)

    def test_refused_target_leaves_no_file(self, photo, tmp_path):
        with pytest.raises(ValueError, match="cannot be met"):
            photo.save(tmp_path / "photo.lpz", target_bytes=20)
        assert list(tmp_path.iterdir()) == []

    def test_registering_again_is_harmless(self, photo):
        pillow.register()
        assert opened(saved(photo)).format == "LATENTPRESS"


class TestOptions:
    @pytest.mark.parametrize(
        "rate", [{"target_bytes": 200}, {"target_bpp": 2.0}, {"target_psnr": 25.0}, {"quality": 12.3}]
    )
    def test_rate(self, photo, picture, tiny_codec, rate):
        assert saved(photo, **rate) == tiny_codec.compress(picture(23, 37), **rate)

    def test_none_is_no_choice(self, photo):
        assert saved(photo, quality=None, target_bytes=None) == saved(photo)

    def test_two_rates(self, photo):
        with pytest.raises(TypeError, match="give one of"):
            saved(photo, quality=3, target_bpp=1)

    def test_unknown_options_are_ignored(self, photo):
        assert saved(photo, optimize=True, dpi=(72, 72)) == saved(photo)

    def test_weights(self, photo, tiny_weights_ship):
        assert saved(photo, weights=tiny_weights_ship) == saved(photo)
        with pytest.raises(ValueError, match="unknown codec 'cello'"):
            saved(photo, weights="cello")


class TestMetadata:
    def test_from_one_file_to_the_next(self, photo):
        png = io.BytesIO()
        photo.save(png, "PNG", exif=b"Exif\0\0" + EXIF, icc_profile=b"profile")
        with Image.open(png) as image:
            data = saved(image)
        assert read_metadata(data) == {"exif": EXIF, "icc": b"profile"}
        image = opened(data)
        assert image.info["icc_profile"] == b"profile"
        again = io.BytesIO()
        image.save(again, "PNG", exif=image.info["exif"])
        with Image.open(again) as copy:
            assert copy.info["exif"] == b"Exif\0\0" + EXIF
            assert copy.info["icc_profile"] == b"profile"

    def test_exif_can_be_read(self, photo):
        exif = Image.Exif()
        exif[271] = "a camera"
        assert opened(saved(photo, exif=exif)).getexif()[271] == "a camera"

    def test_xmp(self, photo):
        photo.info["xmp"] = b"<x/>"
        assert opened(saved(photo)).info["xmp"] == b"<x/>"

    def test_options_win_and_none_strips(self, photo):
        photo.info.update(icc_profile=b"old", exif=EXIF, xmp=b"<x/>")
        data = saved(photo, icc_profile=b"new", exif=None, xmp=None)
        assert read_metadata(data) == {"icc": b"new"}


class TestModes:
    @pytest.mark.parametrize(("mode", "kept"), [("1", "L"), ("P", "RGB"), ("YCbCr", "RGB"), ("HSV", "RGB")])
    def test_converted_in_silence(self, photo, mode, kept):
        assert opened(saved(photo.convert(mode))).mode == kept

    @pytest.mark.parametrize("mode", ["LA", "RGBA"])
    def test_transparency(self, photo, tiny_codec, mode):
        layers = photo.convert(mode)
        layers.putalpha(Image.linear_gradient("L").resize(photo.size))
        data = saved(layers, alpha_max_error=0)
        image = opened(data)
        assert (image.mode, image.size) == (mode, photo.size)
        np.testing.assert_array_equal(np.array(image)[..., -1], np.array(layers)[..., -1])
        planes = torch.from_numpy(np.array(layers)).permute(2, 0, 1)
        assert data == tiny_codec.compress(planes, alpha_max_error=0)
        np.testing.assert_array_equal(np.array(image), tiny_codec.decompress(data).permute(1, 2, 0).numpy())

    @pytest.mark.parametrize(("mode", "kept"), [("La", "LA"), ("RGBa", "RGBA"), ("PA", "RGBA")])
    def test_other_transparency(self, photo, mode, kept):
        layers = photo.convert(kept)
        layers.putalpha(100)
        if mode == "PA":
            layers = photo.quantize(16)
            layers.putalpha(100)
            assert layers.mode == mode
        assert opened(saved(layers if mode == "PA" else layers.convert(mode))).mode == kept

    def test_palette_with_transparent_colours(self, photo):
        image = photo.quantize(8)
        image.info["transparency"] = 3
        found = np.array(opened(saved(image, alpha_max_error=0)))
        np.testing.assert_array_equal(found[..., 3] == 0, np.array(image) == 3)

    def test_opaque_alpha_is_no_loss(self, photo):
        assert saved(photo.convert("RGBA")) == saved(photo)

    def test_sixteen_bits(self, tiny_codec):
        values = (np.arange(24 * 40).reshape(24, 40) * 60).astype(np.uint16)
        data = saved(Image.fromarray(values), quality=100)
        image = opened(data)
        assert (image.mode, image.info["bits"]) == ("I;16", 16)
        np.testing.assert_array_equal(np.array(image), tiny_codec.decompress(data)[0].numpy())
        assert data == saved(Image.fromarray(values.astype(np.int32)), quality=100)

    def test_sixteen_bit_colour_opens_as_eight(self, tiny_codec, picture):
        x = (picture(9, 12).int() * 257).to(torch.uint16)
        image = opened(tiny_codec.compress(x))
        assert (image.mode, image.info["bits"]) == ("RGB", 16)
        np.testing.assert_array_equal(
            np.array(image).astype(int),
            (tiny_codec.decompress(tiny_codec.compress(x)).permute(1, 2, 0).int().numpy() + 128) // 257,
        )

    def test_cmyk(self):
        with pytest.warns(UserWarning, match="CMYK was converted"):
            assert opened(saved(Image.new("CMYK", (4, 4), (0, 255, 0, 0)))).mode == "RGB"

    def test_no_8_bit_meaning(self):
        with pytest.raises(ValueError, match="floating-point pixels"):
            saved(Image.new("F", (4, 4)))
        with pytest.raises(ValueError, match="32-bit integer"):
            saved(Image.fromarray(np.full((2, 2), 70000, np.int32)))


class TestWrongBytes:
    def test_damage_is_noticed_on_opening(self, photo):
        data = bytearray(saved(photo))
        data[-9] ^= 1
        with pytest.raises(OSError, match="checksum") as caught:
            opened(bytes(data))
        assert isinstance(caught.value.__cause__, latentpress.CorruptStream)

    def test_cut(self, photo):
        with pytest.raises(OSError, match="needs"):
            opened(saved(photo)[:-1])

    def test_damaged_symbols_are_noticed_on_loading(self, photo, tiny_codec):
        payload = tiny_codec.encode_payload(torch.zeros(3, 5, 5), 500).payload
        sections = [(SectionType.PAYLOAD, payload[:6] + b"\0" + payload[7:])]
        image = opened(write_container(CodecId.IMAGE, tiny_codec.fingerprint, sections))
        with pytest.raises(OSError, match=r"."):
            image.load()

    def test_other_weights(self, photo):
        header = inspect(saved(photo))
        data = saved(photo)
        moved = write_container(CodecId.IMAGE, b"12345678", [(SectionType.PAYLOAD, _payload(data))])
        image = opened(moved)
        assert image.size == (header.parameters["width"], header.parameters["height"])
        with pytest.raises(OSError, match="needs the model 3132333435363738") as caught:
            image.load()
        assert isinstance(caught.value.__cause__, UnknownModel)

    def test_no_picture(self):
        data = FieldCodec().compress(np.zeros((1, 2, 3, 4), np.float32), max_error=0.1)
        with pytest.raises(OSError, match="the codec field is no picture"):
            opened(data)

    def test_another_format_is_left_to_others(self):
        with pytest.raises(UnidentifiedImageError):
            opened(b"\x9eLQ and so on")


def _payload(data: bytes) -> bytes:
    from latentpress.codecs.bitstream import read_container

    return read_container(data).payload


def test_opening_needs_no_torch(photo, tmp_path: Path):
    path = tmp_path / "photo.lpz"
    photo.save(path)
    program = (
        "import sys; from PIL import Image; import latentpress.codecs.pillow; "
        "image = Image.open(sys.argv[1]); "
        "sys.exit(image.size != (37, 23) or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
