"""Encodes a picture in tiles: windows of it go through the analysis in batches, each tile is coded by itself.

::

    picture -> windows of tiles of one size -> analysis -> y of the windows -> crop -> hyper analysis -> z
      -> integer networks -> symbols -> parts of each tile

Of the picture only windows are ever made floating point. It may be a tensor over a file that is mapped into
memory, and need not fit there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from latentpress.codecs.base import Progress
from latentpress.codecs.image_payload import ImageHeader
from latentpress.codecs.image_refinement import ImageRefiner
from latentpress.codecs.image_stream import covered
from latentpress.codecs.image_tiles import Region, TileGrid, batches
from latentpress.codecs.image_transforms import ImageTransforms, with_channels
from latentpress.codecs.latent_coder import CodedBatch, LatentCoder
from latentpress.codecs.latent_refinement import Latents
from latentpress.codecs.picture_input import PictureInput, SquaredErrors
from latentpress.codecs.symbol_coders import CodedPart, SymbolCoders
from latentpress.models.entropy.hyperprior import HYPER_STRIDE

_BATCHES_IN_FLIGHT = 4
"""Batches that may wait for coders: enough to keep them busy, few enough not to fill the memory."""


class EncodedTile(NamedTuple):
    """A tile.

    Attributes:
        parts: As the stream will have them.
        errors: Of its samples, about as they will be decoded: what the neighbours' coding does to them is not
            known. None unless they were asked for.
    """

    parts: tuple[CodedPart, ...]
    errors: SquaredErrors | None = None

    @property
    def bytes(self) -> int:
        """Of its words."""
        return sum(len(part.data) for part in self.parts)


class _Place(NamedTuple):
    """Where a tile is in its window, in positions of the latent, and the size of the window in pixels."""

    inside: Region
    height: int
    width: int


class TiledEncoder:
    """Encodes tiles of one picture.

    Args:
        source: The picture; its alpha is coded elsewhere.
        tile_size: Side of a tile in pixels, a multiple of 64.
        transforms: Of the model.
        coder: Of the model.
        coders: Who writes symbols.
    """

    def __init__(
        self,
        source: PictureInput,
        tile_size: int,
        transforms: ImageTransforms,
        coder: LatentCoder,
        coders: SymbolCoders,
    ) -> None:
        height, width = source.colour.shape[1:]
        self.grid = TileGrid(height, width, tile_size)
        self._source = source
        self._transforms = transforms
        self._coder = coder
        self._coders = coders

    def header(self, tenths: int) -> ImageHeader:
        """What a stream of a quality says of the picture."""
        channels, height, width = self._source.colour.shape
        return ImageHeader(height, width, channels, tenths, 0, self.grid.tile_size)

    def encode(
        self, tenths: int, tiles: Sequence[int], notify: Progress, measure: bool = False
    ) -> list[EncodedTile]:
        """Encodes tiles at one quality.

        Args:
            tenths: The quality in tenths.
            tiles: Their numbers.
            notify: Called with the fraction of them that is done, and the stage.
            measure: Whether to find their squared errors.

        Returns:
            The tiles in the order of their numbers as given.
        """
        header, found = self.header(tenths), dict.fromkeys(tiles, EncodedTile(()))
        waiting: deque[tuple[list[int], CodedBatch, list[SquaredErrors | None]]] = deque()

        def collect() -> None:
            numbers, batch, errors = waiting.popleft()
            for number, parts, of_tile in zip(numbers, batch.parts(), errors, strict=True):
                found[number] = EncodedTile(parts, of_tile)

        done = 0
        for batch in self._batches(tiles):
            notify(done / len(tiles), f"tile {done + 1} of {len(tiles)}")
            waiting.append((batch, *self._encode_batch(batch, header, measure)))
            done += len(batch)
            if len(waiting) > _BATCHES_IN_FLIGHT:
                collect()
        while waiting:
            collect()
        return [found[number] for number in tiles]

    def window(self, tile: int) -> Tensor:
        """What the analysis sees of a tile, ``(C, h, w)`` in [0, 1], on the network's device."""
        window = self._window(tile)
        return self._source.window(window.rows, window.columns).to(self._transforms.device).pixels()

    def place(self, tile: int) -> _Place:
        """Where a tile is in its window."""
        window = self._window(tile)
        inside = self.grid.tile(tile).positions().seen_from(window.positions())
        return _Place(inside, window.height, window.width)

    def refine(
        self,
        tile: int,
        tenths: int,
        plain: EncodedTile,
        refiner: ImageRefiner,
        multiplier: float,
        iterations: int,
        notify: Callable[[int], None],
    ) -> EncodedTile:
        """Looks for better latents of a tile; what is around it counts as it is in the picture.

        Args:
            tile: Its number.
            tenths: The quality in tenths.
            plain: The tile without refinement, with its squared error.
            refiner: Of the model.
            multiplier: Lambda, in bits per pixel for a squared 8-bit step.
            iterations: Steps of descent.
            notify: Called before every step with its number.

        Returns:
            The better of the two by ``bits + lambda * error``.
        """
        picture, quality = self.window(tile), self._transforms.quality([tenths])
        inside = self.place(tile).inside
        y = self._transforms.analyse(picture[None], quality)
        start = self._transforms.with_side_information(y, quality)
        core = self._transforms.with_side_information(_cropped(y, inside), quality)
        chosen = y.clone()
        _cropped(chosen, inside).copy_(self._coder.encode(*core, quality).y_hat)
        found = refiner.refine(start, chosen, picture, quality, multiplier, iterations, notify)
        refined = Latents(_cropped(found.y, inside), _cropped(found.z, inside.hyper_positions()))
        prefix = covered(self.header(tenths), tile, self._coder.parts)
        coded = self._coder.encode(*refined, quality, prefix=prefix)
        (errors,) = self._errors([tile], y, coded.y_hat, quality)
        better = EncodedTile(coded.parts, errors)
        channels = len(picture)

        def loss(encoded: EncodedTile) -> float:
            assert encoded.errors is not None
            return 8 * encoded.bytes + multiplier * encoded.errors.total / channels

        return min(plain, better, key=loss)

    def _window(self, tile: int) -> Region:
        """The pixels that the latents of a tile depend on, as far as there are any.

        It begins where positions of the side information do, so that those of the window are those of the
        tile and of what is around it.
        """
        picture = self.grid.picture
        margin = HYPER_STRIDE * -(-self._transforms.reach // HYPER_STRIDE)
        seen = self.grid.tile(tile).positions().grown(margin, within=picture.positions())
        return seen.pixels().grown(0, within=picture)

    def _batches(self, tiles: Iterable[int]) -> Iterable[list[int]]:
        largest = max((self._window(tile) for tile in tiles), key=lambda window: window.height * window.width)
        return batches(tiles, self.place, self._transforms.windows_at_once(largest))

    def _encode_batch(
        self, tiles: list[int], header: ImageHeader, measure: bool
    ) -> tuple[CodedBatch, list[SquaredErrors | None]]:
        """Codes tiles of one size, with their squared errors."""
        windows = torch.stack([self.window(tile) for tile in tiles])
        quality = self._transforms.quality([header.quality_tenths] * len(tiles))
        inside = self.place(tiles[0]).inside
        y = self._transforms.analyse(windows, quality)
        latents = self._transforms.with_side_information(_cropped(y, inside), quality)
        prefixes = [covered(header, tile, self._coder.parts) for tile in tiles]
        coded = self._coder.encode_batch(*latents, quality, prefixes, self._coders)
        if not measure:
            return coded, [None] * len(tiles)
        return coded, [*self._errors(tiles, y, coded.y_hat, quality)]

    @torch.inference_mode()
    def _errors(self, tiles: Sequence[int], y: Tensor, y_hat: Tensor, quality: Tensor) -> list[SquaredErrors]:
        """Of tiles as they are decoded, if nothing is lost of what is around them."""
        inside = self.place(tiles[0]).inside
        latents = y.clone()
        _cropped(latents, inside).copy_(y_hat)
        decoded = with_channels(self._transforms.synthesise(latents, quality), len(self._source.colour))
        found = []
        for tile, picture in zip(tiles, decoded, strict=True):
            region = self.grid.tile(tile)
            shown = region.seen_from(self._window(tile))
            original = self._source.window(region.rows, region.columns).to(self._transforms.device)
            found.append(original.squared_errors(picture[:, shown.rows, shown.columns]))
        return found


def _cropped(latents: Tensor, inside: Region) -> Tensor:
    """A view of some positions of latents ``(B, h, w, C)``."""
    return latents[:, inside.rows, inside.columns]
