"""Image streams: what is where in the bytes, be the picture coded as a whole or in tiles. No torch here.

::

    whole picture     PAYLOAD: header | parts, see image_payload
    tiles             TILES:   for each part of the model, for each tile: words (varint) | checksum (4)
                      PAYLOAD: header | words of the first part of all tiles | words of the second part ...

So a stream of tiles that is cut has the first part of all tiles before the second part of any. A tile's
checksums cover the header and the tile's number besides the symbols: no tile is taken for another.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from latentpress.codecs.bitstream import (
    CorruptStream,
    SectionType,
    TruncatedStream,
    decode_varint,
    encode_varint,
)
from latentpress.codecs.image_payload import ImageHeader, join_parts, read_image_header, read_parts
from latentpress.codecs.symbol_coders import CodedPart

CHECKSUM_BYTES = 4
WORD_BYTES = 4

_CHECKSUM = struct.Struct("<I")
_FEWEST_ENTRY_BYTES = 1 + CHECKSUM_BYTES


class Place(NamedTuple):
    """Where the words of a part are.

    Attributes:
        start: Offset of the first in the payload.
        end: Offset behind the last.
        checksum: CRC32C that the symbols must have.
    """

    start: int
    end: int
    checksum: int


class ImageStream(NamedTuple):
    """A stream that has been taken apart.

    Attributes:
        header: What it says of the picture.
        payload: Or as much of it as there is.
        tiles: For each tile the places of its first parts, as far as they are there.
        part_count: How many parts each should have.
    """

    header: ImageHeader
    payload: bytes
    tiles: Sequence[Sequence[Place]]
    part_count: int

    def parts(self, tile: int) -> list[CodedPart]:
        """The parts of a tile that are there, at least one.

        Raises:
            TruncatedStream: Not even the first is.
        """
        if not self.tiles[tile]:
            raise TruncatedStream(f"the stream ends before tile {tile} of {len(self.tiles)}")
        return [
            CodedPart(self.payload[place.start : place.end], place.checksum) for place in self.tiles[tile]
        ]

    def prefix(self, tile: int) -> bytes:
        """What the checksums of a tile cover in front of the symbols."""
        return covered(self.header, tile, self.part_count)

    def part_ends(self) -> list[int]:
        """Offsets in the payload where the parts end, each with all tiles.

        Example:
            >>> header = ImageHeader(64, 128, 3, 500, 0, tile_size=64)
            >>> tiles = [[Place(8, 16, 0), Place(20, 24, 0)], [Place(16, 20, 0), Place(24, 32, 0)]]
            >>> ImageStream(header, bytes(32), tiles, 2).part_ends()
            [20, 32]
        """
        return [max(tile[number].end for tile in self.tiles) for number in range(self.part_count)]


def covered(header: ImageHeader, tile: int, part_count: int) -> bytes:
    """What the checksums of a tile cover in front of the symbols.

    A cut stream has no checksum but these, so with several parts they cover the header too.
    """
    if header.tile_size:
        return header.fields + encode_varint(tile)
    return header.fields if part_count > 1 else b""


def image_sections(header: ImageHeader, tiles: Sequence[Sequence[CodedPart]]) -> list[tuple[int, bytes]]:
    """Makes the sections of a stream that hold the picture.

    Args:
        header: Its checksum does not matter.
        tiles: For each tile its parts.

    Example:
        >>> header = ImageHeader(64, 128, 3, 500, 0, tile_size=64)
        >>> sections = image_sections(header, [[CodedPart(b"left", 1)], [CodedPart(b"right - ", 2)]])
        >>> [(SectionType(number).name, content.hex()) for number, content in sections]
        [('TILES', '01010000000202000000'), ('PAYLOAD', '408001e817016c6566747269676874202d20')]
    """
    if not header.tile_size:
        (parts,) = tiles
        return [(SectionType.PAYLOAD, join_parts(header.fields, parts))]
    by_part = [part for parts in zip(*tiles, strict=True) for part in parts]
    index = b"".join(
        encode_varint(len(part.data) // WORD_BYTES) + _CHECKSUM.pack(part.checksum) for part in by_part
    )
    payload = b"".join([header.fields, *(part.data for part in by_part)])
    return [(SectionType.TILES, index), (SectionType.PAYLOAD, payload)]


def read_image_stream(payload: bytes, index: bytes | None, part_count: int, missing: int = 0) -> ImageStream:
    """Takes a stream apart. The size of the picture is checked by whoever decodes some of it.

    Args:
        payload: Content of the section, or as much of it as there is.
        index: Content of the section of tiles; None if there is no such section.
        part_count: Parts that the model has.
        missing: Bytes that the payload should have besides.

    Raises:
        StreamError: The header or the index is impossible, or not even a part of the picture is there.
    """
    header, offset = read_image_header(payload, None)
    if (index is not None) != (header.tile_size > 0):
        raise CorruptStream("the header and the section of tiles do not agree whether there are tiles")
    if index is not None:
        end = len(payload) + missing
        tiles = _read_index(index, header.grid.count, part_count, offset, end)
        tiles = [[place for place in parts if place.end <= len(payload)] for parts in tiles]
    else:
        parts = read_parts(payload, offset - CHECKSUM_BYTES, part_count, missing)
        tiles = [[Place(part.end - len(part.data), part.end, part.checksum) for part in parts]]
    return ImageStream(header, payload, tiles, part_count)


def _read_index(index: bytes, tile_count: int, part_count: int, start: int, end: int) -> list[list[Place]]:
    """Places of all parts, tile by tile.

    Args:
        index: Content of the section.
        tile_count: Tiles of the picture; a number of any size.
        part_count: Parts of each.
        start: Offset of the first words in the payload.
        end: Offset where the last must end.
    """
    if tile_count * part_count * _FEWEST_ENTRY_BYTES > len(index):
        raise CorruptStream(f"{len(index)} bytes are no index of {tile_count} tiles of {part_count} parts")
    tiles: list[list[Place]] = [[] for _ in range(tile_count)]
    offset = 0
    for _ in range(part_count):
        for tile in tiles:
            words, offset = decode_varint(index, offset)
            if offset + CHECKSUM_BYTES > len(index):
                raise CorruptStream("the index of the tiles is incomplete")
            (checksum,) = _CHECKSUM.unpack_from(index, offset)
            offset += CHECKSUM_BYTES
            tile.append(Place(start, start + WORD_BYTES * words, checksum))
            start += WORD_BYTES * words
    if offset != len(index):
        raise CorruptStream(f"{len(index) - offset} bytes follow the index of the tiles")
    if start != end:
        raise CorruptStream(f"the tiles have {start} bytes of the payload, which has {end}")
    return tiles
