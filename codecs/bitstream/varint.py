"""Unsigned LEB128 integers in their one canonical form.

Seven bits a byte, least significant group first, the high bit set on every byte but the last. Each value
below 2**64 has exactly one encoding here: padded ones are rejected, so that equal content means equal bytes.
"""

from __future__ import annotations

import operator

from latentpress.codecs.bitstream.errors import CorruptStream, TruncatedStream

MAX_VARINT = 2**64 - 1
_MAX_BYTES = 10


def encode_varint(value: int) -> bytes:
    """Encode an integer as canonical unsigned LEB128.

    Args:
        value: integer in [0, 2**64).

    Returns:
        1 to 10 bytes.

    Raises:
        TypeError: if `value` is not an integer.
        ValueError: if `value` is negative or needs more than 64 bits.

    Example:
        >>> encode_varint(300).hex()
        'ac02'
    """
    value = operator.index(value)
    if not 0 <= value <= MAX_VARINT:
        raise ValueError(f"a varint holds an integer in [0, 2**64), got {value}")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_varint(data: bytes, offset: int = 0) -> tuple[int, int]:
    """Decode the canonical unsigned LEB128 integer that starts at `offset`.

    Args:
        data: the buffer to read from; bytes after the integer are ignored.
        offset: where the integer starts, in bytes, >= 0.

    Returns:
        The value in [0, 2**64) and the offset of the first byte after it.

    Raises:
        TruncatedStream: if the buffer ends inside the integer.
        CorruptStream: if the encoding is longer than needed, or exceeds 64 bits.
        ValueError: if `offset` is negative.

    Example:
        >>> decode_varint(bytes.fromhex("ac02ff"))
        (300, 2)
    """
    if offset < 0:
        raise ValueError(f"offset must be >= 0, got {offset}")
    value = 0
    for count in range(_MAX_BYTES):
        position = offset + count
        if position >= len(data):
            raise TruncatedStream(f"the stream ends inside an integer that starts at byte {offset}")
        byte = data[position]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            if byte == 0 and count > 0:
                raise CorruptStream(f"the integer at byte {offset} is padded with zero bits")
            if value > MAX_VARINT:
                break
            return value, position + 1
    raise CorruptStream(f"the integer at byte {offset} does not fit 64 bits")
