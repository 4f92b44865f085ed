"""The container: a header, then checksummed sections, the payload last.

    magic (3) | format version (1) | codec id (1) | model fingerprint (8)
    then one or more of:  type (1) | length (LEB128) | payload | CRC32C (4, little-endian)

Each section's checksum also covers the 13 header bytes, so a damaged header cannot pass with intact sections.
The payload section ends the stream, which makes a stream that was cut between two sections distinguishable
from a whole one without spending a byte on a section count.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from latentpress.codecs.bitstream.crc import crc32c
from latentpress.codecs.bitstream.errors import CorruptStream, TruncatedStream, UnsupportedVersion
from latentpress.codecs.bitstream.limits import DEFAULT_LIMITS, Limits
from latentpress.codecs.bitstream.varint import decode_varint, encode_varint

MAGIC = b"\x9eLP"
FORMAT_VERSION = 1
FINGERPRINT_BYTES = 8
HEADER_BYTES = len(MAGIC) + 2 + FINGERPRINT_BYTES
FIRST_ANCILLARY = 128
_CRC_BYTES = 4


class CodecId(IntEnum):
    """Registered numbers of the codec families; a number is never reused or renumbered.

    `EXTENSION` is for codecs of other packages: the payload begins with the name of theirs.
    """

    IMAGE = 1
    INDEX = 2
    FIELD = 3
    SHAPE = 4
    EXTENSION = 255


class SectionType(IntEnum):
    """Registered section types.

    Types 1 to 127 are critical: a decoder that does not know one must refuse the stream. Types from 128 are
    ancillary: a decoder that does not know one ignores the section. Type 0 is never used, so that zero
    padding is caught.
    """

    PAYLOAD = 1
    ICC = 2
    EXIF = 3
    XMP = 4
    ALPHA = 5
    TILES = 6
    DEPTH = 128
    ENERGIES = 129
    COLOUR = 130


class Section(NamedTuple):
    """One section of a container.

    Attributes:
        type: section type in [1, 255]; a `SectionType` where registered.
        payload: the content, without framing.
    """

    type: int
    payload: bytes


@dataclass(frozen=True)
class Preamble:
    """What the 13 header bytes say; not covered by a checksum until the sections are read.

    Attributes:
        version: format version.
        codec_id: codec family that made the stream.
        fingerprint: first 8 bytes of the SHA-256 that identifies weights and tables.
    """

    version: int
    codec_id: CodecId
    fingerprint: bytes


@dataclass(frozen=True)
class Container:
    """A parsed and verified container.

    Attributes:
        version: format version.
        codec_id: codec family that made the stream.
        fingerprint: first 8 bytes of the SHA-256 that identifies weights and tables.
        sections: all sections in stream order, ancillary ones of unknown type included; the last is the
            payload.
        overhead: bytes of the stream that are not section content.
    """

    version: int
    codec_id: CodecId
    fingerprint: bytes
    sections: tuple[Section, ...]
    overhead: int

    @property
    def payload(self) -> bytes:
        """Content of the payload section."""
        return self.sections[-1].payload

    def get(self, section_type: int) -> bytes | None:
        """Content of the first section of this type, or None if there is none."""
        return _first(self.sections, section_type)


def write_container(
    codec_id: CodecId,
    fingerprint: bytes,
    sections: Iterable[tuple[int, bytes | bytearray | memoryview]],
) -> bytes:
    """Write a container of the current format version.

    Args:
        codec_id: codec family.
        fingerprint: 8 bytes that identify the model.
        sections: (type, content) pairs, one of them of type `PAYLOAD`. The payload is written last wherever
            it stands; the others keep their order.

    Returns:
        The stream. With a payload section alone, of less than 2 MiB, it is at most 21 bytes longer than the
        payload.

    Raises:
        TypeError: if the fingerprint or a content is not bytes-like.
        ValueError: if the fingerprint is not 8 bytes, the codec id is not registered, a critical type is not
            registered or given twice, a type is outside [1, 255], or the payload is missing or given twice.

    Example:
        >>> stream = write_container(CodecId.IMAGE, bytes(8), [(SectionType.PAYLOAD, b"latents")])
        >>> len(stream) - len(b"latents")
        19
    """
    fingerprint = as_bytes(fingerprint, "fingerprint")
    if len(fingerprint) != FINGERPRINT_BYTES:
        raise ValueError(f"a fingerprint has {FINGERPRINT_BYTES} bytes, got {len(fingerprint)}")
    header = MAGIC + bytes([FORMAT_VERSION, CodecId(codec_id)]) + fingerprint
    checked = [Section(int(kind), as_bytes(payload, f"section {int(kind)}")) for kind, payload in sections]
    seen: set[int] = set()
    for section in checked:
        if not 0 < section.type <= 255:
            raise ValueError(f"a section type is in [1, 255], got {section.type}")
        if section.type < FIRST_ANCILLARY:
            SectionType(section.type)
            if section.type in seen:
                raise ValueError(f"critical section {section.type} is given twice")
        seen.add(section.type)
    if SectionType.PAYLOAD not in seen:
        raise ValueError("a container needs a section of type PAYLOAD")
    checked.sort(key=lambda section: section.type == SectionType.PAYLOAD)
    parts = [header]
    for section in checked:
        framing = bytes([section.type]) + encode_varint(len(section.payload))
        checksum = crc32c(header, framing, section.payload)
        parts += [framing, section.payload, checksum.to_bytes(_CRC_BYTES, "little")]
    return b"".join(parts)


def read_preamble(data: bytes | bytearray | memoryview) -> Preamble:
    """Read the header alone, for example to find out which model a stream needs.

    Args:
        data: the stream, or at least its first 13 bytes.

    Returns:
        The header's fields, not yet verified by a checksum.

    Raises:
        TypeError: if `data` is not bytes-like.
        CorruptStream: if this is not a stream of this format.
        TruncatedStream: if fewer than 13 bytes came.
        UnsupportedVersion: if the format version or the codec id is unknown.

    Example:
        >>> stream = write_container(CodecId.FIELD, bytes(8), [(SectionType.PAYLOAD, b"")])
        >>> read_preamble(stream[:13]).codec_id.name
        'FIELD'
    """
    header = _read_header(as_bytes(data, "data"))
    return Preamble(header[3], _codec_id(header[4]), header[5:])


def read_container(data: bytes | bytearray | memoryview, limits: Limits = DEFAULT_LIMITS) -> Container:
    """Read and verify a whole container.

    Args:
        data: the stream, from its first byte to its last.
        limits: caps on the number of sections and on their size in bytes.

    Returns:
        The container, every checksum of which has been verified.

    Raises:
        TypeError: if `data` is not bytes-like.
        CorruptStream: if a checksum fails, a critical section occurs twice, bytes follow the payload section,
            or this is not a stream of this format.
        TruncatedStream: if the stream ends early.
        UnsupportedVersion: if the format version, the codec id or a critical section type is unknown.
        LimitExceeded: if there are too many sections, or one is too large.

    Example:
        >>> stream = write_container(CodecId.IMAGE, bytes(8), [(SectionType.PAYLOAD, b"latents")])
        >>> read_container(stream).payload
        b'latents'
    """
    stream = as_bytes(data, "data")
    header = _read_header(stream)
    offset = HEADER_BYTES
    sections: list[Section] = []
    while not sections or sections[-1].type != SectionType.PAYLOAD:
        if offset == len(stream):
            raise TruncatedStream("the stream ends before its payload section")
        limits.check_sections(len(sections) + 1)
        section, offset = _read_section(stream, offset, header, limits)
        if section.type < FIRST_ANCILLARY and any(section.type == earlier.type for earlier in sections):
            raise CorruptStream(f"section {section.type} occurs twice")
        sections.append(section)
    if offset != len(stream):
        raise CorruptStream(f"{len(stream) - offset} bytes follow the end of the stream")
    return Container(
        version=header[3],
        codec_id=_codec_id(header[4]),
        fingerprint=header[5:],
        sections=tuple(sections),
        overhead=len(stream) - sum(len(section.payload) for section in sections),
    )


class CutContainer(NamedTuple):
    """What there is of a container.

    Attributes:
        codec_id: codec family that made the stream.
        fingerprint: first 8 bytes of the SHA-256 that identifies weights and tables.
        payload: the payload section's content, or its beginning. Not verified, unless the stream is whole.
        missing: bytes of the payload that are not there.
        sections: all sections before the payload, in stream order, each verified.
    """

    codec_id: CodecId
    fingerprint: bytes
    payload: bytes
    missing: int
    sections: tuple[Section, ...] = ()

    def get(self, section_type: int) -> bytes | None:
        """Content of the first section of this type before the payload, or None if there is none."""
        return _first(self.sections, section_type)


def read_cut_container(data: bytes | bytearray | memoryview, limits: Limits = DEFAULT_LIMITS) -> CutContainer:
    """Read a container that may end anywhere inside its payload section, such as a download that broke off.

    Args:
        data: the stream, from its first byte.
        limits: caps on the number of sections and on their size in bytes.

    Returns:
        What there is. Sections before the payload have been verified; neither the header nor the payload has,
        if the stream was cut, because their checksum is at the end.

    Raises:
        TypeError: if `data` is not bytes-like.
        StreamError: what `read_container` raises, except that the payload section may be incomplete behind
            its length.

    Example:
        >>> stream = write_container(CodecId.IMAGE, bytes(8), [(SectionType.PAYLOAD, b"latents")])
        >>> read_cut_container(stream[:-6])[2:4]
        (b'laten', 2)
    """
    stream = as_bytes(data, "data")
    try:
        whole = read_container(stream, limits)
        return CutContainer(whole.codec_id, whole.fingerprint, whole.payload, 0, whole.sections[:-1])
    except TruncatedStream:
        pass
    header = _read_header(stream)
    offset = HEADER_BYTES
    sections: list[Section] = []
    while offset < len(stream) and stream[offset] != SectionType.PAYLOAD:
        limits.check_sections(len(sections) + 1)
        section, offset = _read_section(stream, offset, header, limits)
        sections.append(section)
    if offset == len(stream):
        raise TruncatedStream("the stream ends before its payload section")
    length, start = decode_varint(stream, offset + 1)
    limits.check_section_bytes(length)
    payload = stream[start : start + length]
    missing = length - len(payload)
    return CutContainer(_codec_id(header[4]), header[5:], payload, missing, tuple(sections))


def _first(sections: tuple[Section, ...], section_type: int) -> bytes | None:
    return next((section.payload for section in sections if section.type == section_type), None)


def as_bytes(data: bytes | bytearray | memoryview, name: str) -> bytes:
    """Return `data` as bytes, or raise a `TypeError` that says what `name` was instead."""
    if isinstance(data, bytes):
        return data
    if isinstance(data, (bytearray, memoryview)):
        return bytes(data)
    raise TypeError(f"{name} must be bytes, bytearray or memoryview, got {type(data).__name__}")


def _read_header(stream: bytes) -> bytes:
    if not MAGIC.startswith(stream[: len(MAGIC)]):
        raise CorruptStream("not a latentpress stream: it does not start with the bytes 9e 4c 50")
    if len(stream) > 3 and stream[3] != FORMAT_VERSION:
        raise UnsupportedVersion(
            f"the stream has format version {stream[3]}, this library reads version {FORMAT_VERSION}"
        )
    if len(stream) < HEADER_BYTES:
        raise TruncatedStream(f"the stream has {len(stream)} bytes, its header alone {HEADER_BYTES}")
    return stream[:HEADER_BYTES]


def _codec_id(number: int) -> CodecId:
    try:
        return CodecId(number)
    except ValueError:
        raise UnsupportedVersion(f"codec id {number} is not known to this version of the library") from None


def _read_section(stream: bytes, offset: int, header: bytes, limits: Limits) -> tuple[Section, int]:
    kind = stream[offset]
    length, start = decode_varint(stream, offset + 1)
    limits.check_section_bytes(length)
    end = start + length
    if end + _CRC_BYTES > len(stream):
        raise TruncatedStream(
            f"section {kind} at byte {offset} needs {length + _CRC_BYTES} bytes more, "
            f"{len(stream) - start} are left"
        )
    payload = stream[start:end]
    stored = int.from_bytes(stream[end : end + _CRC_BYTES], "little")
    if crc32c(header, stream[offset:start], payload) != stored:
        raise CorruptStream(
            f"the checksum of section {kind} at byte {offset} does not match: the stream is damaged"
        )
    # Only after the checksum, so that a damaged type byte is reported as damage and not as a newer format.
    if kind == 0:
        raise CorruptStream(f"section type 0 at byte {offset} is not allowed")
    known = kind in SectionType._value2member_map_
    if kind < FIRST_ANCILLARY and not known:
        raise UnsupportedVersion(f"the stream needs section type {kind}, which this version does not know")
    return Section(SectionType(kind) if known else kind, payload), end + _CRC_BYTES
