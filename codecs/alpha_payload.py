"""The ALPHA section: its form, its directory and the bytes of its tiles. Needs neither torch nor the coder.

::

    form (1) | constant:  the value (varint)
             | tiled:     largest error (varint) | an entry for every tile (varints) | coded tiles, in order

A tile is a square of 512 pixels, cut at the picture's right and lower border. Each is coded without the
others, so that a part of a picture can be decoded alone; those that are transparent or opaque all over have
an entry and no bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from latentpress.codecs.bitstream import CorruptStream, TruncatedStream, decode_varint, encode_varint

TILE = 512
"""Side of a tile, in pixels."""

TRANSPARENT = 0
OPAQUE = 1
CODED = 2
"""Entries of the directory; from ``CODED`` on, the entry less ``CODED`` is the tile's number of words."""

_DEEP = 1
_CONSTANT = 2
_WORD_BYTES = 4
_CHECKSUM = struct.Struct("<H")


class Tile(NamedTuple):
    """A coded tile.

    Attributes:
        corner: Value of its first pixel.
        checksum: Low 16 bits of the CRC32C of its values.
        words: Of the range coder.
    """

    corner: int
    checksum: int
    words: bytes


@dataclass(frozen=True)
class AlphaHeader:
    """What an ALPHA section begins with.

    Attributes:
        bits: 8 or 16 for each value.
        constant: The value that all pixels have; None if they differ.
        error: The largest error of a value.
    """

    bits: int
    constant: int | None = None
    error: int = 0

    @property
    def top(self) -> int:
        """The value of an opaque pixel."""
        return (1 << self.bits) - 1

    def to_bytes(self) -> bytes:
        """The bytes before the directory.

        Example:
            >>> AlphaHeader(8, constant=255).to_bytes().hex()
            '02ff01'
        """
        form = (_DEEP if self.bits == 16 else 0) | (0 if self.constant is None else _CONSTANT)
        return bytes([form]) + encode_varint(self.error if self.constant is None else self.constant)


def read_alpha_header(section: bytes) -> tuple[AlphaHeader, int]:
    """Reads and checks the beginning of a section.

    Args:
        section: Content of an ALPHA section.

    Returns:
        The header, and the offset of what follows.

    Raises:
        TruncatedStream: The section ends too early.
        CorruptStream: A value is impossible, or bytes follow the value of a constant section.
    """
    if not section:
        raise TruncatedStream("the alpha section is empty")
    form = section[0]
    if form > (_DEEP | _CONSTANT):
        raise CorruptStream(f"an alpha section has no form {form}")
    number, offset = decode_varint(section, 1)
    header = AlphaHeader(16 if form & _DEEP else 8)
    if not form & _CONSTANT:
        if number > header.top // 2:
            raise CorruptStream(f"an error of {number} is too large for {header.bits}-bit alpha")
        return AlphaHeader(header.bits, error=number), offset
    if number > header.top:
        raise CorruptStream(f"{number} is no value of {header.bits}-bit alpha")
    if offset != len(section):
        raise CorruptStream(f"{len(section) - offset} bytes follow a constant alpha")
    return AlphaHeader(header.bits, constant=number), offset


def tile_grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of tiles of a picture."""
    return -(-height // TILE), -(-width // TILE)


def join_tiles(header: AlphaHeader, tiles: Sequence[Tile | int]) -> bytes:
    """Makes a section of tiles.

    Args:
        header: Not that of a constant.
        tiles: In raster order; ``TRANSPARENT`` or ``OPAQUE`` for one that is so all over.
    """
    entries, bodies = [], []
    for tile in tiles:
        if isinstance(tile, int):
            entries.append(encode_varint(tile))
        else:
            entries.append(encode_varint(CODED + len(tile.words) // _WORD_BYTES))
            corner = tile.corner.to_bytes(header.bits // 8, "little")
            bodies += [corner, _CHECKSUM.pack(tile.checksum), tile.words]
    return b"".join([header.to_bytes(), *entries, *bodies])


def split_tiles(section: bytes, offset: int, header: AlphaHeader, count: int) -> list[Tile | int]:
    """Takes a section of tiles apart.

    Args:
        section: Content of an ALPHA section.
        offset: Of the directory.
        header: What comes before it.
        count: How many tiles the picture has.

    Returns:
        As for :func:`join_tiles`. Words are not decoded, and take no memory besides those of the section.

    Raises:
        TruncatedStream: The section ends too early.
        CorruptStream: Bytes follow the last tile.
    """
    # Before anything is made for every tile: each has at least a byte.
    if count > len(section) - offset:
        raise TruncatedStream(f"alpha of {count} tiles cannot be in {len(section) - offset} bytes")
    entries = []
    for _ in range(count):
        entry, offset = decode_varint(section, offset)
        entries.append(entry)
    tiles: list[Tile | int] = []
    for entry in entries:
        if entry < CODED:
            tiles.append(entry)
            continue
        start = offset + header.bits // 8 + _CHECKSUM.size
        end = start + _WORD_BYTES * (entry - CODED)
        if end > len(section):
            raise TruncatedStream(f"a tile of alpha lacks {end - len(section)} bytes")
        corner = int.from_bytes(section[offset : start - _CHECKSUM.size], "little")
        (checksum,) = _CHECKSUM.unpack_from(section, start - _CHECKSUM.size)
        tiles.append(Tile(corner, checksum, section[start:end]))
        offset = end
    if offset != len(section):
        raise CorruptStream(f"{len(section) - offset} bytes follow the last tile of alpha")
    return tiles
