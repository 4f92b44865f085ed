"""Takes picture files through the codec and back, and prints what survived.

    python -m latentpress.scripts.check_pictures            generated files of every kind
    python -m latentpress.scripts.check_pictures FOLDER     all files of a folder and below it

Each file is read, compressed, decoded and written as PNG, which is read once more::

    file -> pixels, metadata -> stream -> pixels, metadata -> PNG -> pixels, metadata

A row says how many bits and channels came back, the PSNR of the colour that can be seen and the largest error
of alpha in 255ths; what became of colour profile, EXIF and XMP, which have to be the same byte for byte
(``-`` if there are none); and with which orientation the file was stored. A picture that cannot be taken has
the sentence with which it is refused. The exit code is 1 if anything was lost without a word.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

from latentpress.codecs import Codec, load, read_metadata
from latentpress.codecs.picture_modes import metadata_of
from latentpress.scripts.exif import upright
from latentpress.scripts.failures import PictureError
from latentpress.scripts.picture_samples import picture_samples
from latentpress.scripts.pictures import Picture, picture_file, read_picture
from latentpress.scripts.text_table import format_table

BLOCKS = ("icc", "exif", "xmp")

_ORIENTATION = 0x0112
_HEAD = ("file", "kind", "came back", "PSNR dB", "alpha", *BLOCKS, "turned", "result")
_LEFT = (0, 1, 2, 5, 6, 7, 9)
# Of a picture that is plain itself, no codec is closer than its mean.
_PLAIN_ENOUGH = 0.001
_CHANNELS = {1: "grey", 2: "grey+alpha", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Stored:
    """What a file says of itself, as Pillow reads it.

    Attributes:
        kind: Format and mode.
        metadata: What of ``icc``, ``exif`` and ``xmp`` there is.
        orientation: 1 to 8; 1 is upright.
        size: Width and height of the picture when it is upright.
    """

    kind: str
    metadata: dict[str, bytes]
    orientation: int
    size: tuple[int, int]


@dataclass(frozen=True)
class RoundTrip:
    """What became of a file.

    Attributes:
        name: Of the file.
        kind: Format and mode.
        came_back: Channels and bits, empty if it was refused.
        psnr: Of the colour that can be seen, dB; None if nothing can.
        alpha_error: The largest, in 255ths; None without alpha.
        blocks: ``kept``, ``lost`` or ``-`` for each of `BLOCKS`.
        orientation: That the file was stored with.
        result: ``ok``, notes on what was lost, or the sentence of a refusal.
        faults: What must not happen: something was lost without a word.
    """

    name: str
    kind: str
    came_back: str = ""
    psnr: float | None = None
    alpha_error: float | None = None
    blocks: tuple[str, ...] = ("", "", "")
    orientation: int = 1
    result: str = "ok"
    faults: tuple[str, ...] = ()


class ColourError(NamedTuple):
    """How far decoded colour is from what it was, where it can be seen; full range is 1.

    Attributes:
        mean_square: Of the error.
        variance: Of the picture: the mean square of the error of one colour all over.
    """

    mean_square: float
    variance: float

    @property
    def psnr(self) -> float:
        """In dB."""
        return 10 * math.log10(1 / self.mean_square) if self.mean_square else math.inf


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; returns 0 if nothing was lost without a word, else 1."""
    parser = argparse.ArgumentParser(prog="check_pictures", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="without it, files are generated")
    parser.add_argument("--codec", default="image", help="name or path of weights (default: image)")
    parser.add_argument("--quality", type=float, default=90.0, help="default: 90")
    parser.add_argument("--threads", type=int, help="default: all cores")
    args = parser.parse_args(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    codec = load(args.codec)
    if args.folder is None:
        files: Iterable[tuple[str, bytes]] = ((sample.name, sample.data) for sample in picture_samples())
    else:
        paths = sorted(path for path in args.folder.rglob("*") if path.is_file())
        files = ((str(path.relative_to(args.folder)), path.read_bytes()) for path in paths)
    trips = [round_trip(name, data, codec, args.quality) for name, data in files]
    print(format_table(_HEAD, [_row(trip) for trip in trips], _LEFT))
    wrong = [trip for trip in trips if trip.faults]
    refused = sum(not trip.came_back for trip in trips)
    print(f"\n{len(trips)} files, {refused} refused, {len(wrong)} with a fault")
    return 1 if wrong else 0


def round_trip(name: str, data: bytes, codec: Codec, quality: float) -> RoundTrip:
    """Takes a file through a codec and back.

    Args:
        name: Of the file.
        data: Its content.
        codec: Of pictures.
        quality: 0 to 100.

    Returns:
        What became of it.
    """
    stored = _stored(data)
    kind = "?" if stored is None else stored.kind
    try:
        picture = read_picture(data)
    except PictureError as error:
        return RoundTrip(name, kind, result=f"refused: {error}")
    assert stored is not None
    stream = codec.compress(picture.pixels, quality=quality, metadata=picture.metadata)
    decoded, carried = codec.decompress(stream).cpu(), read_metadata(stream)
    file = picture_file(decoded, ".png", carried)
    again = read_picture(file.data)
    expected = _expected(stored, picture)
    kept = {block: expected[block] == carried.get(block) == again.metadata.get(block) for block in expected}
    _, height, width = picture.pixels.shape
    faults = [f"{block} changed" for block, same in kept.items() if not same]
    if (width, height) != stored.size:
        faults.append(f"{width}x{height} pixels where there were {stored.size[0]}x{stored.size[1]}")
    if decoded.dtype != picture.pixels.dtype or decoded.shape != picture.pixels.shape:
        faults.append(f"{tuple(decoded.shape)} {decoded.dtype} came back")
    if not torch.equal(again.pixels, decoded):
        faults.append("the PNG file has other pixels")
    if Image.open(io.BytesIO(file.data)).getexif().get(_ORIENTATION, 1) != 1:
        faults.append("the PNG file would be turned once more")
    colour = _colour_error(picture.pixels, decoded)
    if colour is not None and colour.mean_square > max(colour.variance, _PLAIN_ENOUGH):
        faults.append("one colour all over would have been closer")
    alpha_error = _alpha_error(picture.pixels, decoded)
    if alpha_error is not None and alpha_error > 2:
        faults.append(f"alpha is off by {alpha_error:.1f}")
    return RoundTrip(
        name,
        kind,
        f"{_CHANNELS[len(decoded)]} {8 * decoded.element_size()}",
        None if colour is None else colour.psnr,
        alpha_error,
        tuple({True: "kept", False: "lost"}[kept[block]] if block in kept else "-" for block in BLOCKS),
        stored.orientation,
        "; ".join((*faults, *picture.notes)) or "ok",
        tuple(faults),
    )


def _stored(data: bytes) -> Stored | None:
    """None if Pillow cannot say anything of the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
            orientation = int(image.getexif().get(_ORIENTATION, 1))
            size = ImageOps.exif_transpose(image).size
            return Stored(f"{image.format} {image.mode}", metadata_of(image.info), orientation, size)
    except Exception:  # whatever Pillow raises, reading the file for real says it in a sentence
        return None


def _expected(stored: Stored, picture: Picture) -> dict[str, bytes]:
    """The blocks that must come back."""
    expected = dict(stored.metadata)
    if stored.kind.endswith(("CMYK", "LAB")):
        # That profile is of the colours that were converted.
        expected.pop("icc", None)
    if "exif" in expected:
        expected["exif"] = upright(expected["exif"])
    elif "exif" in picture.metadata:
        expected["exif"] = picture.metadata["exif"]  # made of the tags of a TIFF file
    if stored.orientation != 1 and "xmp" in expected:
        expected["xmp"] = picture.metadata.get("xmp", b"")  # less its orientation
    return expected


def _colour_error(original: torch.Tensor, decoded: torch.Tensor) -> ColourError | None:
    """None if no colour can be seen."""
    if original.shape != decoded.shape:
        return None
    top = 255 if original.dtype == torch.uint8 else 65535
    visible = torch.ones(original.shape[1:], dtype=torch.bool)
    if len(original) % 2 == 0:
        visible = original[-1].int() != 0
        original, decoded = original[:-1], decoded[:-1]
    if not bool(visible.any()):
        return None
    seen, found = (planes.double()[:, visible] / top for planes in (original, decoded))
    return ColourError(float((seen - found).square().mean()), float(seen.var(dim=1, correction=0).mean()))


def _alpha_error(original: torch.Tensor, decoded: torch.Tensor) -> float | None:
    if len(original) % 2 or original.shape != decoded.shape:
        return None
    top = 255 if original.dtype == torch.uint8 else 65535
    difference = np.abs(original[-1].numpy().astype(int) - decoded[-1].numpy().astype(int))
    return float(difference.max()) * 255 / top


def _row(trip: RoundTrip) -> list[str]:
    return [
        trip.name,
        trip.kind,
        trip.came_back,
        "" if trip.psnr is None else f"{trip.psnr:.1f}",
        "" if trip.alpha_error is None else f"{trip.alpha_error:.1f}",
        *trip.blocks,
        "" if trip.orientation == 1 else str(trip.orientation),
        trip.result,
    ]


if __name__ == "__main__":
    sys.exit(main())
