"""The image payload's header."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentpress.codecs.bitstream import (
    CorruptStream,
    LimitExceeded,
    Limits,
    StreamError,
    TruncatedStream,
    encode_varint,
)
from latentpress.codecs.image_payload import QUALITY_TENTHS_MAX, ImageHeader, read_image_header

NO_LIMITS = Limits(max_pixels=2**128)
headers = st.builds(
    ImageHeader,
    st.integers(1, 2**64 - 1),
    st.integers(1, 2**64 - 1),
    st.sampled_from([1, 3]),
    st.integers(0, QUALITY_TENTHS_MAX),
    st.integers(0, 2**32 - 1),
)


def raw(height: int, width: int, code: int, checksum: bytes = bytes(4)) -> bytes:
    return encode_varint(height) + encode_varint(width) + encode_varint(code) + checksum


@given(headers, st.binary(max_size=9))
def test_round_trip(header, symbols):
    data = header.to_bytes()
    assert read_image_header(data + symbols, NO_LIMITS) == (header, len(data))


def test_bytes():
    """512 = 00 04, 768 = 00 06, 2 * 501 + 1 = 1003 = 6b 07 in groups of seven bits."""
    header = ImageHeader(512, 768, 1, 501, 0x01020304)
    assert header.to_bytes().hex() == "8004" + "8006" + "eb07" + "04030201"
    assert header.quality == 50.1


@given(headers)
def test_every_truncation(header):
    data = header.to_bytes()
    for end in range(len(data)):
        with pytest.raises(TruncatedStream):
            read_image_header(data[:end], NO_LIMITS)


@pytest.mark.parametrize(("height", "width"), [(0, 5), (5, 0), (0, 0)])
def test_no_pixels(height, width):
    with pytest.raises(CorruptStream, match=f"{width}x{height}"):
        read_image_header(raw(height, width, 0), NO_LIMITS)


@pytest.mark.parametrize("code", [2002, 2003, 2**64 - 1])
def test_quality_above_100(code):
    read_image_header(raw(1, 1, 2001), NO_LIMITS)
    with pytest.raises(CorruptStream, match="quality"):
        read_image_header(raw(1, 1, code), NO_LIMITS)


@pytest.mark.parametrize(("height", "width"), [(60000, 60000), (2**64 - 1, 1), (2**32, 2**32)])
def test_size_beyond_the_limits(height, width):
    with pytest.raises(LimitExceeded, match=str(height * width)):
        read_image_header(raw(height, width, 0), Limits())


def test_limits_are_the_callers():
    read_image_header(raw(10, 10, 0), Limits(max_pixels=100))
    with pytest.raises(LimitExceeded):
        read_image_header(raw(10, 10, 0), Limits(max_pixels=99))


@given(st.binary(max_size=40))
def test_any_bytes(data):
    try:
        header, offset = read_image_header(data, Limits())
    except StreamError:
        return
    assert header.to_bytes() == data[:offset]


def test_needs_no_torch():
    program = "import sys, latentpress.codecs.image_payload; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
