"""The alpha coder: exact or within its error, cheap where nothing happens, and safe with any bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from latentpress.codecs import testing
from latentpress.codecs.alpha_coder import Region, decode_alpha, encode_alpha
from latentpress.codecs.alpha_payload import TILE
from latentpress.codecs.bitstream import (
    CorruptStream,
    LimitExceeded,
    Limits,
    StreamError,
    TruncatedStream,
)


def disc(height: int, width: int, softness: float = 1.5, top: int = 255) -> np.ndarray:
    """Opaque in the middle, transparent outside, with a border some pixels wide."""
    y, x = np.mgrid[0:height, 0:width]
    distance = np.hypot(y - height / 2, x - width / 2) - 0.35 * min(height, width)
    kind = np.uint8 if top == 255 else np.uint16
    return (np.clip(0.5 - distance / softness, 0, 1) * top).round().astype(kind)


def ramp(height: int, width: int) -> np.ndarray:
    return np.broadcast_to(np.linspace(0, 255, width).astype(np.uint8), (height, width)).copy()


def random_values(height: int, width: int, kind=np.uint8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(kind).max, (height, width), kind, endpoint=True)


PICTURES = {
    "disc": disc(90, 130),
    "hard disc": disc(90, 130, 0.01),
    "blurred disc": disc(120, 100, 40.0),
    "ramp": ramp(33, 200),
    "noise": random_values(40, 50),
    "column": random_values(70, 1),
    "row": random_values(1, 70),
    "one value": random_values(1, 1),
    "two by two": random_values(2, 2),
    "several tiles": disc(TILE + 40, TILE + 3),
    "deep disc": disc(90, 130, 9.0, 65535),
    "deep noise": random_values(40, 50, np.uint16),
    "deep ramp": np.broadcast_to(np.arange(0, 60000, 300, np.uint16), (30, 200)).copy(),
}


@pytest.mark.parametrize("error", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("name", PICTURES)
def test_round_trip(name, error):
    alpha = PICTURES[name]
    section = encode_alpha(alpha, error)
    found = decode_alpha(section, *alpha.shape)
    assert (found.dtype, found.shape) == (alpha.dtype, alpha.shape)
    assert np.abs(found.astype(int) - alpha).max() <= error
    top = np.iinfo(alpha.dtype).max
    for end in (0, top):
        np.testing.assert_array_equal(found == end, alpha == end)
    assert encode_alpha(alpha, error) == section


@given(
    arrays.arrays(
        st.sampled_from([np.uint8, np.uint16]), arrays.array_shapes(min_dims=2, max_dims=2, max_side=24)
    ),
    st.integers(0, 127),
)
def test_any_values(alpha, error):
    found = decode_alpha(encode_alpha(alpha, error), *alpha.shape)
    assert found.dtype == alpha.dtype
    assert np.abs(found.astype(int) - alpha).max() <= error
    for end in (0, np.iinfo(alpha.dtype).max):
        np.testing.assert_array_equal(found == end, alpha == end)


def test_not_every_array_is_in_one_piece():
    alpha = disc(60, 80)
    for view in (alpha[::-1], alpha[:, ::2], alpha.T):
        np.testing.assert_array_equal(decode_alpha(encode_alpha(view), *view.shape), view)


@pytest.mark.parametrize("value", [0, 1, 100, 254, 255])
def test_one_value_takes_three_bytes(value):
    alpha = np.full((300, 700), value, np.uint8)
    section = encode_alpha(alpha)
    assert len(section) <= 3
    np.testing.assert_array_equal(decode_alpha(section, 300, 700), alpha)


def test_mostly_opaque_and_binary_masks_cost_almost_nothing():
    corner = np.full((512, 768), 255, np.uint8)
    corner[:40, :60] = 0
    assert len(encode_alpha(corner)) < 100
    hard = disc(512, 768, 0.01)
    border = np.count_nonzero(np.diff(hard.astype(int), axis=0)) + np.count_nonzero(np.diff(hard.astype(int)))
    assert len(encode_alpha(hard)) * 8 < 1.5 * border
    assert len(encode_alpha(hard)) * 8 < 0.01 * hard.size


def test_an_error_saves_bytes():
    sizes = [len(encode_alpha(PICTURES["blurred disc"], error)) for error in (0, 1, 2, 5)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] < 0.5 * sizes[0]


class TestRegions:
    ALPHA = disc(TILE * 2 + 100, TILE + 70, 60.0)

    @pytest.mark.parametrize(
        "region",
        [
            (0, 0, 1, 1),
            (TILE - 1, TILE - 1, 2, 2),
            (100, 200, 300, 100),
            (TILE, TILE, TILE, 70),
            (3, 5, 2 * TILE, TILE),
            (0, 0, 2 * TILE + 100, TILE + 70),
        ],
    )
    def test_same_as_of_the_whole(self, region):
        section = encode_alpha(self.ALPHA, 2)
        y, x, rows, columns = region
        whole = decode_alpha(section, *self.ALPHA.shape)
        part = decode_alpha(section, *self.ALPHA.shape, region=Region(*region))
        np.testing.assert_array_equal(part, whole[y : y + rows, x : x + columns])

    def test_of_a_constant(self):
        section = encode_alpha(np.full((50, 60), 7, np.uint8))
        assert decode_alpha(section, 50, 60, region=Region(10, 20, 30, 40)).tolist() == [[7] * 40] * 30

    def test_other_tiles_are_not_decoded(self):
        """Damage elsewhere does no harm, which the checksum of the section tells about."""
        section = bytearray(encode_alpha(self.ALPHA, 2))
        section[-20] ^= 1
        with pytest.raises(StreamError):
            decode_alpha(bytes(section), *self.ALPHA.shape)
        region = Region(0, 0, TILE, TILE)
        decode_alpha(bytes(section), *self.ALPHA.shape, region=region)

    @pytest.mark.parametrize("region", [(-1, 0, 5, 5), (0, 0, 0, 5), (0, 58, 5, 3), (46, 0, 5, 5)])
    def test_outside(self, region):
        with pytest.raises(ValueError, match="not within a picture of 60x50"):
            decode_alpha(encode_alpha(np.zeros((50, 60), np.uint8)), 50, 60, region=Region(*region))


class TestWrongArguments:
    @pytest.mark.parametrize("alpha", [[[1]], np.zeros((2, 2)), np.zeros((2, 2), np.int32), None])
    def test_types(self, alpha):
        with pytest.raises(TypeError, match="uint8 or uint16"):
            encode_alpha(alpha)

    @pytest.mark.parametrize("shape", [(3,), (0, 3), (3, 0), (1, 2, 3)])
    def test_shapes(self, shape):
        with pytest.raises(ValueError, match=r"\(H, W\)"):
            encode_alpha(np.zeros(shape, np.uint8))

    @pytest.mark.parametrize("error", [-1, 128])
    def test_errors(self, error):
        with pytest.raises(ValueError, match="within 0 and 127"):
            encode_alpha(np.zeros((2, 2), np.uint8), error)


class TestWrongBytes:
    SECTION = encode_alpha(disc(60, 70, 6.0), 1)

    @given(testing.mutations(SECTION) | testing.truncations(SECTION) | st.binary(max_size=40))
    def test_nothing_but_stream_errors(self, data):
        testing.check_decoding(lambda section: decode_alpha(section, 60, 70), data)

    def test_every_cut_is_noticed(self):
        for end in range(len(self.SECTION)):
            with pytest.raises(StreamError):
                decode_alpha(self.SECTION[:end], 60, 70)
        with pytest.raises(CorruptStream, match="follow the last tile"):
            decode_alpha(self.SECTION + b"\0", 60, 70)

    def test_another_size(self):
        for height, width in ((60, 71), (59, 70), (70, 60), (60, TILE + 1)):
            with pytest.raises(StreamError):
                decode_alpha(self.SECTION, height, width)

    @pytest.mark.parametrize(
        ("section", "message"),
        [
            (b"\x04\x00", "no form 4"),
            (b"\x02\x80\x02", "256 is no value of 8-bit alpha"),
            (b"\x03\x80\x80\x04", "65536 is no value of 16-bit alpha"),
            (b"\x02\x01\x00", "1 bytes follow a constant"),
            (b"\x00\x80\x01\x00", "an error of 128 is too large"),
            (b"\x00\x00\x02\x05\x00\x01", "checksum|coded symbols"),
        ],
    )
    def test_impossible_values(self, section, message):
        with pytest.raises(StreamError, match=message):
            decode_alpha(section, 2, 2)

    def test_size_is_checked_before_allocation(self):
        with pytest.raises(LimitExceeded):
            decode_alpha(b"\x02\x00", 2**20, 2**20, Limits(max_pixels=2**24))
        # Within the limit, but with nowhere near a byte for every tile.
        with pytest.raises(TruncatedStream, match="tiles cannot be in 3 bytes"):
            decode_alpha(b"\x00\x00\x00\x00\x00", 2**14, 2**14)
        with pytest.raises(TruncatedStream, match="lacks"):
            decode_alpha(b"\x00\x00\xff\xff\xff\xff\x0f\x00", 100, 100)
