"""The container: round trips, and every damage reported as a StreamError."""

import contextlib
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress.codecs.bitstream import (
    MAGIC,
    CodecId,
    CorruptStream,
    LimitExceeded,
    Limits,
    SectionType,
    StreamError,
    TruncatedStream,
    UnsupportedVersion,
    crc32c,
    encode_varint,
    read_container,
    read_preamble,
    write_container,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "v1" / "bitstream_container.json"
FAST = settings(deadline=None, database=None, max_examples=60)
FINGERPRINT = bytes(range(8))
HEADER = MAGIC + bytes([1, 1]) + FINGERPRINT
SAMPLE = [(SectionType.ICC, b"profile"), (200, b""), (SectionType.PAYLOAD, bytes(range(40)))]

optional_types = st.one_of(st.sampled_from([2, 3, 4, 5]), st.integers(128, 255))
section_lists = st.builds(
    lambda others, payload, at: [*others[:at], (1, payload), *others[at:]],
    st.lists(
        st.tuples(optional_types, st.binary(max_size=200)),
        unique_by=lambda section: section[0],
        max_size=6,
    ),
    st.binary(max_size=300),
    st.integers(0, 6),
)


def raw_section(kind: int, payload: bytes, header: bytes = HEADER) -> bytes:
    body = bytes([kind]) + encode_varint(len(payload)) + payload
    return body + crc32c(header, body).to_bytes(4, "little")


@FAST
@given(st.sampled_from(CodecId), st.binary(min_size=8, max_size=8), section_lists)
def test_round_trip(codec_id, fingerprint, sections):
    stream = write_container(codec_id, fingerprint, sections)
    container = read_container(stream)
    assert (container.version, container.codec_id, container.fingerprint) == (1, codec_id, fingerprint)
    assert sorted(container.sections) == sorted(sections)
    assert container.sections[-1].type is SectionType.PAYLOAD
    assert container.payload == dict(sections)[1]
    assert container.overhead == len(stream) - sum(len(payload) for _, payload in sections)
    assert write_container(codec_id, fingerprint, container.sections) == stream


@pytest.mark.parametrize(("size", "overhead"), [(0, 19), (127, 19), (128, 20), (2**21 - 1, 21)])
def test_overhead_of_one_section(size, overhead):
    stream = write_container(CodecId.IMAGE, FINGERPRINT, [(SectionType.PAYLOAD, bytes(size))])
    assert len(stream) - size == overhead == read_container(stream).overhead


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_likes(kind):
    stream = write_container(CodecId.IMAGE, kind(FINGERPRINT), [(1, kind(b"x"))])
    assert read_container(kind(stream)).payload == b"x"
    assert read_preamble(kind(stream)).fingerprint == FINGERPRINT


def test_what_the_checksum_covers():
    assert write_container(CodecId.IMAGE, FINGERPRINT, [(1, b"abc")]) == HEADER + raw_section(1, b"abc")


def test_every_truncation_is_reported():
    stream = write_container(CodecId.IMAGE, FINGERPRINT, SAMPLE)
    for end in range(len(stream)):
        with pytest.raises(TruncatedStream):
            read_container(stream[:end])


def test_every_changed_byte_is_reported():
    stream = bytearray(write_container(CodecId.IMAGE, FINGERPRINT, SAMPLE))
    for at in range(len(stream)):
        original = stream[at]
        for value in range(256):
            if value != original:
                stream[at] = value
                with pytest.raises(StreamError):
                    read_container(stream)
        stream[at] = original
    assert read_container(stream).payload == SAMPLE[-1][1]


@FAST
@given(st.binary(max_size=60))
def test_no_other_exception_escapes(tail):
    for stream in (tail, HEADER + tail, HEADER + raw_section(3, b"e") + tail):
        for read in (read_container, read_preamble):
            with contextlib.suppress(StreamError):
                read(stream)


def test_preamble_needs_the_header_only():
    preamble = read_preamble(HEADER)
    assert (preamble.version, preamble.codec_id, preamble.fingerprint) == (1, CodecId.IMAGE, FINGERPRINT)
    with pytest.raises(TruncatedStream):
        read_preamble(HEADER[:-1])
    with pytest.raises(TruncatedStream):
        read_preamble(b"")


@pytest.mark.parametrize("foreign", [b"\x89PNG\r\n\x1a\n" + bytes(20), b"\x9e\n\n" + bytes(20), b"?"])
def test_foreign_files(foreign):
    with pytest.raises(CorruptStream, match="not a latentpress stream"):
        read_container(foreign)


def test_newer_streams_are_called_newer():
    payload = raw_section(1, b"x")
    with pytest.raises(UnsupportedVersion, match="version 2"):
        read_container(MAGIC + bytes([2, 1]) + FINGERPRINT + payload)
    with pytest.raises(UnsupportedVersion, match="section type 99"):
        read_container(HEADER + raw_section(99, b"x") + payload)
    header = MAGIC + bytes([1, 77]) + FINGERPRINT
    with pytest.raises(UnsupportedVersion, match="codec id 77"):
        read_container(header + raw_section(1, b"x", header))
    with pytest.raises(UnsupportedVersion, match="codec id 77"):
        read_preamble(header)


def test_unknown_ancillary_sections_are_passed_over():
    container = read_container(
        HEADER + raw_section(254, b"a") + raw_section(254, b"b") + raw_section(1, b"x")
    )
    assert container.payload == b"x"
    assert container.get(254) == b"a"
    assert container.get(SectionType.ICC) is None


@pytest.mark.parametrize(
    ("tail", "error"),
    [
        (b"", TruncatedStream),
        (raw_section(2, b"a"), TruncatedStream),
        (raw_section(1, b"a") + b"\0", CorruptStream),
        (raw_section(1, b"a") + raw_section(1, b"a"), CorruptStream),
        (raw_section(1, b"a") + raw_section(200, b"a"), CorruptStream),
        (raw_section(2, b"a") + raw_section(2, b"b") + raw_section(1, b"a"), CorruptStream),
        (raw_section(0, b"") + raw_section(1, b"a"), CorruptStream),
        (b"\x01\x80\x00" + bytes(4), CorruptStream),
        (b"\x01\x05abc", TruncatedStream),
        (b"\x01" + encode_varint(2**29) + b"abc", TruncatedStream),
    ],
)
def test_malformed_sections(tail, error):
    with pytest.raises(error):
        read_container(HEADER + tail)


def test_limits_come_before_memory():
    huge = HEADER + b"\x01" + encode_varint(2**62) + b"x"
    many = HEADER + raw_section(200, b"") * 65 + raw_section(1, b"x")
    tracemalloc.start()
    try:
        with pytest.raises(LimitExceeded, match="max_section_bytes"):
            read_container(huge)
        with pytest.raises(LimitExceeded, match="max_sections"):
            read_container(many)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
    assert read_container(many, limits=Limits(max_sections=66)).payload == b"x"


def test_wrong_arguments_to_write():
    payload = (SectionType.PAYLOAD, b"x")
    for fingerprint, sections, message in [
        (b"short", [payload], "8 bytes"),
        (FINGERPRINT, [], "PAYLOAD"),
        (FINGERPRINT, [(2, b"")], "PAYLOAD"),
        (FINGERPRINT, [payload, payload], "twice"),
        (FINGERPRINT, [(99, b""), payload], "99"),
        (FINGERPRINT, [(0, b""), payload], r"\[1, 255\]"),
        (FINGERPRINT, [(256, b""), payload], r"\[1, 255\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            write_container(CodecId.IMAGE, fingerprint, sections)
    with pytest.raises(ValueError, match="9"):
        write_container(9, FINGERPRINT, [payload])


@pytest.mark.parametrize("wrong", ["text", None, 7, [1, 2]])
def test_wrong_types_are_named(wrong):
    name = type(wrong).__name__
    with pytest.raises(TypeError, match=f"data must be .* got {name}"):
        read_container(wrong)
    with pytest.raises(TypeError, match=f"data must be .* got {name}"):
        read_preamble(wrong)
    with pytest.raises(TypeError, match=f"section 1 must be .* got {name}"):
        write_container(CodecId.IMAGE, FINGERPRINT, [(1, wrong)])


@pytest.mark.parametrize("case", json.loads(GOLDEN.read_text())["cases"], ids=lambda case: case["name"])
def test_golden(case):
    stream = bytes.fromhex(case["stream"])
    sections = [(kind, bytes.fromhex(payload)) for kind, payload in case["sections"]]
    container = read_container(stream)
    assert container.codec_id == case["codec_id"]
    assert container.fingerprint.hex() == case["fingerprint"]
    assert list(container.sections) == sections
    assert write_container(container.codec_id, container.fingerprint, sections) == stream
