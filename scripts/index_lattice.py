"""How much of a lattice pictures of the index codec have, with and without what takes it out.

``python -m latentpress.scripts.index_lattice --data FOLDER --streams FOLDER`` decodes streams that
``low_rate_comparison --write-streams`` made, with the lattice and without
(:mod:`latentpress.models.index.cell_lattice`), and prints PSNR, distortion and the *prominence* of a lattice:
by how much frequencies that a grid of cells has stand out from others.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

import latentpress
from latentpress.codecs.bitstream import DEFAULT_LIMITS
from latentpress.codecs.index import IndexCodec
from latentpress.models.index.granularity import CELL, QUARTER
from latentpress.models.wasserstein import wasserstein_distortion
from latentpress.scripts.failures import run_reported
from latentpress.scripts.pictures import read_flat_picture
from latentpress.scripts.rate_distortion import find_pictures
from latentpress.scripts.stored_streams import read_stream
from latentpress.scripts.text_table import format_table

WINDOW_CELLS = 4
"""Side of a window, in cells; a lattice has every fourth of its frequencies."""

ORIGINAL, BEFORE, AFTER = "original", "with the lattice", "without it"


class Row(NamedTuple):
    """One picture, as it was or as it was decoded.

    Attributes:
        kind: How it was made.
        psnr: In dB; nan for the original, as the next.
        distortion: Wasserstein distortion, in squared 8-bit steps.
        coarse: Prominences in windows of coarse cells, as logarithms, ``(n,)``.
        medium: In windows of medium quarters.
    """

    kind: str
    psnr: float
    distortion: float
    coarse: Tensor
    medium: Tensor


def prominences(image: Tensor, mask: Tensor, side: int) -> Tensor:
    """Logarithms of how much a grid's frequencies stand out, in windows of 4x4 cells.

    The energy at each frequency of which a cell has whole waves, against the mean of the four that are half a
    wave a cell away: below 0 on average where there is no lattice.

    Args:
        image: ``(3, H, W)`` in 8-bit steps, sides multiples of the cell's.
        mask: ``(H / side, W / side)`` bool, cells that count; a window counts with three quarters of them.
        side: Of a cell.

    Returns:
        ``(n,)``, one for every window, which overlap by half.

    Example:
        >>> noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> dots = torch.zeros(64, 64)
        >>> dots[::8, ::8] = 3.0
        >>> everywhere = torch.ones(8, 8).bool()
        >>> [round(float(prominences(x, everywhere, 8).mean())) for x in (noise, noise + dots)]
        [0, 3]
    """
    size, step = WINDOW_CELLS * side, WINDOW_CELLS * side // 2
    if min(image.shape[1:]) < size:
        return image.new_zeros(0)
    share = mask.float().unfold(0, WINDOW_CELLS, WINDOW_CELLS // 2).unfold(1, WINDOW_CELLS, WINDOW_CELLS // 2)
    windows = image.unfold(1, size, step).unfold(2, size, step)[:, share.mean((-1, -2)) >= 0.75]
    if not windows.shape[1]:
        return image.new_zeros(0)
    taper = torch.hann_window(size)
    windows = (windows - windows.mean((-1, -2), keepdim=True)) * taper[:, None] * taper
    # A thousandth of a step everywhere, so that even areas have a logarithm.
    energies = torch.fft.fft2(windows).abs().square().sum(0) + 1e-6 * size**2
    grid = energies[:, ::WINDOW_CELLS, ::WINDOW_CELLS]
    half = WINDOW_CELLS // 2
    shifted = (energies.roll(by, axis) for by in (half, -half) for axis in (1, 2))
    around = torch.stack([found[:, ::WINDOW_CELLS, ::WINDOW_CELLS] for found in shifted]).mean(0)
    return (grid / around).log().flatten(1)[:, 1:].mean(1)


def rows_of(codec: IndexCodec, picture: Tensor, data: bytes) -> Iterator[Row]:
    """The original, and what a stream of it is decoded to.

    Args:
        codec: Whose weights have a lattice's directions.
        picture: ``(3, H, W)`` uint8.
        data: A stream.
    """
    grains = codec._receive(data, DEFAULT_LIMITS).grains
    original = picture.float()

    def row(kind: str, pixels: Tensor) -> Row:
        cut = pixels[:, : pixels.shape[1] // CELL * CELL, : pixels.shape[2] // CELL * CELL]
        down, right = (size // CELL for size in cut.shape[1:])
        masks = grains.coarse_mask()[0, :down, :right], grains.medium_mask()[0, : 2 * down, : 2 * right]
        found = [prominences(cut, mask, side) for mask, side in zip(masks, (CELL, QUARTER), strict=True)]
        error = float((pixels - original).square().mean())
        psnr = 10 * torch.log10(torch.tensor(255**2 / error)).item() if error else float("nan")
        distortion = float(wasserstein_distortion(original[None] / 255, pixels[None] / 255)) * 255**2
        return Row(kind, psnr, distortion if error else float("nan"), *found)

    yield row(ORIGINAL, original)
    lattice = codec.lattice
    try:
        codec.lattice = None
        yield row(BEFORE, codec.decompress(data).float())  # type: ignore[union-attr]
    finally:
        codec.lattice = lattice
    yield row(AFTER, codec.decompress(data).float())  # type: ignore[union-attr]


def table(rows: Sequence[tuple[float, Row]]) -> str:
    """Means over the pictures of every rate; of prominences, over all windows."""
    lines = []
    for rate in sorted({rate for rate, _ in rows}):
        for kind in (ORIGINAL, BEFORE, AFTER):
            chosen = [row for other, row in rows if (other, row.kind) == (rate, kind)]
            means = [fmean(getattr(row, name) for row in chosen) for name in ("psnr", "distortion")]
            stand_out = [
                float(torch.cat([getattr(row, name) for row in chosen]).mean().exp())
                for name in ("coarse", "medium")
            ]
            shown = ["-" if math.isnan(x) else f"{x:.3f}" for x in means]
            lines.append([f"{rate:g}", kind, *shown, *(f"{x:.2f}" for x in stand_out)])
    return format_table(("rate", "picture", "PSNR", "distortion", "coarse", "medium"), lines, left=(1,))


def main(argv: Sequence[str] | None = None) -> int:
    """Decodes, measures and prints.

    Args:
        argv: Arguments after the program's name; None for those of this process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--codec", default="index", help="weights, by name or path (default: index)")
    parser.add_argument("--data", required=True, metavar="FOLDER", help="folder of pictures")
    parser.add_argument("--streams", required=True, metavar="FOLDER", help="folder of their streams")
    parser.add_argument("--rates", default="0.06,0.12", metavar="R,R,...", help="bits a pixel")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures")
    args = parser.parse_args(argv)
    return run_reported(lambda: print(table(list(_measured(args)))))


def _measured(args: argparse.Namespace) -> Iterator[tuple[float, Row]]:
    codec = latentpress.load(args.codec)
    if not isinstance(codec, IndexCodec) or codec.lattice is None:
        raise ValueError(f"the weights {args.codec} say nothing of a lattice")
    for path in find_pictures(args.data, args.limit):
        picture = read_flat_picture(path.read_bytes()).pixels.expand(3, -1, -1).contiguous()
        for rate in map(float, args.rates.split(",")):
            size = (picture.shape[1], picture.shape[2])
            data = read_stream(args.streams, path.stem, rate, size, codec)
            for row in rows_of(codec, picture, data):
                yield rate, row


if __name__ == "__main__":
    sys.exit(main())
