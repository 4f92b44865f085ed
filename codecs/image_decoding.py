"""From an image stream to pixels, band by band: the memory it takes does not grow with the picture.

::

    tiles that a band needs -> batches -> integer networks + range coders -> y_hat, kept while bands need it
    y_hat of windows of the band -> batches -> synthesis -> crop -> rows of pixels
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from latentpress.codecs.base import Progress, no_progress
from latentpress.codecs.bitstream import LimitExceeded, Limits
from latentpress.codecs.image_stream import ImageStream
from latentpress.codecs.image_tiles import Region, TileGrid, batches
from latentpress.codecs.image_transforms import ImageTransforms, with_channels
from latentpress.codecs.latent_coder import LatentCoder
from latentpress.codecs.picture_input import PictureInput, SquaredErrors
from latentpress.codecs.rate_control import LEAST_ERROR
from latentpress.codecs.symbol_coders import SymbolCoders

WHOLE_PIXELS = 2**22
"""Up to this size a picture without tiles is synthesised at once."""

_WINDOW = 512
"""Side, in pixels, of what is synthesised together where a picture is larger than that."""


@dataclass(frozen=True)
class PictureBands:
    """A picture that is decoded while somebody goes through it from top to bottom, once.

    Attributes:
        shape: ``(C, H, W)`` of all of it.
        dtype: uint8 or uint16.
        bands: Its rows, ``(C, rows, W)`` each.
    """

    shape: tuple[int, int, int]
    dtype: torch.dtype
    bands: Iterator[Tensor]

    def __iter__(self) -> Iterator[Tensor]:
        return self.bands

    def joined(self) -> Tensor:
        """All of it, in one tensor."""
        first = next(self.bands)
        if first.shape == self.shape:
            return first
        picture = torch.empty(self.shape, dtype=self.dtype, device=first.device)
        top = 0
        for band in itertools.chain([first], self.bands):
            picture[:, top : top + band.shape[1]] = band
            top += band.shape[1]
        return picture


class ImageDecoder:
    """Decodes one stream.

    Args:
        stream: What to decode.
        transforms: Of the model.
        coder: Of the model.
        coders: Who reads symbols.
        notify: Called with the fraction done and the stage.
    """

    def __init__(
        self,
        stream: ImageStream,
        transforms: ImageTransforms,
        coder: LatentCoder,
        coders: SymbolCoders,
        notify: Progress = no_progress,
    ) -> None:
        self._stream = stream
        self._grid = stream.header.grid
        self._transforms = transforms
        self._coder = coder
        self._coders = coders
        self._notify = notify
        self._quality = transforms.quality([stream.header.quality_tenths])

    def check(self, region: Region, limits: Limits) -> None:
        """Checks what decoding a region would take, before anything is allocated.

        Args:
            region: Of the picture, in pixels.
            limits: ``max_pixels`` is for all tiles that have to be decoded.

        Raises:
            LimitExceeded: It is too much for the limits, or for the model.
        """
        tiles = self._grid.bounds(self._tiles_of(region))
        limits.check_pixels(tiles.height, tiles.width)
        largest = self._grid.tile(0)
        positions = largest.positions()
        if not self._coder.fits(positions.height, positions.width):
            raise LimitExceeded(f"{largest.width}x{largest.height} pixels are too many for this model")

    def bands(self, region: Region) -> Iterator[tuple[Region, Tensor]]:
        """Decodes a region from top to bottom.

        Args:
            region: Of the picture, in pixels, at least one.

        Yields:
            Where some of its rows are, and their colour, float32 ``(C, rows, region.width)`` around [0, 1],
            on the network's device.

        Raises:
            StreamError: Anything is wrong with the bytes of the tiles that are needed.
        """
        tiles = self._tiles_of(region)
        total = tiles.height * tiles.width

        def report(tiles_done: int, stage: str) -> None:
            # Half of the work is in the tiles' latents, half in the pixels.
            rows_done = (band.top - region.top) / region.height
            self._notify((tiles_done / total + rows_done) / 2, stage)

        rows = LatentRows(self._grid, tiles, self._decode_tiles, report)
        for band in self._split(region):
            y_hat = rows.get(self._seen(band))
            report(rows.decoded, "synthesis")
            yield band, self._pixels(y_hat, band)

    def all_latents(self) -> Iterator[Tensor]:
        """Decodes the latents of all tiles in batches, ``(B, h, w, M)`` each."""
        done, total = 0, self._grid.count
        for batch, latents in self._decode_tiles(range(total)):
            self._notify(done / total, f"tile {done + 1} of {total}")
            done += len(batch)
            yield latents

    def _decode_tiles(self, tiles: Iterable[int]) -> Iterator[tuple[list[int], Tensor]]:
        """Decodes tiles batch by batch: their numbers and latents."""
        most = self._transforms.windows_at_once(self._grid.tile(0))
        for batch in batches(tiles, lambda tile: self._grid.tile(tile)[2:], most):
            size = self._grid.tile(batch[0]).positions()
            latents = self._coder.decode_batch(
                [self._stream.parts(tile) for tile in batch],
                (size.height, size.width),
                self._quality.expand(len(batch)),
                [self._stream.prefix(tile) for tile in batch],
                self._coders,
            )
            yield batch, latents

    def _seen(self, region: Region) -> Region:
        """The positions of the latent that a region's pixels depend on."""
        return region.positions().grown(self._transforms.reach, within=self._grid.picture.positions())

    def _tiles_of(self, region: Region) -> Region:
        """Rows and columns of the tiles that a region's pixels depend on."""
        return self._grid.touched(self._seen(region).pixels())

    @property
    def _is_small(self) -> bool:
        """Whether all of the picture goes through the synthesis at once."""
        return not self._grid.tile_size and self._grid.height * self._grid.width <= WHOLE_PIXELS

    def _split(self, region: Region) -> list[Region]:
        """Bands of a region; they end where tiles do, so that few tiles are needed at a time."""
        if self._is_small:
            return [region]
        size = self._grid.tile_size
        step = size * -(-_WINDOW // size) if size else _WINDOW
        tops = [region.top, *range(step * (region.top // step + 1), region.bottom, step)]
        ends = [*tops[1:], region.bottom]
        return [region._replace(top=top, height=end - top) for top, end in zip(tops, ends, strict=True)]

    def _pixels(self, y_hat: Tensor, band: Region) -> Tensor:
        """Pixels of a band, from the latents ``(h, w, M)`` of the positions that they depend on."""
        channels, seen = self._stream.header.channels, self._seen(band)
        pixels = y_hat.new_empty((channels, band.height, band.width))
        step = band.width if self._is_small else _WINDOW
        blocks = [
            band._replace(left=left, width=min(step, band.right - left))
            for left in range(band.left, band.right, step)
        ]

        def shape(block: Region) -> tuple[Region, Region]:
            """Where a block is in its window, and the size of that."""
            window = self._seen(block)
            return block.seen_from(window.pixels()), window.seen_from(window)

        most = self._transforms.windows_at_once(self._seen(blocks[0]).pixels())
        for batch in batches(blocks, shape, most):
            windows = [self._seen(block).seen_from(seen) for block in batch]
            latents = torch.stack([y_hat[window.rows, window.columns] for window in windows])
            found = self._transforms.synthesise(latents, self._quality.expand(len(batch)))
            inside, _ = shape(batch[0])
            found = with_channels(found[:, :, inside.rows, inside.columns], channels)
            for block, block_pixels in zip(batch, found, strict=True):
                pixels[:, :, block.seen_from(band).columns] = block_pixels
        return pixels


class LatentRows:
    """Latents of rows of tiles, decoded when they are first asked for and forgotten when they are passed.

    Args:
        grid: The tiles.
        tiles: Rows and columns of those that will be needed.
        decode: Decodes tiles batch by batch: their numbers and latents ``(B, h, w, M)``.
        report: Called with the number of tiles that are decoded, and the stage.

    Attributes:
        decoded: How many tiles are.
    """

    def __init__(
        self,
        grid: TileGrid,
        tiles: Region,
        decode: Callable[[Iterable[int]], Iterator[tuple[list[int], Tensor]]],
        report: Callable[[int, str], None],
    ) -> None:
        self.decoded = 0
        self._grid = grid
        self._tiles = tiles
        self._decode = decode
        self._report = report
        self._kept: dict[int, Tensor] = {}

    def get(self, needed: Region) -> Tensor:
        """Latents ``(h, w, M)`` of positions. No rows above them are asked for any more."""
        touched = self._grid.touched(needed.pixels())
        wanted = range(touched.top, touched.bottom)
        self._kept = {row: kept for row, kept in self._kept.items() if row in wanted}
        pieces = []
        for row in wanted:
            place = self._grid.bounds(self._row(row)).positions()
            if row not in self._kept:
                self._kept[row] = self._decoded_row(row, place)
            inside = needed.seen_from(place)
            rows = slice(max(inside.top, 0), min(inside.bottom, place.height))
            pieces.append(self._kept[row][rows, inside.columns])
        return torch.cat(pieces) if len(pieces) > 1 else pieces[0]

    def _row(self, row: int) -> Region:
        """The tiles of a row that are needed."""
        return self._tiles._replace(top=row, height=1)

    def _decoded_row(self, row: int, place: Region) -> Tensor:
        total = self._tiles.height * self._tiles.width
        self._report(self.decoded, f"tile {self.decoded + 1} of {total}")
        latents: Tensor | None = None
        for numbers, found in self._decode(self._grid.numbers(self._row(row))):
            if latents is None:
                latents = found.new_empty((place.height, place.width, found.shape[-1]))
            for number, of_tile in zip(numbers, found, strict=True):
                at = self._grid.tile(number).positions().seen_from(place)
                latents[at.rows, at.columns] = of_tile
            self.decoded += len(numbers)
            if self.decoded < total:
                self._report(self.decoded, f"tile {self.decoded + 1} of {total}")
        assert latents is not None, "a row has tiles"
        return latents


def squared_error_of(decoder: ImageDecoder, source: PictureInput) -> float:
    """Mean squared error of what can be seen of a decoded picture, in squared 8-bit steps; positive.

    Args:
        decoder: Of a stream of the picture.
        source: The picture.
    """
    total = SquaredErrors(0.0, 0)
    height, width = source.colour.shape[1:]
    for band, colour in decoder.bands(Region(0, 0, height, width)):
        total += source.window(band.rows, band.columns).squared_errors(colour)
    return max(LEAST_ERROR, total.mean)
