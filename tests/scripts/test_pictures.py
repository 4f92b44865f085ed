"""Pictures of every kind become 8-bit grey or RGB, and say what they lost."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps

from latentpress.codecs.bitstream import Limits
from latentpress.scripts.exif import upright
from latentpress.scripts.failures import PictureError
from latentpress.scripts.pictures import picture_bytes, read_picture

RAMP = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20


def stored(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rgb(height: int = 6, width: int = 9) -> Image.Image:
    values = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values)


def test_rgb_is_taken_as_it_is() -> None:
    picture = read_picture(stored(rgb()))
    assert picture.pixels.dtype == torch.uint8
    assert picture.pixels.is_contiguous()
    assert picture.pixels.shape == (3, 6, 9)
    np.testing.assert_array_equal(picture.pixels.permute(1, 2, 0).numpy(), np.array(rgb()))
    assert picture.notes == ()
    assert picture.metadata == {}


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1)])
def test_smallest_sizes(size) -> None:
    assert read_picture(stored(rgb(*size))).pixels.shape == (3, *size)


def test_grey_stays_grey() -> None:
    picture = read_picture(stored(Image.fromarray(RAMP)))
    np.testing.assert_array_equal(picture.pixels[0].numpy(), RAMP)
    assert picture.pixels.shape == (1, 3, 4)
    assert picture.notes == ()


def test_black_and_white() -> None:
    picture = read_picture(stored(Image.fromarray(RAMP > 100)))
    np.testing.assert_array_equal(picture.pixels[0].numpy(), np.where(RAMP > 100, 255, 0))


def test_palette() -> None:
    image = rgb().quantize(5)
    picture = read_picture(stored(image))
    np.testing.assert_array_equal(picture.pixels.permute(1, 2, 0).numpy(), np.array(image.convert("RGB")))
    assert picture.notes == ()


def test_palette_with_a_transparent_colour() -> None:
    image = Image.new("P", (4, 2), 1)
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putpixel((0, 0), 0)
    picture = read_picture(stored(image, transparency=0))
    assert picture.pixels[:, 0, 0].tolist() == [255, 255, 255]
    assert picture.pixels[:, 1, 3].tolist() == [200, 100, 0]
    assert "on white" in picture.notes[0]


def test_sixteen_bit_grey() -> None:
    values = np.array([[0, 128, 129, 257], [32768, 65535, 65406, 65407]], np.uint16)
    for kind in ("PNG", "TIFF"):
        picture = read_picture(stored(Image.fromarray(values), kind))
        assert picture.pixels[0].tolist() == [[0, 0, 1, 1], [128, 255, 254, 255]]
        assert picture.notes == ("16 bits a channel were reduced to 8",)


def test_sixteen_bit_colour() -> None:
    """Pillow cannot write such a file, so this is one by hand: 1 x 1, 16-bit RGB."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    data += chunk(b"IDAT", zlib.compress(b"\0\xff\xff\x80\x00\x00\x00")) + chunk(b"IEND", b"")
    picture = read_picture(data)
    assert picture.pixels.flatten().tolist() == [255, 128, 0]
    assert picture.notes == ("16 bits a channel were reduced to 8",)


def test_alpha_is_put_on_white_and_said() -> None:
    image = rgb().convert("RGBA")
    image.putalpha(0)
    image.putpixel((0, 0), (10, 20, 30, 255))
    picture = read_picture(stored(image))
    assert picture.pixels[:, 0, 0].tolist() == [10, 20, 30]
    assert bool((picture.pixels[:, 1:] == 255).all())
    assert picture.notes == ("transparency is not kept yet: the picture was put on white",)


def test_alpha_of_a_grey_picture() -> None:
    image = Image.new("LA", (3, 2), (0, 128))
    picture = read_picture(stored(image))
    assert picture.pixels.shape == (1, 2, 3)
    assert picture.pixels.unique().tolist() == [127]


def test_opaque_alpha_is_no_loss() -> None:
    picture = read_picture(stored(rgb().convert("RGBA")))
    np.testing.assert_array_equal(picture.pixels.permute(1, 2, 0).numpy(), np.array(rgb()))
    assert picture.notes == ()


def test_cmyk() -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    picture = read_picture(stored(image, "TIFF"))
    assert picture.pixels[:, 4, 4].tolist() == [255, 0, 0]
    assert picture.notes == ("CMYK was converted to RGB",)


def test_cmyk_with_a_profile_that_does_not_fit() -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = read_picture(stored(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF", icc_profile=icc))
    assert "colours are approximate" in picture.notes[1]
    assert "icc" not in picture.metadata


def test_first_of_several_frames() -> None:
    data = stored(rgb(), "TIFF", save_all=True, append_images=[rgb(), rgb()])
    picture = read_picture(data)
    assert picture.notes == ("only the first of 3 frames is kept",)


def test_floating_point_is_refused() -> None:
    with pytest.raises(PictureError, match="floating-point"):
        read_picture(stored(Image.new("F", (2, 2), 0.5), "TIFF"))


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_no_picture(data) -> None:
    with pytest.raises(PictureError, match="not a picture"):
        read_picture(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"])
def test_damaged_pictures(kind) -> None:
    data = stored(rgb(40, 60), kind)
    rng = np.random.default_rng(0)
    for cut in rng.integers(0, len(data), 20):
        damaged = bytearray(data)
        damaged[cut] ^= 0xFF
        for candidate in (data[:cut], bytes(damaged)):
            try:
                read_picture(candidate)
            except PictureError as error:
                assert str(error)  # noqa: PT017 - that nothing else is raised is what is tested


def test_too_many_pixels() -> None:
    with pytest.raises(PictureError, match="more than 50 pixels"):
        read_picture(stored(rgb(6, 9)), Limits(max_pixels=50))
    with pytest.raises(PictureError, match="more than 20 pixels"):
        read_picture(stored(rgb(6, 9)), Limits(max_pixels=20))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_and_forgotten(kind, orientation) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "a picture"
    smooth = np.add.outer(np.arange(16), 3 * np.arange(24)).astype(np.uint8)
    data = stored(Image.fromarray(smooth), kind, exif=exif)
    picture = read_picture(data)
    original = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert picture.pixels.shape[1:] == ((16, 24) if orientation < 5 else (24, 16))
    assert np.abs(picture.pixels[0].numpy().astype(int) - original[..., 0]).max() <= 6
    again = Image.open(io.BytesIO(picture_bytes(picture.pixels, ".png", picture.metadata)))
    assert again.getexif().get(0x0112, 1) == 1
    if kind != "TIFF":
        assert again.getexif()[0x010E] == "a picture"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tiff", ".avif"])
def test_metadata_is_written(suffix) -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010E] = "a picture"
    exif[0x0100] = 4000  # the width that a camera meant
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
    metadata = {"icc": icc, "exif": exif.tobytes().removeprefix(b"Exif\0\0"), "xmp": xmp}
    pixels = torch.from_numpy(np.array(rgb())).permute(2, 0, 1)
    data = picture_bytes(pixels, suffix, metadata)
    again = Image.open(io.BytesIO(data))
    assert again.size == (9, 6)
    assert again.info["icc_profile"] == icc
    assert again.getexif()[0x010E] == "a picture"
    assert read_picture(data).metadata["xmp"] == xmp


def test_only_the_orientation_changes_in_exif() -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    exif[0x0112] = 6
    raw = exif.tobytes().removeprefix(b"Exif\0\0")
    changed = upright(raw)
    assert sum(a != b for a, b in zip(raw, changed, strict=True)) == 1
    assert upright(changed) == changed
    for cut in range(len(raw)):
        assert len(upright(raw[:cut])) == cut


def test_grey_is_written_as_grey() -> None:
    data = picture_bytes(torch.from_numpy(RAMP)[None], ".png")
    assert Image.open(io.BytesIO(data)).mode == "L"


def test_what_cannot_be_written() -> None:
    with pytest.raises(PictureError, match="cannot be written as JPEG"):
        picture_bytes(torch.zeros(1, 1, 70000, dtype=torch.uint8), ".jpg")
    with pytest.raises(PictureError, match=r"cannot write '\.doc' files"):
        picture_bytes(torch.zeros(1, 1, 1, dtype=torch.uint8), ".doc")
