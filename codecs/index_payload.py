"""What an index payload says of the picture, and its division into packets. No torch here.

::

    payload (one piece)       picture header | checksum of the symbols | words of the range coder
    payload (several)         packet 0 | packet 1 | ...
    packet                    marker | number | length | body | CRC32C
    body of a packet          picture header | share of the base | checksum of its symbols | words
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from latentpress.codecs.bitstream import (
    CorruptStream,
    Limits,
    TruncatedStream,
    crc32c,
    decode_varint,
    encode_varint,
    read_preamble,
)
from latentpress.codecs.bitstream.container import HEADER_BYTES
from latentpress.codecs.erasure_code import share_bytes

MARKER = 0xB5
"""First byte of a packet; a picture header never begins with it."""

MAX_PACKETS = 255

LEVELS = 16
"""Levels of each density of the map; the lowest means none and the highest all."""

_CHECKSUM = struct.Struct("<I")
_CHANNELS = (3, 1)
SMALLEST_BOOK_BITS = 3
"""Binary logarithm of the number of codes of the smallest book."""

_BOOKS = 8

# A file made of nothing but markers must not make a search for packets quadratic.
_SEARCH_FACTOR = 64


@dataclass(frozen=True)
class IndexHeader:
    """What a payload says of the picture.

    Attributes:
        height: Rows of pixels.
        width: Columns of pixels.
        channels: 3 (RGB) or 1 (grey).
        book: Number of the coarse indices' book; its size is 8 times 2 to this power.
        split_level: How many cells are split, 0 (none) to 15 (all).
        fine_level: How many quarters of split cells are fine, 0 (none) to 15 (all).
        packets: Number of packets; 1 if there is no division.
        residual_level: How many cells have residual indices, of those that are fine throughout, 0 (none) to
            15 (all).
        base_bytes: Length of the base that packets have shares of; 0 if there is none.
    """

    height: int
    width: int
    channels: int
    book: int
    split_level: int
    fine_level: int
    packets: int
    residual_level: int = 0
    base_bytes: int = 0

    def to_bytes(self) -> bytes:
        """The header's bytes, usually 6 or 7.

        Example:
            >>> len(IndexHeader(512, 768, 3, 7, 0, 0, 1).to_bytes())
            6
        """
        flags = _CHANNELS.index(self.channels) | self.book << 1 | (self.packets > 1) << 4
        flags |= (self.residual_level > 0) << 5 | (self.base_bytes > 0) << 6
        numbers = [self.height, self.width] + ([self.packets] if self.packets > 1 else [])
        levels = self.split_level << 4 | self.fine_level
        ends = (levels, self.residual_level) if self.residual_level else (levels,)
        base = encode_varint(self.base_bytes) if self.base_bytes else b""
        return bytes((flags,)) + b"".join(map(encode_varint, numbers)) + bytes(ends) + base


class Body(NamedTuple):
    """The content of a packet, or of an undivided payload.

    Attributes:
        header: Of the picture.
        checksum: CRC32C of the symbols, each a little-endian int32, in coding order.
        words: Of the range coder.
        share: Of the base, see :func:`needed_packets`; empty if there is none.
    """

    header: IndexHeader
    checksum: int
    words: bytes
    share: bytes = b""

    def to_bytes(self) -> bytes:
        """The body's bytes."""
        return self.header.to_bytes() + self.share + _CHECKSUM.pack(self.checksum) + self.words


def needed_packets(packets: int) -> int:
    """How many packets restore the base.

    Example:
        >>> [needed_packets(n) for n in (2, 5, 20)]
        [1, 3, 10]
    """
    return (packets + 1) // 2


class Packet(NamedTuple):
    """A packet of a stream.

    Attributes:
        number: Its place among all packets, from 0.
        body: Its content, not yet read.
    """

    number: int
    body: bytes


def read_body(data: bytes, limits: Limits) -> Body:
    """Reads and checks what is in a packet or in an undivided payload.

    Raises:
        TruncatedStream: It ends too early.
        CorruptStream: A value is impossible.
        LimitExceeded: The picture has more pixels than allowed.
    """
    if not data:
        raise TruncatedStream("there is no picture header")
    flags = data[0]
    residual, base = flags >> 5 & 1, flags >> 6 & 1
    if flags >> 7 or (base and not flags >> 4 & 1):
        raise CorruptStream(f"a picture header cannot begin with {flags:#04x}")
    height, offset = decode_varint(data, 1)
    width, offset = decode_varint(data, offset)
    packets = 1
    if flags >> 4 & 1:
        packets, offset = decode_varint(data, offset)
        if not 2 <= packets <= MAX_PACKETS:
            raise CorruptStream(f"a stream has 2 to {MAX_PACKETS} packets, not {packets}")
    if height < 1 or width < 1:
        raise CorruptStream(f"a picture cannot be {width}x{height} pixels")
    limits.check_pixels(height, width)
    levels = 1 + residual
    if len(data) < offset + levels + _CHECKSUM.size:
        raise TruncatedStream("the picture header is incomplete")
    split_level, fine_level = divmod(data[offset], LEVELS)
    if fine_level and not split_level:
        raise CorruptStream("quarters of cells that are not split cannot be fine")
    residual_level = data[offset + 1] if residual else 0
    if residual and not (1 <= residual_level < LEVELS and fine_level):
        raise CorruptStream(f"there cannot be a residual level of {residual_level} here")
    offset += levels
    base_bytes = share = 0
    if base:
        base_bytes, offset = decode_varint(data, offset)
        if not base_bytes:
            raise CorruptStream("a base of packets cannot be empty")
        share = share_bytes(base_bytes, needed_packets(packets))
        if len(data) < offset + share + _CHECKSUM.size:
            raise TruncatedStream("a packet ends within its share of the base")
    (checksum,) = _CHECKSUM.unpack_from(data, offset + share)
    header = IndexHeader(
        height,
        width,
        _CHANNELS[flags & 1],
        flags >> 1 & (_BOOKS - 1),
        split_level,
        fine_level,
        packets,
        residual_level,
        base_bytes,
    )
    words = data[offset + share + _CHECKSUM.size :]
    return Body(header, checksum, words, data[offset : offset + share])


def write_packet(packet: Packet, fingerprint: bytes) -> bytes:
    """Frames a packet; its checksum also covers the model's fingerprint.

    Example:
        >>> len(write_packet(Packet(3, b"body"), bytes(8))) - len(b"body")
        7
    """
    framed = bytes((MARKER,)) + encode_varint(packet.number) + encode_varint(len(packet.body)) + packet.body
    return framed + _CHECKSUM.pack(crc32c(fingerprint, framed))


def read_payload(payload: bytes, fingerprint: bytes, limits: Limits) -> list[Body]:
    """The bodies of an intact payload, in order.

    Raises:
        TruncatedStream: It ends too early.
        CorruptStream: A packet is damaged, missing or twice there, or packets disagree about the picture.
        LimitExceeded: The picture has more pixels than allowed.
    """
    if payload[:1] != bytes((MARKER,)):
        body = read_body(payload, limits)
        if body.header.packets != 1:
            raise CorruptStream("a packet stands alone")
        return [body]
    bodies: list[Body] = []
    offset = 0
    while offset < len(payload):
        found = _packet_at(payload, offset, fingerprint)
        if found is None:
            raise CorruptStream(f"the packet at byte {offset} of the payload is damaged")
        packet, offset = found
        if packet.number != len(bodies):
            raise CorruptStream(f"packet {packet.number} stands where packet {len(bodies)} belongs")
        bodies.append(read_body(packet.body, limits))
        if bodies[-1].header != bodies[0].header:
            raise CorruptStream("packets disagree about the picture")
    if len(bodies) != bodies[0].header.packets:
        raise TruncatedStream(f"there are {len(bodies)} packets of {bodies[0].header.packets}")
    return bodies


def find_packets(data: bytes, fingerprint: bytes) -> list[Packet]:
    """All intact packets anywhere in damaged bytes, in the order in which they stand.

    Args:
        data: A stream, or what is left of one: packets may be cut out, damaged, repeated or out of order.
        fingerprint: Of the model; packets of other models are passed over.
    """
    found: list[Packet] = []
    offset, budget = 0, _SEARCH_FACTOR * len(data)
    while (offset := data.find(MARKER, offset)) >= 0 and budget > 0:
        candidate = _packet_at(data, offset, fingerprint)
        if candidate is None:
            budget -= _claimed_length(data, offset)
            offset += 1
        else:
            found.append(candidate[0])
            offset = candidate[1]
    return found


def split_packets(data: bytes) -> list[bytes]:
    """Cuts a stream of several packets for transport over a channel that loses some.

    Args:
        data: A complete stream.

    Returns:
        The framed packets; the container around them is not needed for repair. Their concatenation, with any
        of them missing, can be decompressed with ``repair=True``.

    Raises:
        StreamError: This is no such stream.
    """
    fingerprint = read_preamble(data).fingerprint
    packets = find_packets(data[HEADER_BYTES:], fingerprint)
    if not packets:
        raise CorruptStream("the stream is not divided into packets")
    return [write_packet(packet, fingerprint) for packet in packets]


def describe(payload: bytes, limits: Limits) -> dict[str, int | float | str]:
    """What a payload says of the picture, for :func:`latentpress.inspect`.

    Raises:
        StreamError: It cannot be read.
    """
    body = payload
    if payload[:1] == bytes((MARKER,)):
        _, offset = decode_varint(payload, 1)
        length, offset = decode_varint(payload, offset)
        body = payload[offset : offset + length]
    header = read_body(body, limits).header
    residuals = {"residual_level": header.residual_level} if header.residual_level else {}
    return {
        "width": header.width,
        "height": header.height,
        "channels": header.channels,
        "codes": 1 << (header.book + SMALLEST_BOOK_BITS),
        "packets": header.packets,
        **residuals,
    }


def bodies_of(packets: list[Packet], limits: Limits) -> Iterator[tuple[int, Body]]:
    """Reads packets that were found in damaged bytes; those that make no sense are left out."""
    for packet in packets:
        try:
            body = read_body(packet.body, limits)
        except (CorruptStream, TruncatedStream):
            continue
        if packet.number < body.header.packets:
            yield packet.number, body


def _packet_at(data: bytes, offset: int, fingerprint: bytes) -> tuple[Packet, int] | None:
    """The packet that begins at a place and where it ends; None if there is no intact one."""
    if data[offset] != MARKER:
        return None
    try:
        number, start = decode_varint(data, offset + 1)
        length, start = decode_varint(data, start)
    except (CorruptStream, TruncatedStream):
        return None
    end = start + length
    if number >= MAX_PACKETS or end + _CHECKSUM.size > len(data):
        return None
    (stored,) = _CHECKSUM.unpack_from(data, end)
    if crc32c(fingerprint, data[offset:end]) != stored:
        return None
    return Packet(number, data[start:end]), end + _CHECKSUM.size


def _claimed_length(data: bytes, offset: int) -> int:
    """About how many bytes had to be looked at to see that no packet begins at a place."""
    try:
        _, start = decode_varint(data, offset + 1)
        length, _ = decode_varint(data, start)
    except (CorruptStream, TruncatedStream):
        return 1
    return 1 + (length if offset + length <= len(data) else 0)
