"""Pictures of every kind become grey or RGB, with alpha or without, and say what they lost."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps

from latentpress.codecs.bitstream import Limits
from latentpress.scripts.exif import upright
from latentpress.scripts.failures import PictureError
from latentpress.scripts.pictures import picture_bytes, picture_file, read_flat_picture, read_picture
from latentpress.scripts.png_rows import png_bytes

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
    assert picture.pixels[:, 0, 0].tolist() == [10, 20, 30, 0]
    assert picture.pixels[:, 1, 3].tolist() == [200, 100, 0, 255]
    assert picture.notes == ()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_one_transparent_colour(mode) -> None:
    image = Image.new(mode, (4, 2), 7 if mode == "L" else (7, 8, 9))
    image.putpixel((1, 1), 200 if mode == "L" else (7, 8, 10))
    picture = read_picture(stored(image, transparency=image.getpixel((0, 0))))
    assert picture.pixels.shape[0] == (2 if mode == "L" else 4)
    assert (picture.pixels[-1] == 255).nonzero().tolist() == [[1, 1]]
    assert bool((picture.pixels[-1] == 0).sum() == 7)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey(kind) -> None:
    values = np.array([[0, 128, 129, 257], [32768, 65535, 65406, 65407]], np.uint16)
    picture = read_picture(stored(Image.fromarray(values), kind))
    assert picture.pixels.dtype == torch.uint16
    np.testing.assert_array_equal(picture.pixels[0].numpy(), values)
    assert picture.notes == ()
    flat = read_flat_picture(stored(Image.fromarray(values), kind))
    assert flat.pixels[0].tolist() == [[0, 0, 1, 1], [128, 255, 254, 255]]
    assert flat.notes == ("16 bits a channel were reduced to 8",)


def test_sixteen_bit_grey_with_a_transparent_value() -> None:
    values = np.array([[5, 300], [65535, 5]], np.uint16)
    picture = read_picture(stored(Image.fromarray(values), transparency=5))
    np.testing.assert_array_equal(picture.pixels.numpy(), [values, [[0, 65535], [65535, 0]]])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_through_png(channels) -> None:
    """Every sample comes back, through the writer and the reader, whichever filters the rows have."""
    noise = np.random.default_rng(channels).integers(0, 65536, (channels, 9, 14), np.uint16)
    slope = (np.arange(9)[:, None] * 700 + np.arange(14) * 90).astype(np.uint16)
    for planes in (noise, np.stack([slope + 5 * c for c in range(channels)]).astype(np.uint16)):
        data = picture_file(torch.from_numpy(planes), ".png").data
        picture = read_picture(data)
        assert (picture.pixels.dtype, picture.notes) == (torch.uint16, ())
        np.testing.assert_array_equal(picture.pixels.numpy(), planes)


@pytest.mark.parametrize("orientation", [1, 6])
def test_sixteen_bit_colour_is_turned_upright_and_keeps_its_metadata(orientation) -> None:
    planes = np.random.default_rng(1).integers(0, 65536, (3, 5, 8), np.uint16)
    exif = Image.Exif()
    exif[0x0112] = orientation
    metadata = {"icc": b"profile", "exif": exif.tobytes()[6:], "xmp": b"<x/>"}
    picture = read_picture(png_bytes(planes, metadata))
    expected = planes if orientation == 1 else np.rot90(planes, -1, (1, 2))
    np.testing.assert_array_equal(picture.pixels.numpy(), expected)
    assert picture.metadata == {**metadata, "exif": upright(metadata["exif"])}


def test_sixteen_bit_colour_with_a_transparent_one() -> None:
    planes = np.full((3, 2, 2), 40000, np.uint16)
    planes[1, 0, 1] += 1
    data = png_bytes(planes)
    end = data.index(b"IDAT") - 4
    picture = read_picture(data[:end] + png_chunk(b"tRNS", b"\x9c\x40" * 3) + data[end:])
    assert picture.pixels.shape[0] == 4
    assert picture.pixels[3].tolist() == [[0, 65535], [0, 0]]


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def deep_tiff(
    planes: np.ndarray, order: str = "<", separate: bool = False, compressed: bool = False
) -> bytes:
    """A TIFF file of 16 bits a sample in one strip, or one a plane, which Pillow cannot write."""
    channels, height, width = planes.shape
    stored_planes = planes if separate else planes.transpose(1, 2, 0)
    content = stored_planes.astype(f"{order}u2").tobytes()
    content = zlib.compress(content) if compressed else content
    strips = channels if separate else 1
    tags = {
        256: [width],
        257: [height],
        258: [16] * channels,
        259: [8 if compressed else 1],
        262: [2],
        273: [8 + k * (len(content) // strips) for k in range(strips)],
        277: [channels],
        278: [height],
        279: [len(content) // strips] * strips,
        284: [2 if separate else 1],
        **({338: [2]} if channels == 4 else {}),
    }
    place = 8 + len(content)
    directory, extra = struct.pack(f"{order}H", len(tags)), b""
    after = place + 2 + 12 * len(tags) + 4
    for tag, values in tags.items():
        packed = struct.pack(f"{order}{len(values)}I", *values)
        field = packed
        if len(values) > 1:
            field = struct.pack(f"{order}I", after + len(extra))
            extra += packed
        directory += struct.pack(f"{order}HHI", tag, 4, len(values)) + field
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, place)
    return head + content + directory + bytes(4) + extra


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [False, True])
def test_sixteen_bit_tiff(channels, order, compressed) -> None:
    planes = np.random.default_rng(2).integers(0, 65536, (channels, 6, 5), np.uint16)
    picture = read_picture(deep_tiff(planes, order, compressed=compressed))
    assert picture.notes == ()
    np.testing.assert_array_equal(picture.pixels.numpy(), planes)


def test_sixteen_bit_tiff_that_pillow_gets_wrong() -> None:
    planes = np.random.default_rng(2).integers(0, 65536, (3, 6, 5), np.uint16)
    with pytest.raises(PictureError, match="a plane for each colour"):
        read_picture(deep_tiff(planes, separate=True))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_kept(kind, mode) -> None:
    image = rgb().convert(mode)
    image.putalpha(Image.fromarray(np.arange(54, dtype=np.uint8).reshape(6, 9) * 4))
    picture = read_picture(
        stored(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    )
    if kind == "WEBP":  # which has no grey
        image = image.convert("RGBA")
    np.testing.assert_array_equal(picture.pixels.permute(1, 2, 0).numpy(), np.array(image))
    assert picture.notes == ()


def test_alpha_is_put_on_white_where_that_is_asked_for() -> None:
    image = rgb().convert("RGBA")
    image.putalpha(0)
    image.putpixel((0, 0), (10, 20, 30, 255))
    picture = read_flat_picture(stored(image))
    assert picture.pixels[:, 0, 0].tolist() == [10, 20, 30]
    assert bool((picture.pixels[:, 1:] == 255).all())
    assert picture.notes == ("the transparent picture was put on white",)
    grey = read_flat_picture(stored(Image.new("LA", (3, 2), (0, 128))))
    assert grey.pixels.shape == (1, 2, 3)
    assert grey.pixels.unique().tolist() == [127]


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_opaque_alpha_says_nothing(mode) -> None:
    picture = read_picture(stored(rgb().convert(mode)))
    np.testing.assert_array_equal(
        picture.pixels.permute(1, 2, 0).numpy().squeeze(), np.array(rgb().convert(mode[:-1]))
    )
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


def test_lab() -> None:
    picture = read_picture(stored(Image.new("LAB", (4, 3), (255, 128, 128)), "TIFF"))
    assert picture.pixels.shape == (3, 3, 4)
    assert int(picture.pixels.int().min()) > 250
    assert picture.notes == ("Lab was converted to RGB",)


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


def test_tags_of_a_tiff_file_travel() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a picture"
    exif[0x0132] = "2020:02:02 02:02:02"
    exif.get_ifd(0x8769)[0x9003] = "2019:01:01 00:00:00"
    exif.get_ifd(0x8825)[1] = "N"
    filled = Image.Exif()
    filled.load(exif.tobytes())
    picture = read_picture(stored(rgb(), "TIFF", exif=filled))
    assert picture.notes == ()
    for suffix in (".tiff", ".jpg"):
        again = Image.open(io.BytesIO(picture_bytes(picture.pixels, suffix, picture.metadata))).getexif()
        assert (again[0x010E], again[0x0132]) == ("a picture", "2020:02:02 02:02:02")
        assert again.get_ifd(0x8769)[0x9003] == "2019:01:01 00:00:00"
        assert again.get_ifd(0x8825)[1] == "N"
    assert "exif" not in read_picture(stored(rgb(), "TIFF")).metadata


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


@pytest.mark.parametrize(
    ("suffix", "channels", "kind", "note"),
    [
        (".png", 4, torch.uint16, None),
        (".png", 2, torch.uint8, None),
        (".webp", 4, torch.uint8, None),
        (".avif", 4, torch.uint8, None),
        (".tiff", 2, torch.uint8, None),
        (".tiff", 1, torch.uint16, None),
        (".tiff", 3, torch.uint16, "use .png for 16"),
        (".webp", 1, torch.uint16, "use .png for 16"),
        (".jpg", 4, torch.uint8, "put on white"),
        (".jpg", 3, torch.uint16, "reduced to 8"),
    ],
)
def test_what_formats_hold(suffix, channels, kind, note) -> None:
    top = 255 if kind == torch.uint8 else 65535
    planes = np.linspace(1, top - 1, channels * 20 * 24).reshape(channels, 20, 24)
    pixels = torch.from_numpy(planes.astype(np.uint8 if kind == torch.uint8 else np.uint16))
    file = picture_file(pixels, suffix)
    assert (file.notes == ()) if note is None else (note in file.notes[0])
    again = read_picture(file.data).pixels
    if note is None:
        assert again.dtype == kind
        if suffix in (".png", ".tiff"):
            assert torch.equal(again, pixels)
        assert (again.shape[0] % 2 == 0) == (channels % 2 == 0)
    else:
        assert again.dtype == torch.uint8


def test_what_cannot_be_written() -> None:
    with pytest.raises(PictureError, match="cannot be written as JPEG"):
        picture_bytes(torch.zeros(1, 1, 70000, dtype=torch.uint8), ".jpg")
    with pytest.raises(PictureError, match=r"cannot write '\.doc' files"):
        picture_bytes(torch.zeros(1, 1, 1, dtype=torch.uint8), ".doc")
