"""The COLOUR section of index streams: colours of cells, in runs. No torch here.

::

    number of colours (1) | colours (3 each) | runs: cells passed over, cells of a colour, its number
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream import CorruptStream, TruncatedStream, decode_varint, encode_varint

MOST_COLOURS = 255
"""In a section."""

COLOUR_TOP = 127
"""Largest value of a channel; it means 1."""

GAIN_TOP = 7
"""Largest gain; it means 1."""

_BITS = (7, 7, 7, 3)
_COLOUR_BYTES = 3


class CellColours(NamedTuple):
    """Colours of some cells of a picture.

    Attributes:
        numbers: ``(h, w)`` int64: of each cell's colour; -1 where it has none.
        colours: ``(n, 4)`` int64: red, green and blue in [0, COLOUR_TOP] and gain in [0, GAIN_TOP].
    """

    numbers: NDArray[np.int64]
    colours: NDArray[np.int64]


def write_colours(cells: CellColours) -> bytes:
    """Content of the section.

    Args:
        cells: At least one cell and at most :data:`MOST_COLOURS` colours.

    Example:
        >>> blue = np.array([[0, 0, 127, 0]])
        >>> write_colours(CellColours(np.zeros((4, 4), np.int64), blue)).hex()
        '0100c01f0010'
    """
    count = len(cells.colours)
    parts = [bytes([count]), *(_packed(colour).to_bytes(_COLOUR_BYTES, "little") for colour in cells.colours)]
    flat = cells.numbers.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=-2))
    skipped = 0
    for start, stop in zip(starts, [*starts[1:], flat.size], strict=True):
        number, length = int(flat[start]), int(stop - start)
        if number < 0:
            skipped = length
            continue
        parts += [encode_varint(skipped), encode_varint(length)]
        if count > 1:
            parts.append(bytes([number]))
        skipped = 0
    return b"".join(parts)


def read_colours(section: bytes, rows: int, columns: int) -> CellColours:
    """Reads and checks a section.

    Args:
        section: Its content.
        rows: Of cells of the picture, within the limits.
        columns: Likewise.

    Raises:
        TruncatedStream: It ends too early.
        CorruptStream: A value is impossible.

    Example:
        >>> read_colours(bytes.fromhex("0100c01f0302"), 2, 3).numbers.tolist()
        [[-1, -1, -1], [0, 0, -1]]
    """
    if not section:
        raise TruncatedStream("the colour section is empty")
    count, offset = section[0], 1 + _COLOUR_BYTES * section[0]
    if not count:
        raise CorruptStream("a colour section has at least one colour")
    if len(section) <= offset:
        raise TruncatedStream("the colour section ends before its first run")
    colours = np.array(
        [_unpacked(section[at : at + _COLOUR_BYTES]) for at in range(1, offset, _COLOUR_BYTES)], np.int64
    )
    numbers = np.full(rows * columns, -1, np.int64)
    place = 0
    while offset < len(section):
        skipped, offset = decode_varint(section, offset)
        length, offset = decode_varint(section, offset)
        number = 0
        if count > 1:
            if offset == len(section):
                raise TruncatedStream("the colour section ends within a run")
            number, offset = section[offset], offset + 1
        if number >= count:
            raise CorruptStream(f"a colour section of {count} colours has none with the number {number}")
        if not length or place + skipped + length > numbers.size:
            raise CorruptStream(f"a run of {length} colours does not fit into {columns}x{rows} cells")
        place += skipped
        numbers[place : place + length] = number
        place += length
    return CellColours(numbers.reshape(rows, columns), colours)


def _packed(values: NDArray[np.int64]) -> int:
    word, shift = 0, 0
    for value, bits in zip(values.tolist(), _BITS, strict=True):
        word |= value << shift
        shift += bits
    return word


def _unpacked(data: bytes) -> list[int]:
    word, values = int.from_bytes(data, "little"), []
    for bits in _BITS:
        values.append(word & ((1 << bits) - 1))
        word >>= bits
    return values
