"""The latent coder: exact symbols, whatever computes them, and every damage found."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress.codecs.bitstream import CorruptStream, StreamError, TruncatedStream, crc32c
from latentpress.codecs.latent_coder import SYMBOL_LIMIT
from latentpress.models.entropy.fixed_point import UNIT

FEW = settings(max_examples=25)


@pytest.fixture(scope="module")
def coder(tiny_codec):
    return tiny_codec._coder


def latents(coder, height: int, width: int, seed: int, scale: float = 3.0):
    generator = torch.Generator().manual_seed(seed)
    z_shape = (1, -(-height // 4), -(-width // 4), coder.hyper_channels)
    y = torch.randn((1, height, width, coder.latent_channels), generator=generator) * scale
    return y, torch.randn(z_shape, generator=generator) * scale


def quality(tenths: int) -> torch.Tensor:
    return torch.tensor([tenths / 10])


@FEW
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000), st.integers(0, 99), st.floats(0.01, 100.0))
def test_round_trip(coder, height, width, tenths, seed, scale):
    y, z = latents(coder, height, width, seed, scale)
    seen = []
    coded = coder.encode(y, z, quality(tenths), seen.append)
    decoded = coder.decode(coded.data, coded.checksum, height, width, quality(tenths))
    assert decoded.dtype == torch.float32
    assert torch.equal(decoded, coded.y_hat)
    # One step less in magnitude than the nearest, where that saves bits.
    assert float((decoded - y).abs().max()) < 1.501
    symbols = np.concatenate([group.symbols for group in seen])
    assert len(symbols) == y.numel() + z.numel()
    assert coded.checksum == crc32c(symbols.astype("<i4").tobytes())


@FEW
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000), st.integers(0, 99))
def test_decoded_latents_encode_to_the_same_bytes(coder, height, width, tenths, seed):
    y, z = latents(coder, height, width, seed)
    coded = coder.encode(y, z, quality(tenths))
    multiplier, coder.multiplier = coder.multiplier, 0.0
    try:
        again = coder.encode(coded.y_hat, z, quality(tenths))
    finally:
        coder.multiplier = multiplier
    assert again.data == coded.data
    assert again.checksum == coded.checksum
    assert torch.equal(again.y_hat, coded.y_hat)


def test_rounding_saves_bits(coder):
    y, z = latents(coder, 8, 8, 7)
    thrifty = coder.encode(y, z, quality(500))
    multiplier, coder.multiplier = coder.multiplier, 0.0
    try:
        nearest = coder.encode(y, z, quality(500))
    finally:
        coder.multiplier = multiplier
    assert float((nearest.y_hat - y).abs().max()) < 0.501
    assert len(thrifty.data) < len(nearest.data)


@pytest.mark.parametrize("scale", [0.0, 1e3, 1e6, 1e12])
def test_latents_of_any_size(coder, scale):
    """Symbols are limited, so what is out of reach is decoded as something else, but decoded."""
    y, z = latents(coder, 3, 5, 0, scale)
    seen = []
    coded = coder.encode(y, z, quality(500), seen.append)
    assert max(int(np.abs(group.symbols).max()) for group in seen) <= SYMBOL_LIMIT
    assert torch.equal(coder.decode(coded.data, coded.checksum, 3, 5, quality(500)), coded.y_hat)


def test_means_and_tables_vary(coder):
    """Otherwise the tests here would prove little."""
    y, z = latents(coder, 8, 8, 1)
    tables, scales = set(), set()
    for tenths in (0, 500, 1000):
        seen = []
        y_hat = coder.encode(y, z, quality(tenths), seen.append).y_hat
        tables |= {int(index) for group in seen for index in group.indexes}
        scales |= {float(raw) for group in seen for raw in group.raw_scale}
        fractions = (y_hat.double() * UNIT) % UNIT
        assert len(fractions.unique()) > 500
    assert len(tables) > 30
    assert len(scales) > 1000


@pytest.mark.parametrize(("encoder", "decoder"), [(1, 2), (2, 1)])
def test_threads(coder, encoder, decoder):
    before = torch.get_num_threads()
    y, z = latents(coder, 24, 20, 2)
    try:
        torch.set_num_threads(encoder)
        coded = coder.encode(y, z, quality(700))
        torch.set_num_threads(decoder)
        decoded = coder.decode(coded.data, coded.checksum, 24, 20, quality(700))
        again = coder.encode(y, z, quality(700))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(decoded, coded.y_hat)
    assert again.data == coded.data


def test_autocast(coder):
    """A caller's reduced precision does not reach the integers."""
    y, z = latents(coder, 6, 7, 3)
    plain = coder.encode(y, z, quality(300))
    with torch.autocast("cpu", torch.bfloat16):
        coded = coder.encode(y, z, quality(300))
        assert torch.equal(coder.decode(plain.data, plain.checksum, 6, 7, quality(300)), plain.y_hat)
    assert coded.data == plain.data


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_quality_in_any_precision_that_holds_it(coder, kind):
    y, z = latents(coder, 2, 2, 4)
    coded = coder.encode(y, z, quality(500))
    coder.decode(coded.data, coded.checksum, 2, 2, quality(500).to(kind))


class TestDamage:
    @pytest.fixture(scope="class")
    @classmethod
    def coded(cls, coder):
        return coder.encode(*latents(coder, 3, 4, 5), quality(400))

    def test_truncation(self, coder, coded):
        for end in range(len(coded.data)):
            with pytest.raises(StreamError):
                coder.decode(coded.data[:end], coded.checksum, 3, 4, quality(400))

    def test_nothing(self, coder, coded):
        with pytest.raises(TruncatedStream):
            coder.decode(b"", coded.checksum, 3, 4, quality(400))

    def test_words_too_many(self, coder, coded):
        for tail in (bytes(4), bytes(400), b"\xff" * 4):
            with pytest.raises(CorruptStream):
                coder.decode(coded.data + tail, coded.checksum, 3, 4, quality(400))

    def test_checksum(self, coder, coded):
        with pytest.raises(CorruptStream, match=f"{coded.checksum:08x}"):
            coder.decode(coded.data, coded.checksum ^ 1, 3, 4, quality(400))

    @pytest.mark.parametrize(
        ("height", "width", "tenths"), [(4, 4, 400), (3, 3, 400), (4, 3, 400), (3, 4, 900)]
    )
    def test_another_size_or_quality(self, coder, coded, height, width, tenths):
        with pytest.raises(StreamError):
            coder.decode(coded.data, coded.checksum, height, width, quality(tenths))

    @FEW
    @given(st.binary(max_size=200))
    def test_any_words(self, coder, data):
        with pytest.raises(StreamError):
            coder.decode(data, 0x12345678, 2, 3, quality(400))

    def test_symbols_beyond_the_limit(self, coder, monkeypatch):
        """An encoder that does not limit its symbols writes what no decoder takes."""
        monkeypatch.setattr("latentpress.codecs.latent_coder.SYMBOL_LIMIT", 10**6)
        y, z = latents(coder, 1, 1, 6)
        coded = coder.encode(y + SYMBOL_LIMIT + 100, z, quality(400))
        monkeypatch.undo()
        with pytest.raises(CorruptStream, match=str(SYMBOL_LIMIT)):
            coder.decode(coded.data, coded.checksum, 1, 1, quality(400))
