"""The header of shape streams."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentpress.codecs.bitstream import DEFAULT_LIMITS, CorruptStream, StreamError
from latentpress.codecs.shape_payload import KINDS, UNITS, Pose, ShapeHeader, describe, read_shape_header

codes = st.integers(-(2**40), 2**40)
poses = st.builds(Pose, st.integers(-32768, 32767), st.tuples(codes, codes, codes))


@st.composite
def headers(draw):
    colour = draw(st.none() | st.integers(0, 250))
    return ShapeHeader(
        kind=draw(st.sampled_from(KINDS)),
        geometry_quality=draw(st.integers(0, 250)),
        geometry_groups=draw(st.integers(1, 15)),
        colour_quality=colour,
        colour_groups=0 if colour is None else draw(st.integers(1, 15)),
        pose=draw(poses),
        unit=draw(st.none() | st.sampled_from(UNITS)),
        checksum=draw(st.integers(0, 65535)),
        smoothing=draw(st.integers(0, 3)),
    )


@given(headers(), st.binary(max_size=8))
def test_round_trip(header, rest) -> None:
    data = header.to_bytes()
    assert len(data) <= 30
    assert read_shape_header(data + rest) == (header, len(data))


@given(headers())
def test_every_cut_is_noticed(header) -> None:
    data = header.to_bytes()
    for length in range(len(data)):
        with pytest.raises(StreamError):
            read_shape_header(data[:length])


@given(st.binary(max_size=40))
def test_nothing_but_stream_errors(data) -> None:
    try:
        header, offset = read_shape_header(data)
    except StreamError:
        return
    # One header, one form.
    assert header.to_bytes() == data[:offset]


coordinate = st.floats(-1e6, 1e6)


@given(st.tuples(coordinate, coordinate, coordinate), st.tuples(*[st.floats(1e-3, 1e5)] * 3))
def test_pose_holds_its_box(low, size) -> None:
    high = tuple(a + b for a, b in zip(low, size, strict=True))
    pose = Pose.around(low, high)
    half = max(b - a for a, b in zip(low, high, strict=True)) / 2
    assert half * (1 - 1e-6) <= pose.scale <= half * 1.002
    for middle, a, b in zip(pose.centre, low, high, strict=True):
        assert abs(middle - (a + b) / 2) <= pose.scale / 64


def test_unit_cube_costs_nothing() -> None:
    assert Pose.around((-1.0, -1.0, -0.5), (1.0, 1.0, 0.5)) == Pose()


@pytest.mark.parametrize(
    ("low", "high"),
    [((0, 0, 0), (0, 0, 0)), ((0, 0, 0), (float("inf"), 1, 1)), ((1e12, 0, 0), (1e12 + 1, 1, 1))],
)
def test_impossible_boxes(low, high) -> None:
    with pytest.raises(ValueError, match=r"extent|far from"):
        Pose.around(low, high)


def test_a_smoothing_costs_nothing_and_the_last_flag_is_not_defined() -> None:
    header = ShapeHeader("mesh", 100, 6, None, 0, Pose(), None, 0, smoothing=3)
    data = header.to_bytes()
    assert len(data) == 5
    with pytest.raises(CorruptStream, match="not defined"):
        read_shape_header(bytes([data[0] | 128]) + data[1:])


def test_describe() -> None:
    header = ShapeHeader("points", 125, 6, 100, 3, Pose(512, (0, 0, 0)), "meters", 0)
    expected = {"kind": "points", "mode": "generator", "quality": 50.0, "colour": "yes"}
    expected |= {"longest_side": 4.0, "unit": "meters"}
    assert describe(header.to_bytes(), DEFAULT_LIMITS) == expected
