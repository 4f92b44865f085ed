"""The strategies for authors of codecs make what they say, and find what they should."""

import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from latentpress.codecs import testing
from latentpress.codecs.bitstream import (
    CodecId,
    Limits,
    SectionType,
    StreamError,
    read_container,
    write_container,
)
from latentpress.codecs.registry import inspect, read_metadata

STREAM = write_container(
    CodecId.FIELD, b"8 bytes.", [(SectionType.ICC, b"abc"), (SectionType.PAYLOAD, b"0123")]
)


@given(testing.containers())
def test_containers_are_well_formed_and_have_one_form(data):
    found = read_container(data)
    assert write_container(found.codec_id, found.fingerprint, found.sections) == data


def test_containers_vary():
    for wanted in (
        lambda c: c.codec_id == CodecId.SHAPE,
        lambda c: len(c.sections) > 3,
        lambda c: any(section.type >= 128 for section in c.sections),
        lambda c: len(c.payload) > 20,
    ):
        find(testing.containers(), lambda data, wanted=wanted: wanted(read_container(data)))


@given(testing.truncations(STREAM))
def test_truncations_are_prefixes(data):
    assert STREAM.startswith(data)
    assert len(data) < len(STREAM)


@pytest.mark.parametrize(
    "wanted",
    [
        lambda data: len(data) == len(STREAM) and sum(a != b for a, b in zip(data, STREAM, strict=True)) == 1,
        lambda data: len(data) < len(STREAM) - 5,
        lambda data: len(data) > len(STREAM) + 8,
        lambda data: data.count(b"0123") == 2,
    ],
    ids=["one byte", "shorter", "longer", "a part twice"],
)
def test_mutations_reach(wanted):
    find(testing.mutations(STREAM), wanted, settings=settings(max_examples=5000, phases=[Phase.generate]))


def test_mutations_of_nothing():
    assert len(testing.example(testing.mutations(b""))) >= 1


@given(testing.mutations(STREAM))
def test_right_checksums_change_nothing_else(data):
    fixed = testing.with_right_checksums(data)
    assert len(fixed) == len(data)
    assert testing.with_right_checksums(fixed) == fixed
    assert "checksum" not in complaint(fixed)


def complaint(data: bytes) -> str:
    try:
        read_container(data)
    except StreamError as error:
        return str(error)
    return ""


def test_right_checksums_stay_right():
    assert testing.with_right_checksums(STREAM) == STREAM


@given(testing.hostile(STREAM))
def test_hostile_containers_raise_stream_errors(data):
    for read in (read_container, inspect, read_metadata):
        testing.check_decoding(read, data)


def test_hostile_streams_get_past_checksums():
    def reaches_the_payload(data: bytes) -> bool:
        try:
            return read_container(data).payload != b"0123"
        except StreamError:
            return False

    find(
        testing.hostile(STREAM),
        reaches_the_payload,
        settings=settings(max_examples=5000, phases=[Phase.generate]),
    )


class TestCodec:
    """The image codec, tested with what authors of codecs would use."""

    @pytest.fixture
    def items(self, picture):
        return [picture(height, width, channels) for height, width, channels in ((5, 9, 3), (17, 3, 1))]

    @settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_streams_decode(self, tiny_codec, items, data):
        strategy = testing.streams(tiny_codec, items, quality=st.floats(0, 100))
        assert testing.check_decoding(tiny_codec.decompress, data.draw(strategy))

    @settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_hostile_streams(self, tiny_codec, items, data):
        stream = tiny_codec.compress(items[0], metadata={"icc": b"profile"})
        limits = Limits(max_pixels=2**12)
        testing.check_decoding(
            lambda bytes_: tiny_codec.decompress(bytes_, limits=limits), data.draw(testing.hostile(stream))
        )


def test_other_errors_are_reported():
    def decode(data: bytes) -> None:
        raise KeyError(data[0])

    with pytest.raises(AssertionError, match="KeyError instead of a StreamError for 1 bytes"):
        testing.check_decoding(decode, b"x")


def test_slow_decoding_is_reported():
    with pytest.raises(AssertionError, match=r"more than 0\.01 s"):
        testing.check_decoding(lambda data: time.sleep(0.02), b"", seconds=0.01)


def test_nothing_else_needs_hypothesis():
    program = (
        "import sys; sys.modules['hypothesis'] = None; import latentpress.codecs.image; "
        "import latentpress.scripts.cli"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
