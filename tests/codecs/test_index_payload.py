"""Headers and packets of index payloads, intact and damaged; nothing here needs torch."""

import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentpress.codecs.bitstream import (
    CodecId,
    CorruptStream,
    LimitExceeded,
    Limits,
    SectionType,
    StreamError,
    TruncatedStream,
    write_container,
)
from latentpress.codecs.erasure_code import share_bytes
from latentpress.codecs.index_payload import (
    MARKER,
    Body,
    IndexHeader,
    Packet,
    describe,
    find_packets,
    needed_packets,
    read_body,
    read_payload,
    split_packets,
    write_packet,
)

LIMITS = Limits()
FINGERPRINT = b"fingerpr"
HEADER = IndexHeader(512, 768, 3, 7, 5, 3, 4)

headers = st.builds(
    lambda height, width, channels, book, levels, packets, residual, base: IndexHeader(
        height,
        width,
        channels,
        book,
        *levels,
        packets,
        residual if levels[1] else 0,
        base if packets > 1 else 0,
    ),
    st.integers(1, 10_000),
    st.integers(1, 10_000),
    st.sampled_from([1, 3]),
    st.integers(0, 7),
    st.tuples(st.integers(1, 15), st.integers(0, 15)) | st.just((0, 0)),
    st.integers(1, 255),
    st.integers(0, 15),
    st.integers(0, 300),
)


def bodies(count: int = 4) -> list[Body]:
    header = dataclasses.replace(HEADER, packets=count)
    return [Body(header, number, bytes([number]) * (4 + 4 * number)) for number in range(count)]


def share_of(header: IndexHeader) -> bytes:
    return bytes(n % 256 for n in range(300))[
        : share_bytes(header.base_bytes, needed_packets(header.packets))
    ]


def payload(parts: list[Body]) -> bytes:
    packets = (Packet(number, body.to_bytes()) for number, body in enumerate(parts))
    return b"".join(write_packet(packet, FINGERPRINT) for packet in packets)


@given(headers, st.integers(0, 2**32 - 1), st.binary(max_size=20))
def test_bodies_round_trip(header, checksum, words) -> None:
    body = Body(header, checksum, words, share_of(header))
    assert read_body(body.to_bytes(), LIMITS) == body
    assert body.to_bytes()[0] != MARKER


@given(headers)
def test_cut_bodies(header) -> None:
    data = Body(header, 1, b"", share_of(header)).to_bytes()
    for end in range(len(data)):
        with pytest.raises(TruncatedStream):
            read_body(data[:end], LIMITS)


@pytest.mark.parametrize(
    "change",
    [
        {"height": 0},
        {"width": 0},
        {"split_level": 0, "fine_level": 1},
        {"packets": 256},
        {"residual_level": 16},
        {"fine_level": 0, "residual_level": 3},
    ],
)
def test_impossible_headers(change) -> None:
    with pytest.raises(CorruptStream):
        read_body(Body(dataclasses.replace(HEADER, **change), 0, b"").to_bytes(), LIMITS)


def test_a_residual_level_of_zero_is_not_written() -> None:
    data = bytearray(Body(dataclasses.replace(HEADER, residual_level=3), 0, b"").to_bytes())
    assert len(data) == len(Body(HEADER, 0, b"").to_bytes()) + 1
    data[data.index(3, 5)] = 0
    with pytest.raises(CorruptStream):
        read_body(bytes(data), LIMITS)


def test_impossible_bases() -> None:
    """Those of an undivided body, and empty ones."""
    data = bytearray(Body(dataclasses.replace(HEADER, base_bytes=1), 0, b"", b"s").to_bytes())
    place = data.index(b"\x01s")
    with pytest.raises(CorruptStream, match="empty"):
        read_body(bytes(data[:place] + b"\0" + data[place + 1 :]), LIMITS)
    data[0] &= ~0x10
    with pytest.raises(CorruptStream, match="begin"):
        read_body(bytes(data), LIMITS)


def test_limits() -> None:
    with pytest.raises(LimitExceeded):
        read_body(Body(HEADER, 0, b"").to_bytes(), Limits(max_pixels=1000))


def test_packets_round_trip() -> None:
    parts = bodies()
    assert read_payload(payload(parts), FINGERPRINT, LIMITS) == parts
    assert [p.number for p in find_packets(payload(parts), FINGERPRINT)] == [0, 1, 2, 3]
    assert find_packets(payload(parts), b"anothers") == []


def test_a_single_body_is_a_payload() -> None:
    body = Body(dataclasses.replace(HEADER, packets=1), 7, b"word")
    assert read_payload(body.to_bytes(), FINGERPRINT, LIMITS) == [body]
    with pytest.raises(CorruptStream, match="alone"):
        read_payload(Body(HEADER, 7, b"word").to_bytes(), FINGERPRINT, LIMITS)


def test_missing_swapped_and_foreign_packets_are_refused() -> None:
    parts = bodies()
    framed = [write_packet(Packet(n, body.to_bytes()), FINGERPRINT) for n, body in enumerate(parts)]
    other = Body(dataclasses.replace(HEADER, width=100), 0, b"")
    for wrong in (
        framed[:3],
        framed[1:],
        [framed[1], framed[0], *framed[2:]],
        [*framed, framed[3]],
        [*framed[:3], write_packet(Packet(3, other.to_bytes()), FINGERPRINT)],
    ):
        with pytest.raises(StreamError):
            read_payload(b"".join(wrong), FINGERPRINT, LIMITS)


@given(st.sets(st.integers(0, 7)), st.binary(max_size=30), st.integers(0, 3))
def test_packets_are_found_wherever_they_are(lost, rubbish, place) -> None:
    parts = bodies(8)
    framed = [write_packet(Packet(n, body.to_bytes()), FINGERPRINT) for n, body in enumerate(parts)]
    kept = [packet for n, packet in enumerate(framed) if n not in lost]
    data = b"".join([*kept[:place], rubbish, *kept[place:]])
    found = {packet.number for packet in find_packets(data, FINGERPRINT)}
    assert found == set(range(8)) - lost


def test_a_damaged_packet_does_not_hide_the_next() -> None:
    data = bytearray(payload(bodies()))
    data[3] ^= 0xFF
    assert [p.number for p in find_packets(bytes(data), FINGERPRINT)] == [1, 2, 3]


def test_search_through_nothing_but_markers_ends() -> None:
    assert find_packets(bytes([MARKER, 0, 255, 255, 3]) * 40_000, FINGERPRINT) == []


def test_streams_are_cut_into_their_packets() -> None:
    data = write_container(CodecId.INDEX, FINGERPRINT, [(SectionType.PAYLOAD, payload(bodies()))])
    assert b"".join(split_packets(data)) == payload(bodies())
    single = Body(dataclasses.replace(HEADER, packets=1), 7, b"word").to_bytes()
    with pytest.raises(CorruptStream, match="not divided"):
        split_packets(write_container(CodecId.INDEX, FINGERPRINT, [(SectionType.PAYLOAD, single)]))


def test_description() -> None:
    expected = {"width": 768, "height": 512, "channels": 3, "codes": 1024}
    assert describe(payload(bodies()), LIMITS) == {**expected, "packets": 4}
    single = Body(dataclasses.replace(HEADER, packets=1), 7, b"word").to_bytes()
    assert describe(single, LIMITS) == {**expected, "packets": 1}
    residual = Body(dataclasses.replace(HEADER, packets=1, residual_level=4), 7, b"word").to_bytes()
    assert describe(residual, LIMITS) == {**expected, "packets": 1, "residual_level": 4}


def test_no_torch() -> None:
    program = "import latentpress.codecs.index_payload, sys; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
