"""Makes small picture files of every kind: modes, depths, transparency, metadata, and some to be refused."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from latentpress.scripts.png_rows import png_bytes

HEIGHT, WIDTH = 36, 52

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="a"/></x:xmpmeta>'

_ORIENTATION = 0x0112
_EXIF_DIRECTORY = 0x8769
_PROFILE_DATE = slice(24, 36)


@dataclass(frozen=True)
class Sample:
    """A picture file and what must become of it.

    Attributes:
        name: Of the file.
        data: Its content.
        channels: Of the picture as codecs take it: 1 grey, 2 with alpha, 3 RGB, 4 with alpha.
        bits: 8 or 16.
        kept: Which of ``icc``, ``exif`` and ``xmp`` the file has and must not lose, and their bytes.
        note: A part of what must be said of it; empty if nothing is lost.
        refusal: A part of the sentence with which it is refused; empty if it is not.
    """

    name: str
    data: bytes
    channels: int = 3
    bits: int = 8
    kept: dict[str, bytes] = field(default_factory=dict)
    note: str = ""
    refusal: str = ""


def profile() -> bytes:
    """A colour profile, the same bytes whenever it is made."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    made[_PROFILE_DATE] = struct.pack(
        ">6H", 2020, 2, 2, 20, 20, 20
    )  # Little CMS writes the second of making it
    return bytes(made)


def exif_block(orientation: int = 1) -> bytes:
    """EXIF data with an orientation, a text and a directory of its own."""
    exif = Image.Exif()
    exif[0x010E] = "a picture"
    exif[_ORIENTATION] = orientation
    exif.get_ifd(_EXIF_DIRECTORY)[0x9003] = "2020:02:02 20:20:20"
    return exif.tobytes()


def picture_samples() -> list[Sample]:
    """All of them.

    Example:
        >>> len(picture_samples()) >= 30
        True
    """
    return [*_plain(), *_transparent(), *_deep(), *_with_metadata(), *_converted(), *_refused()]


def _plain() -> list[Sample]:
    return [
        Sample("rgb.png", _stored(_rgb())),
        Sample("rgb.bmp", _stored(_rgb(), "BMP")),
        Sample("rgb.ppm", _stored(_rgb(), "PPM")),
        Sample("rgb.jp2", _stored(_rgb(), "JPEG2000")),
        Sample("grey.png", _stored(_grey()), channels=1),
        Sample("grey.jpg", _stored(_grey(), "JPEG", quality=95), channels=1),
        Sample("black-and-white.png", _stored(_grey().convert("1")), channels=1),
        Sample("palette.png", _stored(_rgb().quantize(32))),
        Sample("one-pixel.png", _stored(Image.new("RGB", (1, 1), "teal"))),
        Sample("video-colours.tiff", _stored(_rgb().convert("YCbCr"), "TIFF")),
    ]


def _transparent() -> list[Sample]:
    soft, hard = _with_alpha(_rgb(), _disc(6)), _with_alpha(_rgb(), _disc(0.1))
    palette = _rgb().quantize(16)
    return [
        Sample("rgba.png", _stored(soft), channels=4),
        Sample("rgba-hard.png", _stored(hard), channels=4),
        Sample("rgba-opaque.png", _stored(_rgb().convert("RGBA"))),
        Sample("rgba-invisible.png", _stored(_with_alpha(_rgb(), np.zeros_like(_disc(1)))), channels=4),
        Sample("rgba.webp", _stored(soft, "WEBP", lossless=True), channels=4),
        Sample("rgba.avif", _stored(soft, "AVIF", quality=90), channels=4),
        Sample("rgba.tga", _stored(soft, "TGA"), channels=4),
        Sample("grey-alpha.png", _stored(_with_alpha(_grey(), _disc(6))), channels=2),
        Sample("grey-alpha.tiff", _stored(_with_alpha(_grey(), _disc(6)), "TIFF"), channels=2),
        Sample("palette-transparent.png", _stored(palette, transparency=3), channels=4),
        Sample("palette-transparent.gif", _stored(palette, "GIF", transparency=3), channels=4),
        Sample(
            "one-colour-transparent.png", _stored(_grey(), transparency=_grey().getpixel((5, 5))), channels=2
        ),
    ]


def _deep() -> list[Sample]:
    grey = Image.fromarray(_deep_planes(1)[0])
    return [
        Sample("grey-16.png", _stored(grey), channels=1, bits=16),
        Sample("grey-16.tiff", _stored(grey, "TIFF"), channels=1, bits=16),
        Sample("grey-alpha-16.png", png_bytes(_deep_planes(2)), channels=2, bits=16),
        Sample("rgb-16.png", png_bytes(_deep_planes(3)), bits=16),
        Sample(
            "rgba-16.png",
            png_bytes(_deep_planes(4), {"icc": profile(), "xmp": XMP}),
            channels=4,
            bits=16,
            kept={"icc": profile(), "xmp": XMP},
        ),
    ]


def _with_metadata() -> list[Sample]:
    blocks = {"icc_profile": profile(), "exif": exif_block(), "xmp": XMP}
    everything = {"icc": profile(), "exif": _bare(exif_block()), "xmp": XMP}
    turned = [
        Sample(
            f"orientation-{orientation}.{suffix}",
            _stored(_rgb(), kind, exif=exif_block(orientation), **options),
            kept={"exif": _bare(exif_block())},
        )
        for orientation, suffix, kind, options in (
            (3, "jpg", "JPEG", {"quality": 95}),
            (6, "jpg", "JPEG", {"quality": 95}),
            (8, "png", "PNG", {}),
            (5, "webp", "WEBP", {"lossless": True}),
        )
    ]
    return [
        Sample("metadata.jpg", _stored(_rgb(), "JPEG", quality=95, **blocks), kept=everything),
        Sample("metadata.webp", _stored(_rgb(), "WEBP", lossless=True, **blocks), kept=everything),
        # Pillow takes the orientation out of the EXIF data of such a file, so these are other bytes.
        Sample(
            "metadata.avif",
            _stored(_rgb(), "AVIF", quality=95, **blocks),
            kept={"icc": profile(), "xmp": XMP},
        ),
        Sample(
            "metadata.tiff",
            _stored(_rgb(), "TIFF", icc_profile=profile(), tiffinfo={0x010E: "a picture", 700: XMP}),
            kept={"icc": profile(), "xmp": XMP},
        ),
        *turned,
    ]


def _converted() -> list[Sample]:
    cmyk, frames = _rgb().convert("CMYK"), [_rgb(), _grey().convert("RGB")]
    return [
        Sample("cmyk.jpg", _stored(cmyk, "JPEG", quality=95), note="CMYK was converted"),
        Sample("cmyk.tiff", _stored(cmyk, "TIFF"), note="CMYK was converted"),
        Sample("lab.tiff", _stored(_lab(), "TIFF"), note="Lab was converted"),
        Sample(
            "frames.tiff",
            _stored(frames[0], "TIFF", save_all=True, append_images=frames[1:]),
            note="only the first of 2 frames",
        ),
    ]


def _refused() -> list[Sample]:
    floats = Image.fromarray(np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH))
    integers = Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.int32).reshape(HEIGHT, WIDTH) * 100)
    whole = _stored(_rgb())
    return [
        Sample("floating-point.tiff", _stored(floats, "TIFF"), refusal="floating-point pixels"),
        Sample("integers-32.tiff", _stored(integers, "TIFF"), refusal="32-bit integer pixels"),
        Sample("cut.png", whole[: len(whole) // 2], refusal="cannot be read"),
        Sample("text.png", b"this is no picture\n", refusal="not a picture"),
        Sample("empty.png", b"", refusal="not a picture"),
    ]


def _rgb() -> Image.Image:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = [4 * x + 20, 5 * y + 30, 2 * (x + y) + 40]
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))


def _grey() -> Image.Image:
    return _rgb().convert("L")


def _lab() -> Image.Image:
    found = ImageCms.profileToProfile(
        _rgb(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert found is not None  # None only for conversions in place
    return found


def _disc(softness: float) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    distance = np.hypot(y - HEIGHT / 2, x - WIDTH / 2) - 12
    return (np.clip(0.5 - distance / softness, 0, 1) * 255).round().astype(np.uint8)


def _with_alpha(image: Image.Image, alpha: NDArray[np.uint8]) -> Image.Image:
    layers = image.copy()
    layers.putalpha(Image.fromarray(alpha))
    return layers


def _deep_planes(channels: int) -> NDArray[Any]:
    """Slopes in steps that 8 bits do not have, and alpha where there is any."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = [(1100 * x + 130 * y + 900 * c).clip(0, 65535) for c in range(channels)]
    if channels % 2 == 0:
        planes[-1] = _disc(20).astype(np.int64) * 257
    return np.stack(planes).astype(np.uint16)


def _bare(exif: bytes) -> bytes:
    return exif.removeprefix(b"Exif\0\0")


def _stored(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
