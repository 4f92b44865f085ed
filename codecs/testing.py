"""Hypothesis strategies for the tests of codecs: streams, and everything that can happen to them.

What the tests of this library use is here for those who write codecs of their own. The only module of the
library that needs Hypothesis::

    from hypothesis import given
    from latentpress.codecs import testing

    @given(testing.hostile(stream))
    def test_nothing_but_stream_errors(data):
        testing.check_decoding(codec.decompress, data)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from latentpress.codecs.bitstream import (
    FINGERPRINT_BYTES,
    CodecId,
    SectionType,
    StreamError,
    crc32c,
    decode_varint,
    write_container,
)
from latentpress.codecs.bitstream.container import HEADER_BYTES

_CRC_BYTES = 4
_FIRST_ANCILLARY = 128
_ANCILLARY = st.integers(_FIRST_ANCILLARY, 255)
_METADATA = st.sampled_from([SectionType.ICC, SectionType.EXIF, SectionType.XMP])
# Where lengths and counts go wrong: nothing, one, the ends of a byte and of a group of seven bits.
_TELLING_BYTES = st.sampled_from([0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF])


def streams(codec: Any, items: Iterable[Any], **options: SearchStrategy[Any]) -> SearchStrategy[bytes]:
    """Streams that a codec makes.

    Args:
        codec: Anything with ``compress(item, **options)``.
        items: What to compress.
        **options: A strategy for each option of ``compress``.

    Example:
        >>> class Rot13:
        ...     def compress(self, text, shift=13):
        ...         return bytes((byte + shift) % 256 for byte in text)
        >>> example(streams(Rot13(), [b"a"], shift=st.just(1)))
        b'b'
    """
    return st.builds(codec.compress, st.sampled_from(list(items)), **options)


def containers(payloads: SearchStrategy[bytes] | None = None) -> SearchStrategy[bytes]:
    """Well-formed containers of any codec, with metadata and sections that no version knows.

    Args:
        payloads: Contents of the payload section; None for any short bytes.

    Example:
        >>> from latentpress.codecs.bitstream import read_container
        >>> read_container(example(containers(st.just(b"latents")))).payload
        b'latents'
    """
    payloads = st.binary(max_size=40) if payloads is None else payloads
    content = st.binary(max_size=40)
    critical = st.lists(st.tuples(_METADATA, content), unique_by=lambda section: section[0], max_size=3)
    ancillary = st.lists(st.tuples(_ANCILLARY, content), max_size=2)
    sections = st.builds(
        lambda first, second, payload: [*first, *second, (SectionType.PAYLOAD, payload)],
        critical,
        ancillary,
        payloads,
    )
    fingerprints = st.binary(min_size=FINGERPRINT_BYTES, max_size=FINGERPRINT_BYTES)
    return st.builds(write_container, st.sampled_from(CodecId), fingerprints, sections)


def truncations(stream: bytes) -> SearchStrategy[bytes]:
    """A stream cut short: every prefix but the whole.

    Args:
        stream: At least one byte.
    """
    return st.integers(0, len(stream) - 1).map(lambda end: stream[:end])


@st.composite
def mutations(draw: st.DrawFn, stream: bytes, most: int = 4) -> bytes:
    """A stream after one to ``most`` edits: bits flipped, bytes set, slices removed, inserted or copied.

    Args:
        draw: Given by Hypothesis.
        stream: What to damage.
        most: Edits at most.

    Returns:
        Bytes that may by chance be the stream itself; its checksums are not made right.
    """
    data = bytearray(stream)
    for _ in range(draw(st.integers(1, most))):
        place = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["flip", "set", "remove", "insert", "copy"]))
        if kind == "insert" or place == len(data):
            data[place:place] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "flip":
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            data[place] = draw(_TELLING_BYTES)
        else:
            length = draw(st.integers(1, 16))
            if kind == "remove":
                del data[place : place + length]
            else:
                source = draw(st.integers(0, len(data)))
                data[place : place + length] = data[source : source + length]
    return bytes(data)


def hostile(stream: bytes) -> SearchStrategy[bytes]:
    """What an attacker makes of a stream: cut, damaged, damaged under right checksums, or plain noise.

    Checksums stop accidents and no attacker, so decoders must stand what comes with right ones.

    Args:
        stream: A stream that decodes.
    """
    return st.one_of(
        truncations(stream),
        mutations(stream),
        mutations(stream).map(with_right_checksums),
        st.binary(max_size=len(stream)),
        st.binary(max_size=64).map(lambda noise: with_right_checksums(stream[:HEADER_BYTES] + noise)),
    )


def with_right_checksums(data: bytes) -> bytes:
    """Makes the checksums of a container right, as far as its sections can be followed.

    Args:
        data: A container with damage, or anything else, which comes back as it is.

    Example:
        >>> from latentpress.codecs.bitstream import read_container
        >>> stream = write_container(CodecId.IMAGE, bytes(8), [(SectionType.PAYLOAD, b"latents")])
        >>> read_container(with_right_checksums(stream.replace(b"latents", b"patents"))).payload
        b'patents'
    """
    fixed = bytearray(data)
    header = data[:HEADER_BYTES]
    offset = HEADER_BYTES
    while offset < len(data):
        try:
            length, start = decode_varint(data, offset + 1)
        except StreamError:
            break
        end = start + length
        if end + _CRC_BYTES > len(data):
            break
        checksum = crc32c(header, data[offset:start], data[start:end])
        fixed[end : end + _CRC_BYTES] = checksum.to_bytes(_CRC_BYTES, "little")
        offset = end + _CRC_BYTES
    return bytes(fixed)


def check_decoding(decode: Callable[[bytes], Any], data: bytes, seconds: float | None = None) -> bool:
    """Decodes what may be anything, and insists on how that ends.

    Args:
        decode: Such as ``codec.decompress``.
        data: Bytes.
        seconds: The longest it may take; None for no limit.

    Returns:
        Whether the data decoded; False if a `StreamError` was raised.

    Raises:
        AssertionError: Something else was raised, or it took too long.

    Example:
        >>> from latentpress.codecs.bitstream import read_container
        >>> check_decoding(read_container, b"GIF89a")
        False
        >>> try:
        ...     check_decoding(lambda data: data[0], b"")
        ... except AssertionError as error:
        ...     print(error)
        IndexError instead of a StreamError for 0 bytes: index out of range
    """
    start = time.perf_counter()
    try:
        decode(data)
        decoded = True
    except StreamError:
        decoded = False
    except Exception as error:
        raise AssertionError(
            f"{type(error).__name__} instead of a StreamError for {len(data)} bytes: {error}"
        ) from error
    taken = time.perf_counter() - start
    if seconds is not None and taken > seconds:
        raise AssertionError(f"{len(data)} bytes took {taken:.2f} s, more than {seconds:g} s")
    return decoded


def example(strategy: SearchStrategy[Any]) -> Any:
    """The simplest value of a strategy, to look at it; tests draw their own.

    Example:
        >>> example(truncations(b"abc"))
        b''
    """
    from hypothesis import find

    return find(strategy, lambda value: True)
