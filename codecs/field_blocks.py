"""Fields in blocks: what a payload says of them, where each is, and which samples it has. No torch here.

Blocks are of two kinds. *Separate* ones are complete payloads of their own, for fields that keep a bound.
*Joint* ones hold the latents of one network, which meet at the blocks' borders as if there were none.

::

    head: shape, type, sides of a block, kind | table: length and checksum of each block | checksum | blocks
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream import (
    CorruptStream,
    Limits,
    TruncatedStream,
    crc32c,
    decode_varint,
    encode_varint,
)
from latentpress.codecs.block_grid import BlockGrid
from latentpress.codecs.field_payload import (
    DTYPES,
    GROUP,
    QUALITY_TENTHS_MAX,
    RATIOS,
    FieldHeader,
    Mode,
    read_byte,
    read_floats,
)

LONGEST_HEAD = 2**20
"""No head is longer: beside its numbers it has two of eight bytes for each component at most."""

MOST_BLOCKS = 2**31
"""Of a field: a table of more would take ten gigabytes."""

_CRC_BYTES = 4
_LEAST_ENTRY = 5
"""Bytes of the table for a block: a length of one byte and a checksum."""


class BlockKind(IntEnum):
    """What a block holds."""

    SEPARATE = 0
    JOINT = 1


@dataclass(frozen=True)
class BlocksHeader:
    """What the head of a payload in blocks says.

    Attributes:
        kind: What a block holds.
        shape: ``(C, D, H, W)``; D is 1 for fields of two dimensions.
        sides: Of a block along D, H and W.
        flat: The field came with two dimensions.
        double: Values are float64 rather than float32.
        periodic: Axes that continue at their far ends.
        bound: No value differs by more than this; None if nothing was promised.
        ratio: Of the network of joint blocks.
        quality_tenths: Of the same.
        offsets: Of joint blocks, subtracted from each component.
        scales: Of joint blocks, divided by, one for each group of three components.
    """

    kind: BlockKind
    shape: tuple[int, int, int, int]
    sides: tuple[int, int, int]
    flat: bool
    double: bool
    periodic: tuple[bool, bool, bool] = (False, False, False)
    bound: float | None = None
    ratio: int = RATIOS[0]
    quality_tenths: int = 0
    offsets: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()

    @property
    def grid(self) -> BlockGrid:
        """How the field is divided."""
        return BlockGrid(self.shape[1:], self.sides)

    @property
    def groups(self) -> int:
        """Groups of components that a network codes together."""
        return -(-self.shape[0] // GROUP)

    @property
    def dtype(self) -> str:
        """Of the values, as numpy names it."""
        return DTYPES[self.double]

    @property
    def has_network(self) -> bool:
        """Whether the network of :attr:`ratio` decodes the blocks."""
        return self.kind == BlockKind.JOINT

    def block_periodic(self) -> tuple[bool, bool, bool]:
        """Axes along which a joint block continues at its own far end: it is the only one there."""
        d, h, w = (flag and count == 1 for flag, count in zip(self.periodic, self.grid.counts, strict=True))
        return d, h, w

    def to_bytes(self) -> bytes:
        """The head's bytes, up to the table's length.

        Example:
            >>> header = BlocksHeader(BlockKind.SEPARATE, (1, 1, 9, 9), (1, 8, 8), flat=True, double=False)
            >>> read_blocks_header(header.to_bytes(), Limits())[0] == header
            True
        """
        flags = Mode.BLOCKS | self.flat << 2 | self.double << 3 | (self.bound is not None) << 5
        axes = sum(flag << axis for axis, flag in enumerate(self.periodic))
        parts = [bytes([flags]), *map(encode_varint, self.shape), bytes([axes])]
        if self.bound is not None:
            parts.append(struct.pack("<d", self.bound))
        parts += [*map(encode_varint, self.sides), bytes([self.kind])]
        if self.kind == BlockKind.JOINT:
            parts.append(struct.pack(f"<{len(self.offsets)}d", *self.offsets))
            parts.append(bytes([RATIOS.index(self.ratio)]) + encode_varint(self.quality_tenths))
            parts.append(struct.pack(f"<{len(self.scales)}d", *self.scales))
        return b"".join(parts)


def is_in_blocks(payload: bytes) -> bool:
    """Whether a payload, or its beginning, is of a field in blocks."""
    return bool(payload) and payload[0] & 3 == Mode.BLOCKS


def read_blocks_header(payload: bytes, limits: Limits) -> tuple[BlocksHeader, int]:
    """Reads and checks the head of a payload in blocks.

    Args:
        payload: Its beginning, at least the whole head.
        limits: Caps on the values of a block. The field may have more: it need not be decoded at once.

    Returns:
        The header, and the offset of the table's length.

    Raises:
        TruncatedStream: The payload ends too early.
        CorruptStream: A value is impossible.
        LimitExceeded: A block has more values than allowed.
    """
    flags, offset = read_byte(payload, 0)
    if flags & 3 != Mode.BLOCKS or flags & 0xD0:
        raise CorruptStream(f"a field in blocks cannot begin with {flags}")
    sizes = []
    for _ in range(4):
        size, offset = decode_varint(payload, offset)
        sizes.append(size)
    components, depth, height, width = sizes
    flat = bool(flags & 4)
    if min(sizes) < 1 or (flat and depth != 1):
        raise CorruptStream(f"a field cannot have the shape {tuple(sizes)}")
    axes, offset = read_byte(payload, offset)
    if axes > 7:
        raise CorruptStream("a field has three axes")
    bound: float | None = None
    if flags & 32:
        (bound,), offset = read_floats(payload, offset, 1)
        if not 0 <= bound < math.inf:
            raise CorruptStream(f"a bound cannot be {bound}")
    sides = []
    for size in (depth, height, width):
        side, offset = decode_varint(payload, offset)
        if not 1 <= side <= size:
            raise CorruptStream(f"a block cannot have {side} samples along an axis of {size}")
        sides.append(side)
    if math.prod(-(-size // side) for size, side in zip(sizes[1:], sides, strict=True)) > MOST_BLOCKS:
        raise CorruptStream(f"a field of shape {tuple(sizes)} cannot have blocks of {tuple(sides)}")
    limits.check_voxels((components, *sides))
    number, offset = read_byte(payload, offset)
    if number not in tuple(BlockKind):
        raise CorruptStream(f"there are no blocks of kind {number}")
    header = BlocksHeader(
        kind=BlockKind(number),
        shape=(components, depth, height, width),
        sides=(sides[0], sides[1], sides[2]),
        flat=flat,
        double=bool(flags & 8),
        periodic=(bool(axes & 1), bool(axes & 2), bool(axes & 4)),
        bound=bound,
    )
    return _with_network(payload, offset, header) if header.has_network else (header, offset)


def _with_network(payload: bytes, offset: int, header: BlocksHeader) -> tuple[BlocksHeader, int]:
    if header.bound is not None:
        raise CorruptStream("joint blocks keep no bound")
    for size, side in zip(header.shape[1:], header.sides, strict=True):
        if side % 8 and side != size:
            raise CorruptStream(f"joint blocks have a multiple of 8 samples a side, not {side}")
    offsets, offset = read_floats(payload, offset, header.shape[0])
    number, offset = read_byte(payload, offset)
    tenths, offset = decode_varint(payload, offset)
    if number >= len(RATIOS) or tenths > QUALITY_TENTHS_MAX:
        raise CorruptStream(f"there is no ratio {number} at quality {tenths / 10}")
    scales, offset = read_floats(payload, offset, header.groups)
    if not all(map(math.isfinite, offsets + scales)):
        raise CorruptStream("offsets and scales of a field are finite")
    complete = BlocksHeader(
        kind=header.kind,
        shape=header.shape,
        sides=header.sides,
        flat=header.flat,
        double=header.double,
        periodic=header.periodic,
        ratio=RATIOS[number],
        quality_tenths=tenths,
        offsets=offsets,
        scales=scales,
    )
    return complete, offset


class BlockTable(NamedTuple):
    """Where the blocks of a payload are.

    Attributes:
        starts: Offset of each block in the payload, and behind the last one, ``(n + 1,)`` int64.
        checksums: CRC32C of each block, ``(n,)`` uint32.
    """

    starts: NDArray[np.int64]
    checksums: NDArray[np.uint32]

    def checked(self, number: int, block: bytes) -> bytes:
        """A block's bytes, if they are those that were written.

        Raises:
            CorruptStream: They are not.
        """
        if crc32c(block) != int(self.checksums[number]):
            raise CorruptStream(f"the checksum of block {number} does not match: the stream is damaged")
        return block


def pack_head(header: BlocksHeader, lengths: list[int], checksums: list[int]) -> bytes:
    """Head and table of a payload in blocks, with their checksum: everything before the blocks.

    Args:
        header: Of the payload.
        lengths: Of every block, in raster order, in bytes.
        checksums: CRC32C of every block.
    """
    table = b"".join(
        encode_varint(length) + checksum.to_bytes(_CRC_BYTES, "little")
        for length, checksum in zip(lengths, checksums, strict=True)
    )
    head = header.to_bytes() + encode_varint(len(table)) + table
    return head + crc32c(head).to_bytes(_CRC_BYTES, "little")


def table_extent(start: bytes, offset: int, header: BlocksHeader, payload_bytes: int) -> tuple[int, int]:
    """Where the table of a payload in blocks lies.

    Args:
        start: The payload's beginning.
        offset: Of the table's length.
        header: Of the payload.
        payload_bytes: Length of the whole payload.

    Returns:
        Offset of the table, and of the checksum behind it.

    Raises:
        StreamError: The length cannot be right.
    """
    length, offset = decode_varint(start, offset)
    if length < _LEAST_ENTRY * len(header.grid):
        raise CorruptStream(f"a table of {length} bytes cannot be that of {len(header.grid)} blocks")
    if offset + length + _CRC_BYTES > payload_bytes:
        raise TruncatedStream("the table of blocks reaches beyond the payload")
    return offset, offset + length


def read_table(head: bytes, table_start: int, header: BlocksHeader, payload_bytes: int) -> BlockTable:
    """Reads and checks the table of blocks.

    Args:
        head: The payload up to and including the checksum behind the table.
        table_start: Offset of the table.
        header: Of the payload.
        payload_bytes: Length of the whole payload.

    Raises:
        StreamError: The checksum is wrong, or the blocks are not those that the payload has room for.
    """
    body, stored = head[:-_CRC_BYTES], head[-_CRC_BYTES:]
    if crc32c(body).to_bytes(_CRC_BYTES, "little") != stored:
        raise CorruptStream("the checksum of the table of blocks does not match: the stream is damaged")
    count = len(header.grid)
    starts = np.empty(count + 1, np.int64)
    checksums = np.empty(count, np.uint32)
    offset, place = table_start, len(head)
    for number in range(count):
        length, offset = decode_varint(body, offset)
        starts[number] = place
        place += length
        if place > payload_bytes or offset + _CRC_BYTES > len(body):
            raise TruncatedStream(f"block {number} reaches beyond the payload")
        checksums[number] = int.from_bytes(body[offset : offset + _CRC_BYTES], "little")
        offset += _CRC_BYTES
    starts[count] = place
    if offset != len(body) or place != payload_bytes:
        raise CorruptStream("the table of blocks does not fit its payload")
    return BlockTable(starts, checksums)


def describe_blocks(payload: bytes, limits: Limits) -> dict[str, int | float | str]:
    """What a payload in blocks says of the field, for ``inspect``.

    Raises:
        StreamError: The head is damaged.
    """
    header, _ = read_blocks_header(payload, limits)
    components, depth, height, width = header.shape
    found: dict[str, int | float | str] = {"components": components}
    if not header.flat:
        found["depth"] = depth
    found |= {"height": height, "width": width, "dtype": "float64" if header.double else "float32"}
    found |= {"mode": f"{header.kind.name.lower()} blocks", "blocks": len(header.grid)}
    found["block"] = " x ".join(map(str, header.sides[1:] if header.flat else header.sides))
    if header.has_network:
        found |= {"ratio": header.ratio, "quality": header.quality_tenths / 10}
    if header.bound is not None:
        found["max_error"] = header.bound
    return found


def block_header_fits(block: FieldHeader, header: BlocksHeader, shape: tuple[int, int, int]) -> bool:
    """Whether the header of a separate block is one that the field can have: its shape, type and bound."""
    return (
        block.shape == (header.shape[0], *shape)
        and block.flat == header.flat
        and block.double == header.double
        and (block.bound is not None) == (header.bound is not None)
    )
