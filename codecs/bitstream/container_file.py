"""Containers whose payload need not fit into memory: written piece by piece, found without being read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

from latentpress.codecs.bitstream.container import (
    _CRC_BYTES,
    FINGERPRINT_BYTES,
    FORMAT_VERSION,
    HEADER_BYTES,
    MAGIC,
    CodecId,
    Preamble,
    SectionType,
    as_bytes,
    read_preamble,
)
from latentpress.codecs.bitstream.crc import crc32c
from latentpress.codecs.bitstream.errors import CorruptStream, TruncatedStream
from latentpress.codecs.bitstream.limits import DEFAULT_LIMITS, Limits
from latentpress.codecs.bitstream.varint import decode_varint, encode_varint

_VARINT_BYTES = 10
_PIECE = 2**20


class PayloadPlace(NamedTuple):
    """Where the payload of a stream is.

    Attributes:
        preamble: What the stream's header says; not verified by a checksum.
        start: Offset of the payload in the file.
        length: Of the payload, in bytes.
    """

    preamble: Preamble
    start: int
    length: int


def write_container_file(
    file: BinaryIO, codec_id: CodecId, fingerprint: bytes, length: int, pieces: Iterable[bytes]
) -> int:
    """Writes a container that has a payload section alone.

    Args:
        file: Where, from its current position.
        codec_id: Codec family.
        fingerprint: 8 bytes that identify the model.
        length: Of the payload, in bytes.
        pieces: The payload, in order.

    Returns:
        Bytes written.

    Raises:
        ValueError: The fingerprint is not 8 bytes, or the pieces do not have the length.

    Example:
        >>> import io
        >>> from latentpress.codecs.bitstream import read_container
        >>> file = io.BytesIO()
        >>> write_container_file(file, CodecId.FIELD, bytes(8), 7, [b"lat", b"ents"])
        26
        >>> read_container(file.getvalue()).payload
        b'latents'
    """
    fingerprint = as_bytes(fingerprint, "fingerprint")
    if len(fingerprint) != FINGERPRINT_BYTES:
        raise ValueError(f"a fingerprint has {FINGERPRINT_BYTES} bytes, got {len(fingerprint)}")
    header = MAGIC + bytes([FORMAT_VERSION, codec_id]) + fingerprint
    framing = bytes([SectionType.PAYLOAD]) + encode_varint(length)
    file.write(header + framing)
    checksum, written = crc32c(header, framing), 0
    for piece in pieces:
        file.write(piece)
        checksum = crc32c(piece, start=checksum)
        written += len(piece)
    if written != length:
        raise ValueError(f"the payload was to have {length} bytes, {written} came")
    file.write(checksum.to_bytes(_CRC_BYTES, "little"))
    return len(header) + len(framing) + length + _CRC_BYTES


def find_payload(file: BinaryIO, limits: Limits = DEFAULT_LIMITS) -> PayloadPlace:
    """Finds the payload section of a stream, reading little more than the headers of its sections.

    No checksum is verified; :func:`check_payload` does that for the payload.

    Args:
        file: Can be sought in; the stream is all of it.
        limits: Caps on the number of sections. The payload may have any length, since it is not read.

    Raises:
        StreamError: The file is no stream of this format, or ends early or late.

    Example:
        >>> import io
        >>> from latentpress.codecs.bitstream import write_container
        >>> stream = write_container(CodecId.FIELD, bytes(8), [(SectionType.PAYLOAD, b"latents")])
        >>> find_payload(io.BytesIO(stream))[1:]
        (15, 7)
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    preamble = read_preamble(file.read(HEADER_BYTES))
    offset, count = HEADER_BYTES, 0
    while True:
        if offset >= size:
            raise TruncatedStream("the stream ends before its payload section")
        count += 1
        limits.check_sections(count)
        file.seek(offset)
        head = file.read(1 + _VARINT_BYTES)
        length, used = decode_varint(head, 1)
        start = offset + used
        offset = start + length + _CRC_BYTES
        if offset > size:
            raise TruncatedStream(f"section {head[0]} needs {offset - size} bytes more than the file has")
        if head[0] == SectionType.PAYLOAD:
            break
    if offset != size:
        raise CorruptStream(f"{size - offset} bytes follow the end of the stream")
    return PayloadPlace(preamble, start, length)


def check_payload(file: BinaryIO, place: PayloadPlace) -> None:
    """Verifies the checksum of the payload section, piece by piece.

    Args:
        file: As of :func:`find_payload`.
        place: What that found.

    Raises:
        CorruptStream: The checksum does not match.
    """
    framing = bytes([SectionType.PAYLOAD]) + encode_varint(place.length)
    file.seek(0)
    checksum = crc32c(file.read(HEADER_BYTES), framing)
    file.seek(place.start)
    left = place.length
    while left:
        piece = file.read(min(left, _PIECE))
        if not piece:
            raise TruncatedStream("the payload ends early")
        checksum = crc32c(piece, start=checksum)
        left -= len(piece)
    if file.read(_CRC_BYTES) != checksum.to_bytes(_CRC_BYTES, "little"):
        raise CorruptStream("the checksum of the payload does not match: the stream is damaged")
