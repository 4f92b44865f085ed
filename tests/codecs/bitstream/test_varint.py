"""LEB128: round trips, and every encoding but the canonical one rejected."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress.codecs.bitstream import CorruptStream, TruncatedStream, decode_varint, encode_varint

FAST = settings(deadline=None, database=None)


@FAST
@given(st.integers(0, 2**64 - 1), st.binary(max_size=4), st.binary(max_size=4))
def test_round_trip_at_any_offset(value, before, after):
    coded = encode_varint(value)
    assert decode_varint(before + coded + after, len(before)) == (value, len(before) + len(coded))


@pytest.mark.parametrize(
    ("value", "coded"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (16383, "ff7f"),
        (2**21 - 1, "ffff7f"),
        (2**64 - 1, "ffffffffffffffffff01"),
    ],
)
def test_known_bytes(value, coded):
    assert encode_varint(value).hex() == coded


@FAST
@given(st.binary(max_size=12))
def test_accepted_bytes_are_the_canonical_ones(data):
    try:
        value, end = decode_varint(data)
    except (CorruptStream, TruncatedStream):
        return
    assert encode_varint(value) == data[:end]


@pytest.mark.parametrize("coded", ["8000", "ff00", "80808000", "ffffffffffffffffff02", "80" * 11, "ff" * 40])
def test_padded_or_too_long(coded):
    with pytest.raises(CorruptStream):
        decode_varint(bytes.fromhex(coded))


@FAST
@given(st.integers(0, 2**64 - 1))
def test_every_cut_is_reported(value):
    coded = encode_varint(value)
    for end in range(len(coded)):
        with pytest.raises(TruncatedStream):
            decode_varint(coded[:end])


def test_wrong_arguments():
    for value in (-1, 2**64):
        with pytest.raises(ValueError, match="64"):
            encode_varint(value)
    with pytest.raises(TypeError):
        encode_varint(1.0)
    with pytest.raises(ValueError, match="offset"):
        decode_varint(b"\x00", -1)
    with pytest.raises(TruncatedStream):
        decode_varint(b"\x00", 5)
