"""Codes to bytes and back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("trimesh")

from latentpress.codecs.bitstream import StreamError
from latentpress.codecs.packed_words import packed_words, unpacked_words
from latentpress.codecs.shape_coder import CodePlan


@pytest.fixture(scope="module")
def coder(shape_codec):
    return shape_codec._coder


@given(st.lists(st.sampled_from([0, 1, 0x01000000, 0xFF0000, 0xFFFFFFFF]), max_size=5))
def test_words_come_back(words) -> None:
    data = b"".join(word.to_bytes(4, "little") for word in words)
    assert unpacked_words(packed_words(data)) == data


@given(st.binary(max_size=9))
def test_packed_bytes_have_one_form(data) -> None:
    try:
        words = unpacked_words(data)
    except StreamError:
        return
    assert packed_words(words) == data


@settings(max_examples=15)
@given(st.integers(0, 1000), st.sampled_from([0.0, 20.4, 100.0]), st.integers(1, 3), st.integers(0, 2))
def test_decoder_has_what_the_encoder_had(coder, seed, quality, groups, colour_groups) -> None:
    random = torch.Generator().manual_seed(seed)
    level = torch.tensor([quality])
    plan = CodePlan(level, level if colour_groups else None, groups, colour_groups)
    geometry = torch.randn((1, 64, 6), generator=random) * 5
    colour = torch.randn((1, 64, 4), generator=random) * 50 if colour_groups else None
    coded = coder.encode(geometry, colour, plan)
    found = coder.decode(coded.data, coded.checksum, plan)
    assert torch.equal(found.geometry, coded.code.geometry)
    assert (found.colour is None) == (colour is None)
    if found.colour is not None:
        assert torch.equal(found.colour, coded.code.colour)
    sent = slice(0, groups * 2)
    # Rounded to the nearest step, or one nearer to the mean.
    assert float((found.geometry - geometry)[..., sent].abs().max()) <= 1.5
    with pytest.raises(StreamError):
        coder.decode(coded.data, coded.checksum ^ 1, plan)


def test_rounding_spares_bits_that_buy_little(coder) -> None:
    narrow, wide = torch.zeros(2, dtype=torch.uint8), torch.full((2,), 40, dtype=torch.uint8)
    residual = torch.tensor([0.52, 0.95], dtype=torch.float64)
    assert coder._round(residual, narrow).tolist() == [0, 0]
    assert coder._round(residual, wide).tolist() == [1, 1]
