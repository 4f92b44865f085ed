"""Alpha, grey with alpha and 16 bits: what picture codecs take, carry and give back."""

import math

import numpy as np
import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st

from latentpress.codecs import testing
from latentpress.codecs.alpha_coder import encode_alpha
from latentpress.codecs.bitstream import (
    CorruptStream,
    LimitExceeded,
    Limits,
    SectionType,
    StreamError,
    read_container,
    write_container,
)
from latentpress.codecs.picture_input import picture_input
from latentpress.codecs.picture_output import read_picture_sections
from latentpress.codecs.registry import inspect, read_metadata
from latentpress.codecs.transparent_fill import fill_transparent

HEIGHT, WIDTH = 45, 70


def soft_disc(height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    """Alpha: uint8, (height, width), with transparent, opaque and other pixels."""
    y, x = np.mgrid[0:height, 0:width]
    distance = np.hypot(y - height / 2, x - width / 2) - 15
    return torch.from_numpy((np.clip(0.5 - distance / 6, 0, 1) * 255).round().astype(np.uint8))


def deep(x: torch.Tensor) -> torch.Tensor:
    """A picture of 8 bits as one of 16."""
    return (x.to(torch.int32) * 257).to(torch.uint16)


@pytest.fixture(scope="module", params=["image", "image-max", "index"])
def codec(request, tiny_codec, tiny_max_codec, tiny_index_codec):
    return {"image": tiny_codec, "image-max": tiny_max_codec, "index": tiny_index_codec}[request.param]


@pytest.fixture(scope="module")
def layers(picture):
    """Makes a picture with alpha: uint8, (channels + 1, HEIGHT, WIDTH)."""

    def make(channels: int) -> torch.Tensor:
        return torch.cat([picture(HEIGHT, WIDTH, channels), soft_disc()[None]])

    return make


@pytest.fixture(scope="module")
def stream(tiny_codec, layers) -> bytes:
    return tiny_codec.compress(deep(layers(3)), metadata={"exif": b"II*\0"})


def with_sections(data: bytes, sections: list[tuple[int, bytes]]) -> bytes:
    """A stream with other sections before its payload."""
    container = read_container(data)
    payload = (SectionType.PAYLOAD, container.payload)
    return write_container(container.codec_id, container.fingerprint, [*sections, payload])


class TestAlpha:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_comes_back(self, codec, layers, channels):
        x = layers(channels)
        data = codec.compress(x)
        y = codec.decompress(data)
        assert (y.dtype, y.shape) == (torch.uint8, x.shape)
        assert int((y[-1].int() - x[-1].int()).abs().max()) <= 2
        for end in (0, 255):
            assert torch.equal(y[-1] == end, x[-1] == end)
        assert inspect(data).parameters["channels"] == channels + 1
        assert [section.name for section in inspect(data).sections] == ["alpha", "payload"]
        codec.verify(data)

    def test_exactly_if_asked(self, codec, layers):
        x = layers(3)
        data = codec.compress(x, alpha_max_error=0)
        assert torch.equal(codec.decompress(data)[3], x[3])
        assert len(data) > len(codec.compress(x))

    def test_colour_is_coded_as_without(self, codec, layers):
        """As long as all of it can be seen."""
        x = layers(3)
        x[3] = x[3].clamp(min=1)
        plain = codec.compress(x[:3])
        assert read_container(codec.compress(x)).payload == read_container(plain).payload
        assert torch.equal(codec.decompress(codec.compress(x))[:3], codec.decompress(plain))

    @pytest.mark.parametrize("value", [0, 77, 255])
    def test_the_same_everywhere_costs_nine_bytes(self, codec, layers, value):
        x = layers(3)
        x[3] = value
        data = codec.compress(x)
        # What is transparent all over is grey.
        colour = x[:3] if value else torch.full_like(x[:3], 128)
        assert len(data) <= len(codec.compress(colour)) + 9
        assert int(codec.decompress(data)[3].float().std()) == 0
        assert int(codec.decompress(data)[3, 0, 0]) == value

    def test_colour_that_cannot_be_seen_costs_nothing(self, codec, layers):
        x = layers(3)
        hidden = x[3] == 0
        noisy = x.clone()
        noisy[:3, hidden] = torch.randint(0, 256, (3, int(hidden.sum())), dtype=torch.uint8)
        assert codec.compress(noisy) == codec.compress(x)

    @pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16])
    def test_floating_point(self, codec, layers, kind):
        x = layers(1)
        y = codec.decompress(codec.compress(x.to(kind) / 255, alpha_max_error=0))
        assert (y.dtype, y.shape) == (torch.uint8, x.shape)
        assert torch.equal(y[1], x[1])

    def test_wrong_errors(self, codec, layers):
        for wrong in (-0.1, 0.5, math.nan):
            with pytest.raises(ValueError, match="alpha_max_error"):
                codec.compress(layers(3), alpha_max_error=wrong)

    def test_in_batches(self, codec, layers, picture):
        items = [layers(3), picture(20, 30), layers(1)]
        restored = codec.decompress_batch(codec.compress_batch(items))
        assert [y.shape[0] for y in restored] == [4, 3, 2]


class TestTargets:
    def test_bytes_count_the_alpha(self, tiny_codec, layers):
        x = layers(3)
        low, high = (len(tiny_codec.compress(x, quality=quality)) for quality in (0, 100))
        target = (low + high) // 2
        assert low < len(tiny_codec.compress(x, target_bytes=target)) <= target

    def test_psnr_is_that_of_what_can_be_seen(self, tiny_codec, layers):
        x = layers(3)
        seen = x[3] > 0
        best = tiny_codec.decompress(tiny_codec.compress(x, quality=100))
        worst = tiny_codec.decompress(tiny_codec.compress(x, quality=0))

        def psnr(y: torch.Tensor) -> float:
            error = (y[:3].double() - x[:3].double())[:, seen].square().mean()
            return 10 * math.log10(255**2 / float(error))

        target = (psnr(best) + psnr(worst)) / 2
        found = psnr(tiny_codec.decompress(tiny_codec.compress(x, target_psnr=target)))
        assert target <= found < target + 0.5

    def test_psnr_of_nothing(self, tiny_codec, layers):
        x = layers(3)
        x[3] = 0
        tiny_codec.verify(tiny_codec.compress(x, target_psnr=60.0))

    def test_effort(self, tiny_codec, layers):
        x = layers(3)
        y = tiny_codec.decompress(tiny_codec.compress(x, quality=60, effort=1))
        assert y.shape == x.shape


class TestDepth:
    def test_comes_back(self, codec, picture):
        x = deep(picture(HEIGHT, WIDTH))
        data = codec.compress(x)
        y = codec.decompress(data)
        assert (y.dtype, y.shape) == (torch.uint16, x.shape)
        assert inspect(data).parameters["bits"] == 16
        eight = codec.decompress(codec.compress(picture(HEIGHT, WIDTH)))
        assert int((y.int() - eight.int() * 257).abs().max()) <= 129  # half a step of 8 bits

    def test_has_values_between_those_of_8_bits(self, tiny_codec):
        ramp = torch.linspace(0, 65535, 4096).reshape(1, 64, 64).to(torch.int32).to(torch.uint16)
        y = tiny_codec.decompress(tiny_codec.compress(ramp, quality=100))
        assert len(y.int().unique()) > 1000

    def test_with_alpha(self, codec, layers):
        x = deep(layers(3))
        y = codec.decompress(codec.compress(x))
        assert (y.dtype, y.shape) == (torch.uint16, x.shape)
        assert int((y[3].int() - x[3].int()).abs().max()) <= 2 * 257
        assert torch.equal(codec.decompress(codec.compress(x, alpha_max_error=0))[3], x[3])

    def test_without_its_section_a_picture_has_8_bits(self, codec, layers):
        """It is ancillary: who does not know it still sees the picture."""
        data = codec.compress(deep(layers(3)))
        alpha = read_container(data).get(SectionType.ALPHA)
        y = codec.decompress(with_sections(data, [(SectionType.ALPHA, alpha)]))
        assert y.dtype == torch.uint8
        assert int((y.int() * 257 - codec.decompress(data).int()).abs().max()) <= 129

    def test_alpha_of_8_bits_beside_colour_of_16(self, codec, picture):
        data = codec.compress(deep(picture(HEIGHT, WIDTH)))
        alpha = (SectionType.ALPHA, encode_alpha(soft_disc().numpy()))
        y = codec.decompress(with_sections(data, [(SectionType.DEPTH, b"\x10"), alpha]))
        assert torch.equal(y[3].int(), soft_disc().int() * 257)

    def test_psnr(self, tiny_codec, picture):
        x = deep(picture())
        y = tiny_codec.decompress(tiny_codec.compress(x, target_psnr=27.0))
        error = float((y.double() - x.double()).square().mean())
        assert 10 * math.log10(65535**2 / error) >= 27.0


class TestArrays:
    @pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
    def test_same_as_tensors(self, codec, layers, kind):
        x = layers(3)
        x = deep(x) if kind is np.uint16 else x.float() / 255 if kind is np.float32 else x
        assert codec.compress(x.numpy()) == codec.compress(x)

    def test_views_of_any_kind(self, codec, layers):
        array = layers(3).numpy()
        frozen = array.copy()
        frozen.flags.writeable = False
        swapped = deep(layers(3)).numpy().astype(">u2")
        assert codec.compress(frozen) == codec.compress(array)
        assert codec.compress(swapped) == codec.compress(deep(layers(3)))
        assert codec.compress(array[:, ::-1]) == codec.compress(array[:, ::-1].copy())

    @pytest.mark.parametrize("kind", [np.int16, np.uint32, np.complex64, bool])
    def test_other_types(self, codec, kind):
        with pytest.raises(TypeError, match="expected uint8"):
            codec.compress(np.zeros((3, 4, 4), kind))

    def test_input_is_not_changed(self, tiny_codec, layers):
        x = layers(3)
        before = x.clone()
        tiny_codec.compress(x)
        tiny_codec.compress(x.numpy())
        assert torch.equal(x, before)


class TestWrongSections:
    def test_alpha(self, codec, layers):
        data = codec.compress(layers(3))
        for alpha in (b"", b"\0", b"\x09\x00", b"\x02\xff\x01\x00"):
            wrong = with_sections(data, [(SectionType.ALPHA, alpha)])
            for read in (codec.decompress, codec.verify):
                with pytest.raises(StreamError):
                    read(wrong)

    def test_alpha_of_another_picture(self, codec, layers):
        data = codec.compress(layers(3))
        other = encode_alpha(soft_disc(HEIGHT, WIDTH + 1).numpy())
        for read in (codec.decompress, codec.verify):
            with pytest.raises(StreamError):
                read(with_sections(data, [(SectionType.ALPHA, other)]))

    @pytest.mark.parametrize("depth", [b"", b"\x08", b"\x10\x10"])
    def test_depth(self, codec, layers, depth):
        wrong = with_sections(codec.compress(layers(3)), [(SectionType.DEPTH, depth)])
        for read in (codec.decompress, codec.verify, inspect):
            with pytest.raises(CorruptStream, match="depth"):
                read(wrong)

    def test_limits_come_before_the_alpha(self, codec, layers):
        data = codec.compress(layers(3))
        with pytest.raises(LimitExceeded):
            codec.decompress(data, limits=Limits(max_pixels=HEIGHT * WIDTH - 1))


@pytest.mark.slow
class TestMutations:
    """A stream with alpha, depth and metadata, changed at random two thousand times."""

    LIMITS = Limits(max_pixels=2**13)

    @settings(max_examples=2000)
    @given(draws=st.data())
    def test_none_gets_past_the_checksums(self, tiny_codec, stream, draws):
        damaged = draws.draw(testing.mutations(stream))
        if damaged != stream:
            with pytest.raises(StreamError):
                tiny_codec.decompress(damaged, limits=self.LIMITS)

    @settings(max_examples=2000)
    @given(draws=st.data())
    def test_of_the_alpha_with_right_checksums(self, tiny_codec, stream, draws):
        """Nothing else than a stream error, or alpha of the right size and type."""
        alpha = read_container(stream).get(SectionType.ALPHA)
        assert alpha is not None
        changed = draws.draw(testing.mutations(alpha) | testing.truncations(alpha))
        sections = [(SectionType.DEPTH, b"\x10"), (SectionType.ALPHA, changed)]
        try:
            found = read_picture_sections(with_sections(stream, sections), self.LIMITS)
            values = found.alpha_samples(HEIGHT, WIDTH, self.LIMITS)
        except StreamError:
            event("refused")
            return
        event("decoded")
        assert (values.dtype, values.shape) == (np.uint16, (HEIGHT, WIDTH))

    @settings(max_examples=300)
    @given(draws=st.data())
    def test_of_everything_with_right_checksums(self, tiny_codec, stream, draws):
        damaged = testing.with_right_checksums(draws.draw(testing.mutations(stream)))
        testing.check_decoding(lambda data: tiny_codec.decompress(data, limits=self.LIMITS), damaged)


def test_a_stream_that_was_cut_keeps_its_alpha(tiny_max_codec, layers):
    data = tiny_max_codec.compress(layers(3), quality=80)
    whole = tiny_max_codec.decompress(data)
    cut = tiny_max_codec.decompress(data[: tiny_max_codec.cut_points(data)[0]], partial=True)
    assert torch.equal(cut[3], whole[3])
    assert cut.shape == whole.shape


def test_repair_keeps_what_alpha_is_intact(tiny_index_codec, layers):
    x = layers(3)
    data = bytearray(tiny_index_codec.compress(x, packets=4, quality=90))
    whole = tiny_index_codec.decompress(bytes(data))
    data[-30] ^= 1
    picture, report = tiny_index_codec.decompress(bytes(data), repair=True)
    assert report.lost_packets
    assert torch.equal(picture[3], whole[3])
    data[20] ^= 1  # in the alpha
    picture, _ = tiny_index_codec.decompress(bytes(data), repair=True)
    assert picture.shape[0] == 3


def test_metadata_and_alpha_together(codec, layers):
    metadata = {"icc": b"profile", "exif": b"II*\0", "xmp": b"<x/>"}
    data = codec.compress(layers(1), metadata=metadata)
    assert read_metadata(data) == metadata
    assert codec.decompress(data).shape == (2, HEIGHT, WIDTH)


class TestFill:
    def test_what_can_be_seen_stays(self, picture):
        colour = picture(HEIGHT, WIDTH).float() / 255
        visible = soft_disc() > 0
        filled = fill_transparent(colour, visible)
        assert torch.equal(filled[:, visible], colour[:, visible])
        assert float(filled.min()) >= 0
        assert float(filled.max()) <= 1

    def test_is_smooth(self, picture):
        colour = torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
        visible = soft_disc() > 0
        filled = fill_transparent(colour, visible)
        hidden = ~visible
        pairs = hidden[:, 1:] & hidden[:, :-1]
        steps = (filled[:, :, 1:] - filled[:, :, :-1]).abs()[:, pairs]
        assert float(steps.mean()) < 0.1 * float((colour[:, :, 1:] - colour[:, :, :-1]).abs().mean())

    def test_one_visible_pixel_colours_everything(self):
        colour = torch.zeros(1, 300, 500)
        visible = torch.zeros(300, 500, dtype=torch.bool)
        colour[0, 7, 9] = 0.75
        visible[7, 9] = True
        assert torch.allclose(fill_transparent(colour, visible), torch.full_like(colour, 0.75))

    def test_parts_of_a_checked_picture(self, layers):
        found = picture_input(layers(3))
        assert (found.colour.shape, found.alpha.shape, found.bits) == (
            (3, HEIGHT, WIDTH),
            (HEIGHT, WIDTH),
            8,
        )
        assert found.pixels().dtype == torch.float32
