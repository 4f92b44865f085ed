"""Codes an alpha channel, nearly or exactly without loss, in integers only and so the same on every machine.

A tile is coded from coarse to fine, as in an interlaced picture. Of a grid of known pixels first the centres
of its squares are filled, which have four known neighbours on their diagonals, then the remaining pixels of
the grid with half the spacing, which have them above, below and beside::

    known grid      first phase     second phase    the next grid
    o . o . o       o . o . o       o B o B o       o o o o o
    . . . . .       . A . A .       B A B A B       o o o o o
    o . o . o       o . o . o       o B o B o       o o o o o

Pixels of one phase do not depend on each other, so whole arrays are coded at once. Each has a class:
transparent, opaque or between. For those between follows the difference to a prediction. Tables of both adapt
from phase to phase. ``docs/bitstream.md`` specifies all of it::

    alpha -> tiles -> phases -> classes and differences -> range coder -> words -> section
    section -> words -> range coder -> classes and differences -> phases -> tiles -> alpha
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.alpha_payload import (
    OPAQUE,
    TILE,
    TRANSPARENT,
    AlphaHeader,
    Tile,
    join_tiles,
    read_alpha_header,
    split_tiles,
    tile_grid,
)
from latentpress.codecs.alpha_surroundings import (
    PHASES,
    Surroundings,
    Values,
    activity_class,
    surroundings,
)
from latentpress.codecs.alpha_tables import (
    ACTIVITIES,
    CLASS_CONTEXTS,
    class_tables,
    difference_tables,
    low_bits_tables,
    shift_of,
)
from latentpress.codecs.bitstream import DEFAULT_LIMITS, CorruptStream, Limits, crc32c
from latentpress.codecs.symbol_channel import Receiver, Sender, SymbolChannel

FINE_SPACING = 2
"""Up to this spacing a value may have the whole error, above it half: others are predicted from it."""

_BETWEEN = 1


class Region(NamedTuple):
    """A part of a picture, in pixels."""

    y: int
    x: int
    height: int
    width: int


def encode_alpha(alpha: NDArray[Any], error: int = 0) -> bytes:
    """Codes an alpha channel to the content of an ALPHA section.

    Args:
        alpha: ``(H, W)``, uint8 or uint16; 0 is transparent, the largest value of the type opaque.
        error: By how much a value may change at most, less than half the largest value. Those of transparent
            and opaque pixels never do, and no other becomes one of them.

    Returns:
        A few bytes if all values are the same.

    Raises:
        TypeError: The array is of another type.
        ValueError: Its shape or the error is out of bounds.

    Example:
        >>> alpha = np.full((300, 400), 255, np.uint8)
        >>> alpha[100:200, 50:] = 0
        >>> section = encode_alpha(alpha)
        >>> len(section) < 150, bool((decode_alpha(section, 300, 400) == alpha).all())
        (True, True)
    """
    if not isinstance(alpha, np.ndarray) or alpha.dtype not in (np.uint8, np.uint16):
        came = alpha.dtype if isinstance(alpha, np.ndarray) else type(alpha).__name__
        raise TypeError(f"alpha must be a uint8 or uint16 array, got {came}")
    if alpha.ndim != 2 or not alpha.size:
        raise ValueError(f"expected alpha of shape (H, W), got {alpha.shape}")
    header = AlphaHeader(8 * alpha.dtype.itemsize, error=error)
    if not 0 <= error <= header.top // 2:
        raise ValueError(f"an error must be within 0 and {header.top // 2}, got {error}")
    if alpha.min() == alpha.max():
        return AlphaHeader(header.bits, constant=int(alpha[0, 0])).to_bytes()
    rows, columns = tile_grid(*alpha.shape)
    tiles = [
        _encode_tile(alpha[TILE * i : TILE * (i + 1), TILE * j : TILE * (j + 1)], header)
        for i in range(rows)
        for j in range(columns)
    ]
    return join_tiles(header, tiles)


def decode_alpha(
    section: bytes, height: int, width: int, limits: Limits = DEFAULT_LIMITS, region: Region | None = None
) -> NDArray[Any]:
    """Decodes the content of an ALPHA section.

    Args:
        section: It.
        height: Of the picture.
        width: Of the picture.
        limits: Cap on the picture's size, checked before anything is allocated.
        region: What to decode, within the picture; None for all of it. Only tiles that it meets are decoded.

    Returns:
        uint8 or uint16, as it was coded.

    Raises:
        StreamError: Anything is wrong with the bytes.
        ValueError: The region is not within the picture.
    """
    limits.check_pixels(height, width)
    y, x, rows, columns = region or Region(0, 0, height, width)
    if not (0 <= y < y + rows <= height and 0 <= x < x + columns <= width):
        raise ValueError(f"the region {region} is not within a picture of {width}x{height} pixels")
    header, offset = read_alpha_header(section)
    kind = np.dtype(f"u{header.bits // 8}")
    if header.constant is not None:
        return np.full((rows, columns), header.constant, kind)
    down, across = tile_grid(height, width)
    tiles = split_tiles(section, offset, header, down * across)
    found = np.empty((rows, columns), kind)
    for i in range(y // TILE, -(-(y + rows) // TILE)):
        for j in range(x // TILE, -(-(x + columns) // TILE)):
            top, left = TILE * i, TILE * j
            shape = min(TILE, height - top), min(TILE, width - left)
            tile = _decode_tile(tiles[across * i + j], shape, header, kind)
            inside = tile[max(y - top, 0) : y + rows - top, max(x - left, 0) : x + columns - left]
            row, column = max(top - y, 0), max(left - x, 0)
            found[row : row + inside.shape[0], column : column + inside.shape[1]] = inside
    return found


def _encode_tile(values: NDArray[Any], header: AlphaHeader) -> Tile | int:
    lowest, highest = int(values.min()), int(values.max())
    if lowest == highest and lowest in (0, header.top):
        return TRANSPARENT if lowest == 0 else OPAQUE
    sender, corner = Sender(), int(values[0, 0])
    found = _TileCoder(sender, header).code(values.astype(np.int32), (len(values), len(values[0])), corner)
    return Tile(corner, _checksum(found.astype(values.dtype)), sender.finish())


def _decode_tile(tile: Tile | int, shape: tuple[int, int], header: AlphaHeader, kind: Any) -> NDArray[Any]:
    if isinstance(tile, int):
        return np.full(shape, header.top if tile == OPAQUE else 0, kind)
    receiver = Receiver(tile.words)
    values = _TileCoder(receiver, header).code(None, shape, tile.corner).astype(kind)
    receiver.finish()
    if _checksum(values) != tile.checksum:
        raise CorruptStream("the values of a tile of alpha have another checksum than the stream says")
    return values


def _checksum(values: NDArray[Any]) -> int:
    return crc32c(values.astype(values.dtype.newbyteorder("<")).tobytes()) & 0xFFFF


class _TileCoder:
    """Sends one tile or receives it; what is sent comes back as it will be received."""

    def __init__(self, channel: SymbolChannel, header: AlphaHeader) -> None:
        self._channel = channel
        self._top = header.top
        self._error = header.error
        self._classes = class_tables()
        # The alphabet is largest where the error is least.
        self._differences = difference_tables(self._levels(header.error >> 1) // 2)

    def code(self, values: Values | None, shape: tuple[int, int], corner: int) -> Values:
        """Codes all values but that of the corner; None to receive them."""
        found = np.zeros(shape, np.int32)
        found[0, 0] = corner
        for spacing in _spacings(max(shape)):
            error = self._error if spacing <= FINE_SPACING else self._error >> 1
            grid = found[::spacing, ::spacing]
            wanted = None if values is None else values[::spacing, ::spacing]
            for phase in range(len(PHASES)):
                around = surroundings(grid, phase, self._top)
                if around.context.size:
                    chosen = None if wanted is None else _pixels_of(wanted, phase)
                    _set_pixels(grid, phase, self._code_phase(chosen, around, phase, error))
        return found

    def _code_phase(self, wanted: Values | None, around: Surroundings, phase: int, error: int) -> Values:
        contexts = around.context + CLASS_CONTEXTS * phase
        classes = None
        if wanted is not None:
            classes = (wanted > 0).astype(np.int32) + (wanted == self._top)
        classes = self._channel.exchange(classes, contexts, self._classes.tables())
        self._classes.count(contexts, classes)
        found = np.where(classes > _BETWEEN, np.int32(self._top), np.int32(0))
        between = np.flatnonzero(classes == _BETWEEN)
        if between.size:
            chosen = None if wanted is None else wanted[between]
            prediction, activity = around.prediction[between], around.activity[between]
            found[between] = self._code_between(chosen, prediction, activity, error)
        return found

    def _code_between(
        self, wanted: Values | None, prediction: Values, activity: Values, error: int
    ) -> Values:
        step, levels = 2 * error + 1, self._levels(error)
        contexts = activity_class(activity // step)
        differences = None
        if wanted is not None:
            distance = wanted - prediction
            rounded = np.sign(distance) * ((np.abs(distance) + error) // step)
            # Of differences that are whole alphabets apart only one leads to a possible value.
            differences = ((rounded + levels // 2) % levels - levels // 2).astype(np.int32)
        differences = self._exchange(differences, contexts)
        _check_range(differences, -(levels // 2), levels - levels // 2 - 1)
        lowest = -((prediction - 1 + error) // step)
        unwrapped = lowest + (differences - lowest) % levels
        return np.clip(prediction + step * unwrapped, 1, self._top - 1).astype(np.int32)

    def _exchange(self, differences: Values | None, contexts: Values) -> Values:
        shifts = np.array([shift_of(context) for context in range(ACTIVITIES)], np.int32)[contexts]
        high = None if differences is None else differences >> shifts
        high = self._channel.exchange(high, contexts, self._differences.tables(), escapes=True)
        self._differences.count(contexts, high)
        _check_range(high, -self._top, self._top)
        shifted = np.flatnonzero(shifts)
        found = high << shifts
        if shifted.size:
            low = None if differences is None else (differences - found)[shifted]
            found[shifted] += self._channel.exchange(low, shifts[shifted] - 1, low_bits_tables())
        return found

    def _levels(self, error: int) -> int:
        """How many rounded differences lead from one prediction to a value between."""
        return (self._top - 2 + 2 * error) // (2 * error + 1) + 1


def _check_range(differences: Values, lowest: int, highest: int) -> None:
    if not lowest <= int(differences.min()) <= int(differences.max()) <= highest:
        raise CorruptStream("a difference of alpha is outside its alphabet")


def _spacings(side: int) -> Iterator[int]:
    """Spacings of the grids that are filled, from coarse to fine."""
    spacing = 1 << (side - 1).bit_length() >> 1
    while spacing:
        yield spacing
        spacing >>= 1


def _pixels_of(grid: Values, phase: int) -> Values:
    """The pixels of a phase, lattice after lattice, each in raster order."""
    return np.concatenate([grid[row::2, column::2].ravel() for row, column in PHASES[phase]])


def _set_pixels(grid: Values, phase: int, values: Values) -> None:
    start = 0
    for row, column in PHASES[phase]:
        place = grid[row::2, column::2]
        place[...] = values[start : start + place.size].reshape(place.shape)
        start += place.size
