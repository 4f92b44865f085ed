"""What colours that photographs do not have become in the index codec, with and without anchors.

``python -m latentpress.scripts.index_saturated`` encodes plain colours, a blue disc with bars on white and a
picture that is half blue and half white. It decodes each stream as it is and without its COLOUR section.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

import latentpress
from latentpress.codecs.bitstream import SectionType, read_container, write_container
from latentpress.codecs.index import IndexCodec
from latentpress.scripts.failures import run_reported
from latentpress.scripts.text_table import format_table

COLOURS = ((0, 0, 255), (255, 0, 0), (0, 255, 0), (12, 200, 90), (255, 255, 0), (255, 0, 255))
"""Plain pictures of 64x64 pixels."""

BLUE, RED, WHITE = COLOURS[0], COLOURS[1], (255, 255, 255)


class Row(NamedTuple):
    """One stream, decoded twice.

    Attributes:
        picture: Its name.
        quality: It was made with.
        bytes: It has, with and without anchors.
        before: Means of red, green and blue without anchors.
        after: With them.
        psnr: In dB, without and with anchors; infinite where nothing differs.
    """

    picture: str
    quality: float
    bytes: tuple[int, int]
    before: tuple[int, ...]
    after: tuple[int, ...]
    psnr: tuple[float, float]


def plain(colour: tuple[int, int, int], height: int = 64, width: int = 64) -> Tensor:
    """A picture of one colour, ``(3, H, W)`` uint8."""
    return torch.tensor(colour, dtype=torch.uint8)[:, None, None].repeat(1, height, width)


def disc_and_bars() -> Tensor:
    """A blue disc, and bars like letters in black, red and blue, on white, ``(3, 256, 256)`` uint8."""
    picture = plain(WHITE, 256, 256)
    rows, columns = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    # The part of a pixel that is in the disc, as anti-aliasing has it.
    share = (70.5 - torch.hypot(rows - 100, columns - 100)).clamp(0, 1)
    picture[:2] = (255 * (1 - share)).round().to(torch.uint8)
    for number in range(6):
        ink = torch.tensor(RED if number % 2 else (0, 0, 0), dtype=torch.uint8)
        top = 20 + 18 * number
        picture[:, top : top + 7, 190 : 236 - 7 * (number % 3)] = ink[:, None, None]
    for number in range(12):
        ink = torch.tensor(BLUE if number % 2 else (0, 0, 0), dtype=torch.uint8)
        left = 20 + 18 * number
        picture[:, 190 : 221 if number % 3 else 241, left : left + 7] = ink[:, None, None]
    return picture


def halves() -> Tensor:
    """Blue beside white, with the edge within cells, ``(3, 256, 256)`` uint8."""
    return torch.cat([plain(BLUE, 256, 118), plain(WHITE, 256, 138)], dim=2)


def without_anchors(data: bytes) -> bytes:
    """The stream without its COLOUR section.

    Example:
        >>> kept = (SectionType.PAYLOAD, b"")
        >>> bare = write_container(2, bytes(8), [kept])
        >>> without_anchors(write_container(2, bytes(8), [(SectionType.COLOUR, b"blue"), kept])) == bare
        True
    """
    container = read_container(data)
    kept = [section for section in container.sections if section.type != SectionType.COLOUR]
    return write_container(container.codec_id, container.fingerprint, kept)


def rows_of(codec: IndexCodec, name: str, picture: Tensor, qualities: Sequence[float]) -> Iterator[Row]:
    """What a picture becomes at several qualities."""
    for quality in qualities:
        data = codec.compress(picture, quality=quality)
        bare = without_anchors(data)
        decoded = [codec.decompress(stream).float() for stream in (bare, data)]  # type: ignore[union-attr]
        means = [tuple(int(x) for x in found.mean((1, 2)).round()) for found in decoded]
        errors = [float((found - picture.float()).square().mean()) for found in decoded]
        first, second = (10 * math.log10(255**2 / error) if error else math.inf for error in errors)
        yield Row(name, quality, (len(bare), len(data)), means[0], means[1], (first, second))


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    lines = [
        [
            row.picture,
            f"{row.quality:g}",
            *(str(size) for size in row.bytes),
            *(" ".join(map(str, mean)) for mean in (row.before, row.after)),
            *(f"{psnr:.1f}" for psnr in row.psnr),
        ]
        for row in rows
    ]
    header = ("picture", "quality", "bytes", "anchored", "mean", "anchored", "PSNR", "anchored")
    return format_table(header, lines, left=(0,))


def main(argv: Sequence[str] | None = None) -> int:
    """Encodes, decodes and prints.

    Args:
        argv: Arguments after the program's name; None for those of this process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--codec", default="index", help="weights, by name or path (default: index)")
    parser.add_argument("--qualities", default="30,60,85,100", metavar="Q,Q,...", help="to encode with")
    args = parser.parse_args(argv)
    return run_reported(lambda: print(table(list(_measured(args)))))


def _measured(args: argparse.Namespace) -> Iterator[Row]:
    codec = latentpress.load(args.codec)
    if not isinstance(codec, IndexCodec):
        raise ValueError(f"{args.codec} are no weights of the index codec")
    qualities = [float(quality) for quality in args.qualities.split(",")]
    for colour in COLOURS:
        yield from rows_of(codec, " ".join(map(str, colour)), plain(colour), qualities)
    yield from rows_of(codec, "disc and bars", disc_and_bars(), qualities)
    yield from rows_of(codec, "half blue", halves(), qualities)


if __name__ == "__main__":
    sys.exit(main())
