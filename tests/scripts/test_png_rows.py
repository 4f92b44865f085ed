"""PNG that is written row by row is what Pillow reads, whatever the pieces."""

import io

import numpy as np
import pytest
from PIL import Image

from latentpress.scripts.png_rows import PngWriter


def written(pieces, height, bits=8, metadata=None) -> bytes:
    file = io.BytesIO()
    writer = PngWriter(file, pieces[0].shape[2], height, len(pieces[0]), bits, metadata)
    for piece in pieces:
        writer.write(piece)
    writer.finish()
    return file.getvalue()


def smooth(channels: int, height: int, width: int, top: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(1).normal(0, 0.01, (channels, height, width))
    planes = np.stack([0.5 + 0.4 * np.sin(x / (7 + c)) * np.cos(y / (5 + c)) for c in range(channels)])
    return ((planes + noise).clip(0, 1) * top).astype(np.uint8 if top == 255 else np.uint16)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 200), (150, 1), (130, 77)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_8_bits(channels, height, width):
    pixels = smooth(channels, height, width, 255)
    with Image.open(io.BytesIO(written([pixels], height))) as image:
        assert image.mode == ["L", "LA", "RGB", "RGBA"][channels - 1]
        found = np.array(image).reshape(height, width, channels)
    assert np.array_equal(found, pixels.transpose(1, 2, 0))


def test_16_bits():
    pixels = smooth(1, 70, 40, 65535)
    with Image.open(io.BytesIO(written([pixels], 70, bits=16))) as image:
        assert np.array_equal(np.array(image), pixels[0])


def test_16_bits_in_colour():
    """Pillow reads only the upper byte of each sample."""
    pixels = smooth(3, 33, 21, 65535)
    with Image.open(io.BytesIO(written([pixels], 33, bits=16))) as image:
        assert np.array_equal(np.array(image), (pixels >> 8).transpose(1, 2, 0))


def test_pieces_make_no_difference():
    pixels = smooth(3, 130, 50, 255)
    whole = written([pixels], 130)
    pieces = [pixels[:, :1], pixels[:, 1:64], pixels[:, 64:129], pixels[:, 129:]]
    with Image.open(io.BytesIO(written(pieces, 130))) as image, Image.open(io.BytesIO(whole)) as expected:
        assert np.array_equal(np.array(image), np.array(expected))


def test_is_about_as_small_as_pillow_makes_it():
    pixels = smooth(3, 200, 300, 255)
    file = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(file, "PNG")
    assert len(written([pixels], 200)) < 1.1 * len(file.getvalue())


def test_metadata():
    exif = Image.Exif()
    exif[0x010E] = "a description"
    blocks = {"icc": b"profile" * 50, "exif": exif.tobytes()[6:], "xmp": "<x:xmpmeta>ä</x:xmpmeta>".encode()}
    with Image.open(io.BytesIO(written([np.zeros((3, 2, 2), np.uint8)], 2, metadata=blocks))) as image:
        image.load()
        assert image.info["icc_profile"] == blocks["icc"]
        assert image.getexif()[0x010E] == "a description"
        assert image.info["XML:com.adobe.xmp"].encode() == blocks["xmp"]


def test_what_does_not_fit():
    writer = PngWriter(io.BytesIO(), 4, 3, 3)
    for wrong in (
        np.zeros((1, 1, 4), np.uint8),
        np.zeros((3, 1, 5), np.uint8),
        np.zeros((3, 1, 4), np.uint16),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            writer.write(wrong)
    with pytest.raises(ValueError, match="4 rows are too many: 3 are left"):
        writer.write(np.zeros((3, 4, 4), np.uint8))
    writer.write(np.zeros((3, 2, 4), np.uint8))
    with pytest.raises(ValueError, match="1 rows are missing"):
        writer.finish()
