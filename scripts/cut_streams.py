"""What the first part of a stream shows on its own, and what its side information alone would.

``python -m latentpress.scripts.cut_streams --weights image-max --data FOLDER`` compresses pictures, decodes
them whole, cut behind their first part (the core), and with every latent at the mean that is predicted from
the hyperprior and from other such means. It prints a row for each quality, means over the pictures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from latentpress.codecs.bitstream import DEFAULT_LIMITS, TableSet
from latentpress.codecs.image import ImageCodec
from latentpress.codecs.image_decoding import ImageDecoder
from latentpress.codecs.registry import load
from latentpress.codecs.symbol_coders import CodedPart, InProcessCoders, SymbolReading, done
from latentpress.scripts.failures import run_reported
from latentpress.scripts.measures import compare
from latentpress.scripts.pictures import read_flat_picture
from latentpress.scripts.rate_distortion import find_pictures
from latentpress.scripts.text_table import format_table


class Cut(NamedTuple):
    """One picture at one quality.

    Attributes:
        core_share: Bytes up to the first cut point, as a share of the stream.
        psnr: Of the whole stream, in dB.
        core_psnr: Of the stream cut there.
        side_psnr: Of its side information alone.
    """

    core_share: float
    psnr: float
    core_psnr: float
    side_psnr: float


class SideInformationAlone(InProcessCoders):
    """Reads the first groups of a part, which are the side information; all others are zeros.

    Args:
        groups: How many those are.
    """

    def __init__(self, groups: int) -> None:
        self._groups = groups

    def read(self, part: CodedPart, tables: TableSet, prefix: bytes) -> SymbolReading:
        """Begins to decode a part."""
        return _FirstGroups(super().read(part, tables, prefix), self._groups)


class _FirstGroups:
    def __init__(self, reading: SymbolReading, count: int) -> None:
        self._reading = reading
        self._left = count

    def get(self, indexes: NDArray[np.uint8]) -> Future[NDArray[np.int16]]:
        """The next group."""
        if self._left > 0:
            self._left -= 1
            return self._reading.get(indexes)
        return done(lambda: np.zeros(len(indexes), np.int16))

    def finish(self) -> Future[None]:
        """Checks nothing, as most of the part was not read."""
        return done(lambda: None)


def cut_picture(codec: ImageCodec, path: Path, quality: float) -> Cut:
    """Compresses a picture and decodes it in three ways.

    Args:
        codec: One whose streams have several parts.
        path: Of the picture.
        quality: 0 to 100.
    """
    picture = read_flat_picture(path.read_bytes()).pixels
    data = codec.compress(picture, quality=quality)
    core = codec.cut_points(data)[0]
    # Without the other parts, whose first groups are no side information.
    stream, _ = codec._read(data[:core], DEFAULT_LIMITS, partial=True)
    alone = SideInformationAlone(codec._coder.hyper_prior.steps)
    decoder = ImageDecoder(stream, codec._transforms, codec._coder, alone)
    ((_, colour),) = decoder.bands(stream.header.grid.picture)
    side = (colour.clamp(0, 1) * 255).round().to(torch.uint8)
    decoded = (codec.decompress(data), codec.decompress(data[:core], partial=True), side)
    return Cut(core / len(data), *(compare(picture, one).psnr for one in decoded))


def report(codec: ImageCodec, paths: Sequence[Path], qualities: Sequence[float]) -> str:
    """A table with a row for each quality, means over the pictures.

    Args:
        codec: One whose streams have several parts.
        paths: Of pictures of at most one tile.
        qualities: 0 to 100 each.
    """
    rows = []
    for quality in qualities:
        cuts = [cut_picture(codec, path, quality) for path in paths]
        share, psnr, core, side = map(fmean, zip(*cuts, strict=True))
        least = min(cut.core_psnr - cut.side_psnr for cut in cuts)
        numbers = (psnr, core, side, core - side, least)
        rows.append([f"{quality:g}", f"{share:.0%}", *(f"{number:.2f}" for number in numbers)])
    header = ["quality", "core of bytes", "whole, dB", "core, dB", "side, dB", "core - side", "least"]
    return format_table(header, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints.

    Args:
        arguments: None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.scripts.cut_streams", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--weights", default="image-max", metavar="NAME", help="name or weight file")
    parser.add_argument("--data", required=True, metavar="FOLDER", help="pictures")
    parser.add_argument("--qualities", type=float, nargs="+", default=[20.0, 50.0, 80.0], metavar="Q")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures")
    options = parser.parse_args(arguments)

    def measured() -> None:
        codec = load(options.weights)
        if not isinstance(codec, ImageCodec) or codec._coder.parts < 2:
            raise ValueError(f"streams of {options.weights} have one part only")
        print(report(codec, find_pictures(options.data, options.limit), options.qualities))

    return run_reported(measured)


if __name__ == "__main__":
    sys.exit(main())
