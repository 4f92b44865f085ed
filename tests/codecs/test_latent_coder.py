"""The latent coder: exact symbols, whatever computes them, and every damage found."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress.codecs.bitstream import CorruptStream, StreamError, SymbolEncoder, TruncatedStream, crc32c
from latentpress.codecs.symbol_coders import SYMBOL_LIMIT
from latentpress.models.entropy.fixed_point import UNIT

FEW = settings(max_examples=25)


@pytest.fixture(scope="module")
def coder(tiny_codec):
    return tiny_codec._coder


@pytest.fixture(scope="module")
def contextual_coder(contextual_codec):
    return contextual_codec._coder


def latents(coder, height: int, width: int, seed: int, scale: float = 3.0):
    generator = torch.Generator().manual_seed(seed)
    z_shape = (1, -(-height // 4), -(-width // 4), coder.hyper_prior.raw_scale.knots.shape[1])
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
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 1000), st.integers(0, 99))
def test_round_trip_of_side_information_in_four_steps(contextual_coder, height, width, tenths, seed):
    y, z = latents(contextual_coder, height, width, seed)
    seen = []
    coded = contextual_coder.encode(y, z, quality(tenths), seen.append)
    decoded = contextual_coder.decode(coded.data, coded.checksum, height, width, quality(tenths))
    assert torch.equal(decoded, coded.y_hat)
    assert sum(len(group.symbols) for group in seen[:4]) == z.numel()
    assert len(seen) == 4 + 4


@FEW
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000), st.integers(0, 99))
def test_decoded_latents_encode_to_the_same_bytes(coder, height, width, tenths, seed):
    y, z = latents(coder, height, width, seed)
    coded = coder.encode(y, z, quality(tenths))
    multiplier, coder.rounding.multiplier = coder.rounding.multiplier, 0.0
    try:
        again = coder.encode(coded.y_hat, z, quality(tenths))
    finally:
        coder.rounding.multiplier = multiplier
    assert again.data == coded.data
    assert again.checksum == coded.checksum
    assert torch.equal(again.y_hat, coded.y_hat)


def test_rounding_saves_bits(coder):
    y, z = latents(coder, 8, 8, 7)
    thrifty = coder.encode(y, z, quality(500))
    multiplier, coder.rounding.multiplier = coder.rounding.multiplier, 0.0
    try:
        nearest = coder.encode(y, z, quality(500))
    finally:
        coder.rounding.multiplier = multiplier
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


class TestBatch:
    """A latent has the same bytes in any batch, and decodes in any other."""

    TENTHS = (0, 333, 700, 1000)

    CODECS: ClassVar = {
        "four steps": "tiny_codec",
        "four steps and four of z": "contextual_codec",
        "slices": "tiny_max_codec",
        "slices without skipping": "patient_max_codec",
    }

    @pytest.fixture(params=CODECS)
    def coder(self, request):
        return request.getfixturevalue(self.CODECS[request.param])._coder

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (8, 6)])
    def test_is_its_latents(self, coder, height, width):
        pairs = [latents(coder, height, width, seed) for seed in range(4)]
        y, z = (torch.cat(tensors) for tensors in zip(*pairs, strict=True))
        qualities = torch.tensor(self.TENTHS) / 10
        prefixes = [b"", b"a", b"bc", b"def"]
        batch = coder.encode_batch(y, z, qualities, prefixes)
        for number, (pair, parts) in enumerate(zip(pairs, batch.parts(), strict=True)):
            alone = coder.encode(*pair, qualities[number : number + 1], prefix=prefixes[number])
            assert alone.parts == parts
            assert torch.equal(alone.y_hat, batch.y_hat[number : number + 1])
        order = [2, 0, 3]
        decoded = coder.decode_batch(
            [batch.parts()[k] for k in order], (height, width), qualities[order], [prefixes[k] for k in order]
        )
        assert torch.equal(decoded, batch.y_hat[order])

    def test_latents_with_fewer_parts(self, coder):
        pairs = [latents(coder, 4, 4, seed) for seed in range(3)]
        y, z = (torch.cat(tensors) for tensors in zip(*pairs, strict=True))
        qualities, prefixes = torch.tensor([50.0] * 3), [b""] * 3
        parts = coder.encode_batch(y, z, qualities, prefixes).parts()
        cut = [parts[0], parts[1][:1], parts[2]]
        found = coder.decode_batch(cut, (4, 4), qualities, prefixes)
        for number in range(3):
            alone = coder.decode_parts(cut[number], (4, 4), qualities[:1])
            assert torch.equal(found[number : number + 1], alone)

    def test_one_is_damaged(self, coder):
        pairs = [latents(coder, 2, 2, seed) for seed in range(2)]
        y, z = (torch.cat(tensors) for tensors in zip(*pairs, strict=True))
        qualities = torch.tensor([50.0, 50.0])
        parts = coder.encode_batch(y, z, qualities, [b"a", b"b"]).parts()
        for latent, prefixes in ((parts, [b"a", b"c"]), (parts[::-1], [b"a", b"b"])):
            with pytest.raises(CorruptStream):
                coder.decode_batch(latent, (2, 2), qualities, prefixes)


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

    def test_symbols_beyond_the_limit(self, coder):
        """An encoder that does not limit its symbols writes what no decoder takes."""
        seen = []
        coder.encode(*latents(coder, 1, 1, 6), quality(400), seen.append)
        for value in (SYMBOL_LIMIT + 1, -SYMBOL_LIMIT - 1):
            encoder = SymbolEncoder()
            seen[0].symbols[-1] = value
            for group in seen:
                encoder.put(group.symbols, group.indexes, coder.tables)
            with pytest.raises(CorruptStream, match=str(SYMBOL_LIMIT)):
                coder.decode(encoder.finish(), 0, 1, 1, quality(400))
