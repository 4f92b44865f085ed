"""The image codec: what goes in comes out, targets are met, wrong arguments and wrong bytes are named."""

import math
import time
import tracemalloc

import numpy as np
import pytest
import torch

from latentpress.codecs.bitstream import (
    CodecId,
    CorruptStream,
    LimitExceeded,
    Limits,
    SectionType,
    StreamError,
    UnknownModel,
    crc32c,
    read_container,
    write_container,
)
from latentpress.codecs.image import ImageCodec
from latentpress.codecs.image_payload import ImageHeader, read_image_header
from latentpress.codecs.rate_control import quality_to_tenths
from latentpress.codecs.registry import inspect, read_metadata
from latentpress.codecs.weights import WeightFile

SIZES = [(1, 1), (1, 2), (1, 70), (70, 1), (15, 17), (16, 16), (17, 15), (33, 64), (65, 63), (100, 131)]


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    error = float((a.double() - b.double()).square().mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


def parameters(data: bytes):
    return dict(inspect(data).parameters)


class TestPictures:
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize(("height", "width"), SIZES)
    def test_size(self, tiny_codec, picture, height, width, channels):
        x = picture(height, width, channels)
        data = tiny_codec.compress(x, quality=80)
        y = tiny_codec.decompress(data)
        assert (y.dtype, y.shape) == (torch.uint8, x.shape)
        assert parameters(data) == {
            "width": width,
            "height": height,
            "channels": channels,
            "quality": 80.0,
            "bits": 8,
        }
        assert psnr(x, y) > 20

    def test_input_is_left_alone(self, tiny_codec, picture):
        for x in (picture(), picture().float() / 255, torch.zeros(1, 5, 5)):
            before = x.clone()
            tiny_codec.compress(x)
            assert torch.equal(x, before)

    @pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_floating_point(self, tiny_codec, picture, kind):
        x = (picture().double() / 255).to(kind)
        y = tiny_codec.decompress(tiny_codec.compress(x, quality=90))
        assert y.dtype == torch.uint8
        assert psnr(x.double() * 255, y) > 25

    def test_uint8_is_float_over_255(self, tiny_codec, picture):
        x = picture()
        assert tiny_codec.compress(x) == tiny_codec.compress(x.float() / 255)

    def test_any_memory_layout(self, tiny_codec, picture):
        x = picture(48, 32)
        strided = x.permute(1, 2, 0).contiguous().permute(2, 0, 1)
        assert not strided.is_contiguous()
        assert tiny_codec.compress(strided) == tiny_codec.compress(x)
        assert tiny_codec.compress(x[:1].expand(3, -1, -1)) == tiny_codec.compress(x[:1].repeat(3, 1, 1))

    def test_gradients_are_not_kept(self, tiny_codec, picture):
        x = (picture().float() / 255).requires_grad_()
        assert tiny_codec.compress(x, target_psnr=20) == tiny_codec.compress(x.detach(), target_psnr=20)

    @pytest.mark.parametrize("value", [0, 255])
    def test_flat(self, tiny_codec, value):
        x = torch.full((3, 40, 40), value, dtype=torch.uint8)
        assert psnr(tiny_codec.decompress(tiny_codec.compress(x, quality=100)), x) > 30

    def test_noise(self, tiny_codec):
        x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 50, 50), dtype=np.uint8))
        for quality in (0, 100):
            assert tiny_codec.decompress(tiny_codec.compress(x, quality=quality)).shape == x.shape


class TestQuality:
    def test_rate_and_distortion(self, tiny_codec, picture):
        x = picture()
        streams = [tiny_codec.compress(x, quality=quality) for quality in (0, 25, 50, 75, 100)]
        sizes = [len(data) for data in streams]
        found = [psnr(x, tiny_codec.decompress(data)) for data in streams]
        assert sizes == sorted(sizes)
        assert sizes[-1] > 3 * sizes[0]
        assert found == sorted(found)
        assert found[-1] > found[0] + 3

    @pytest.mark.parametrize("quality", [0, 0.1, 33.3, 49.9, 50, 99.9, 100, 100.0])
    def test_tenths(self, tiny_codec, picture, quality):
        data = tiny_codec.compress(picture(20, 20), quality=quality)
        assert parameters(data)["quality"] == quality
        tiny_codec.verify(data)

    def test_between_tenths(self, tiny_codec, picture):
        x = picture(20, 20)
        assert tiny_codec.compress(x, quality=12.34) == tiny_codec.compress(x, quality=12.3)
        assert quality_to_tenths(12.36) == 124

    def test_default(self, tiny_codec, picture):
        assert parameters(tiny_codec.compress(picture()))["quality"] == 50.0

    @pytest.mark.parametrize("quality", [-0.1, 100.1, math.nan, math.inf, -math.inf])
    def test_out_of_range(self, tiny_codec, picture, quality):
        with pytest.raises(ValueError, match="quality must be within 0 and 100"):
            tiny_codec.compress(picture(), quality=quality)


class TestTargets:
    @pytest.mark.parametrize("target", [300, 330, 400, 511, 700, 1000, 1400])
    @pytest.mark.parametrize("metadata", [None, {"icc": b"profile" * 5}])
    def test_bytes(self, tiny_codec, picture, target, metadata):
        """Never more than asked for, and one step of quality more would be."""
        x = picture()
        target += 41 if metadata else 0
        data = tiny_codec.compress(x, target_bytes=target, metadata=metadata)
        assert len(data) <= target
        better = parameters(data)["quality"] + 0.1
        assert len(tiny_codec.compress(x, quality=better, metadata=metadata)) > target

    def test_bytes_that_are_met_exactly(self, tiny_codec, picture):
        x = picture()
        for quality in (0, 20, 70):
            size = len(tiny_codec.compress(x, quality=quality))
            assert len(tiny_codec.compress(x, target_bytes=size)) <= size
            assert parameters(tiny_codec.compress(x, target_bytes=size))["quality"] >= quality

    def test_small_payloads(self, tiny_codec, picture):
        """Around 128 bytes of payload, where its length takes a byte more."""
        x = picture(17, 20)
        for target in range(142, 155):
            data = tiny_codec.compress(x, target_bytes=target)
            assert target - 8 < len(data) <= target
            better = parameters(data)["quality"] + 0.1
            assert len(tiny_codec.compress(x, quality=better)) > target

    def test_more_bytes_than_needed(self, tiny_codec, picture):
        for options in ({"target_bytes": 10**6}, {"target_bytes": 10**30}, {"target_bpp": 1e300}):
            assert parameters(tiny_codec.compress(picture(), **options))["quality"] == 100.0

    @pytest.mark.parametrize("target", [1.2, 2.0, 3.5])
    def test_bpp(self, tiny_codec, picture, target):
        x = picture(40, 57)
        data = tiny_codec.compress(x, target_bpp=target)
        assert len(data) * 8 / (40 * 57) <= target
        better = parameters(data)["quality"] + 0.1
        assert len(tiny_codec.compress(x, quality=better)) * 8 / (40 * 57) > target

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("target", [1, 24.5, 26, 28.25])
    def test_psnr(self, tiny_codec, picture, target, channels):
        x = picture(40, 57, channels)
        data = tiny_codec.compress(x, target_psnr=target)
        assert psnr(x, tiny_codec.decompress(data)) >= target
        less = parameters(data)["quality"] - 0.1
        if less >= 0:
            assert psnr(x, tiny_codec.decompress(tiny_codec.compress(x, quality=less))) < target

    @pytest.mark.parametrize("option", ["target_bytes", "target_bpp"])
    def test_too_few_bytes(self, tiny_codec, picture, option):
        x = picture()
        smallest = len(tiny_codec.compress(x, quality=0, metadata={"xmp": b"x" * 200}))
        value = smallest - 1 if option == "target_bytes" else (smallest - 0.5) * 8 / (40 * 56)
        with pytest.raises(ValueError, match=f"cannot be met: .* {smallest}$"):
            tiny_codec.compress(x, metadata={"xmp": b"x" * 200}, **{option: value})

    @pytest.mark.parametrize("target", [60, 1e4])
    def test_too_good(self, tiny_codec, picture, target):
        x = picture()
        best = psnr(x, tiny_codec.decompress(tiny_codec.compress(x, quality=100)))
        with pytest.raises(ValueError, match=f"cannot be met: quality 100 reaches {best:.2f} dB"):
            tiny_codec.compress(x, target_psnr=target)

    @pytest.mark.parametrize("option", ["target_bytes", "target_bpp", "target_psnr"])
    @pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, -math.inf])
    def test_no_target_at_all(self, tiny_codec, picture, option, value):
        with pytest.raises(ValueError, match=f"{option} must be positive and finite, got {value}"):
            tiny_codec.compress(picture(), **{option: value})

    def test_two_targets(self, tiny_codec, picture):
        options = {"quality": 50, "target_bytes": 500, "target_bpp": 1.0, "target_psnr": 25.0}
        names = list(options)
        for first in names:
            for second in names[names.index(first) + 1 :]:
                with pytest.raises(TypeError, match=f"not {first} and {second}"):
                    tiny_codec.compress(picture(), **{k: options[k] for k in (first, second)})

    def test_zero_is_a_value(self, tiny_codec, picture):
        with pytest.raises(TypeError):
            tiny_codec.compress(picture(), quality=0, target_bytes=500)


class TestWrongArguments:
    @pytest.mark.parametrize("x", [None, 3, [[1.0]], "picture"])
    def test_no_tensor(self, tiny_codec, x):
        with pytest.raises(TypeError, match=type(x).__name__):
            tiny_codec.compress(x)

    @pytest.mark.parametrize("shape", [(4, 5), (1, 3, 4, 5), (5, 4, 5), (0, 4, 5), (3, 0, 5), (3, 4, 0)])
    def test_shape(self, tiny_codec, shape):
        for kind in (torch.uint8, torch.float32):
            with pytest.raises(ValueError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
                tiny_codec.compress(torch.zeros(shape, dtype=kind))

    @pytest.mark.parametrize("kind", [torch.bool, torch.int8, torch.int32, torch.int64, torch.complex64])
    def test_type(self, tiny_codec, kind):
        with pytest.raises(TypeError, match=rf"\(3, 4, 5\).*{kind}"):
            tiny_codec.compress(torch.zeros((3, 4, 5), dtype=kind))

    @pytest.mark.parametrize("value", [-0.001, 1.001, 255.0, math.nan, math.inf, -math.inf])
    def test_range(self, tiny_codec, value):
        x = torch.full((3, 4, 5), 0.5)
        x[1, 2, 3] = value
        with pytest.raises(ValueError, match=r"\(3, 4, 5\) must be finite and within \[0, 1\]"):
            tiny_codec.compress(x)

    def test_metadata(self, tiny_codec, picture):
        with pytest.raises(ValueError, match="not comment"):
            tiny_codec.compress(picture(), metadata={"comment": b""})
        with pytest.raises(TypeError, match="bytes"):
            tiny_codec.compress(picture(), metadata={"icc": "profile"})

    def test_unknown_option(self, tiny_codec, picture):
        with pytest.raises(TypeError, match="speed"):
            tiny_codec.compress(picture(), speed=3)


class TestProgress:
    @pytest.mark.parametrize("options", [{}, {"target_bytes": 600}, {"target_psnr": 26}])
    def test_compress(self, tiny_codec, picture, options):
        seen = []
        data = tiny_codec.compress(picture(), progress=lambda *report: seen.append(report), **options)
        self.check(seen)
        assert data == tiny_codec.compress(picture(), **options)

    def test_decompress(self, tiny_codec, picture):
        seen = []
        tiny_codec.decompress(tiny_codec.compress(picture()), progress=lambda *report: seen.append(report))
        self.check(seen)

    @staticmethod
    def check(seen):
        fractions = [fraction for fraction, _ in seen]
        assert fractions == sorted(fractions)
        assert fractions[0] == 0
        assert fractions[-1] == 1
        assert all(isinstance(stage, str) and stage for _, stage in seen)


class TestMetadata:
    BLOCKS = ({}, {"icc": b"a" * 300}, {"xmp": b"", "exif": b"\x00\xff", "icc": bytes(70000)})

    @pytest.mark.parametrize("blocks", BLOCKS)
    def test_round_trip(self, tiny_codec, picture, blocks):
        data = tiny_codec.compress(picture(), metadata=blocks)
        assert read_metadata(data) == blocks
        plain = tiny_codec.compress(picture())
        assert torch.equal(tiny_codec.decompress(data), tiny_codec.decompress(plain))
        assert read_container(data).payload == read_container(plain).payload

    @pytest.mark.parametrize("kind", [bytearray, memoryview])
    def test_bytes_likes(self, tiny_codec, picture, kind):
        assert read_metadata(tiny_codec.compress(picture(), metadata={"icc": kind(b"abc")})) == {
            "icc": b"abc"
        }


class TestExactness:
    def test_decoding_again_gives_the_same_picture(self, tiny_codec, picture):
        data = tiny_codec.compress(picture(65, 47))
        assert torch.equal(tiny_codec.decompress(data), tiny_codec.decompress(data))

    def test_encoding_again_gives_the_same_stream(self, tiny_codec, tiny_weights, picture):
        x = picture(65, 47)
        data = tiny_codec.compress(x)
        assert tiny_codec.compress(x) == data
        assert ImageCodec(tiny_weights).compress(x) == data

    @pytest.mark.parametrize(("encoder", "decoder"), [(1, 2), (2, 1)])
    def test_threads(self, tiny_codec, picture, encoder, decoder):
        """The transforms may round differently with other threads; the symbols of a stream may not."""
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(encoder)
            data = tiny_codec.compress(picture(150, 140), quality=90)
            tiny_codec.verify(data)
            _, here = tiny_codec._decode_latent(data, Limits())
            first = tiny_codec.decompress(data)
            torch.set_num_threads(decoder)
            tiny_codec.verify(data)
            _, there = tiny_codec._decode_latent(data, Limits())
            second = tiny_codec.decompress(data)
        finally:
            torch.set_num_threads(before)
        assert torch.equal(here, there)
        assert int((first.int() - second.int()).abs().max()) <= 1

    def test_under_autocast(self, tiny_codec, picture):
        with torch.autocast("cpu", torch.bfloat16):
            data = tiny_codec.compress(picture(), quality=70)
        tiny_codec.verify(data)
        with torch.autocast("cpu", torch.bfloat16):
            tiny_codec.verify(data)

    @pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
    def test_default_type(self, tiny_codec, picture, kind):
        """Somebody else's default type does not change what 99.7 is."""
        data = tiny_codec.compress(picture(), quality=99.7)
        torch.set_default_dtype(kind)
        try:
            tiny_codec.verify(data)
        finally:
            torch.set_default_dtype(torch.float32)


class TestHostileBytes:
    """Everything wrong with the bytes is a StreamError, and nothing is decoded to garbage in silence."""

    # A header can ask for anything; without a limit the largest sizes would only cost time here.
    LIMITS = Limits(max_pixels=2**13)

    @pytest.fixture(scope="class")
    @classmethod
    def stream(cls, tiny_codec, picture):
        return tiny_codec.compress(picture(33, 21), quality=40, metadata={"exif": b"Exif"})

    def test_another_model(self, tiny_codec, tiny_weights, stream):
        name = "context.heads.0.bias"
        changed = {**tiny_weights.tensors, name: tiny_weights.tensors[name] + 1}
        other = ImageCodec(WeightFile("image", tiny_weights.config, changed))
        for read in (other.decompress, other.verify):
            with pytest.raises(UnknownModel, match=tiny_codec.fingerprint.hex()) as caught:
                read(stream)
            assert other.fingerprint.hex() in str(caught.value)

    @pytest.mark.parametrize("codec_id", [CodecId.INDEX, CodecId.FIELD, CodecId.SHAPE])
    def test_another_codec(self, tiny_codec, stream, codec_id):
        foreign = write_container(codec_id, tiny_codec.fingerprint, read_container(stream).sections)
        with pytest.raises(CorruptStream, match=codec_id.name.lower()):
            tiny_codec.decompress(foreign)

    @pytest.mark.parametrize(("height", "width"), [(60000, 60000), (2**63, 1), (1, 2**29 + 1)])
    def test_announced_sizes_are_checked_first(self, tiny_codec, stream, height, width, monkeypatch):
        """A valid container, a valid header, and a picture that nobody has memory for."""

        def never(*_):
            raise AssertionError("the coder was asked to decode this")

        payload = ImageHeader(height, width, 3, 500, 0).to_bytes() + bytes(8)
        bomb = write_container(CodecId.IMAGE, tiny_codec.fingerprint, [(SectionType.PAYLOAD, payload)])
        monkeypatch.setattr(tiny_codec._coder, "decode", never)
        tracemalloc.start()
        start = time.perf_counter()
        for read in (tiny_codec.decompress, tiny_codec.verify, inspect):
            with pytest.raises(LimitExceeded, match=str(height * width)):
                read(bomb)
        took = time.perf_counter() - start
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**20
        assert took < 10

    def test_limits_are_the_callers(self, tiny_codec, stream):
        for read in (tiny_codec.decompress, tiny_codec.verify):
            read(stream, limits=Limits(max_pixels=33 * 21))
            with pytest.raises(LimitExceeded, match="max_pixels"):
                read(stream, limits=Limits(max_pixels=33 * 21 - 1))
            with pytest.raises(LimitExceeded, match="max_section_bytes"):
                read(stream, limits=Limits(max_section_bytes=10))

    def test_every_truncation(self, tiny_codec, stream):
        for end in range(len(stream)):
            with pytest.raises(StreamError):
                tiny_codec.decompress(stream[:end])

    def test_mutations(self, tiny_codec, stream):
        random = np.random.default_rng(1)
        for _ in range(2000):
            damaged = mutated(stream, random)
            if damaged != stream:
                with pytest.raises(StreamError):
                    tiny_codec.decompress(damaged, limits=self.LIMITS)

    def test_mutations_of_the_payload_with_right_checksums(self, tiny_codec, stream):
        """What gets past the container's checksums is caught by the codec's own, and by nothing else.

        The symbols are safe: for one size and quality there is exactly one sequence of words for them, and
        their checksum is in the stream. Not so the header's other fields, where somebody who computes the
        container's checksums anew can still change what the same symbols mean: rows or columns that are
        cropped off the last 16, grey for colour, or a quality with the same tables. Such a picture was
        forged, not damaged: against forgery a checksum does not help, it takes a signature around the file.
        """
        container = read_container(stream)
        whole = container.payload
        header, offset = read_image_header(whole, Limits())
        _, symbols = tiny_codec._decode_latent(stream, Limits())
        random = np.random.default_rng(2)
        passed = set()
        # Half of them in the few bytes of the header, which a picture's mutations would seldom meet.
        for number in range(2000):
            head, tail = (mutated(whole[:offset], random), whole[offset:]) if number % 2 else (whole, b"")
            payload = head + tail if number % 2 else mutated(whole, random)
            data = write_container(
                CodecId.IMAGE,
                container.fingerprint,
                [*container.sections[:-1], (SectionType.PAYLOAD, payload)],
            )
            try:
                decoded = tiny_codec.decompress(data, limits=self.LIMITS)
            except StreamError:
                continue
            found, start = read_image_header(payload, Limits())
            assert payload[start:] == whole[offset:]
            assert found.checksum == header.checksum
            assert (-(-found.height // 16), -(-found.width // 16)) == (3, 2)
            assert decoded.shape == (found.channels, found.height, found.width)
            if found.quality_tenths == header.quality_tenths:
                assert torch.equal(tiny_codec._decode_latent(data, Limits())[1], symbols)
            passed.add((found.height, found.width, found.channels, found.quality_tenths))
        assert len(passed) > 1

    def test_bits_of_the_coded_symbols(self, tiny_codec, stream):
        container = read_container(stream)
        payload = bytearray(container.payload)
        _, offset = read_image_header(container.payload, Limits())
        for bit in range(8 * (offset - 4), 8 * len(payload), 5):
            payload[bit // 8] ^= 1 << bit % 8
            data = write_container(CodecId.IMAGE, container.fingerprint, [(SectionType.PAYLOAD, payload)])
            with pytest.raises(StreamError):
                tiny_codec.verify(data, limits=self.LIMITS)
            payload[bit // 8] ^= 1 << bit % 8

    def test_symbols_of_another_picture(self, tiny_codec, picture, stream):
        """Words that some encoder did write, under a header that is not theirs."""
        container = read_container(stream)
        _, offset = read_image_header(container.payload, Limits())
        other = read_container(tiny_codec.compress(picture(33, 21, seed=9), quality=40)).payload
        _, start = read_image_header(other, Limits())
        payload = container.payload[:offset] + other[start:]
        data = write_container(CodecId.IMAGE, container.fingerprint, [(SectionType.PAYLOAD, payload)])
        with pytest.raises(CorruptStream, match="checksum"):
            tiny_codec.verify(data)

    def test_metadata_is_not_trusted_either(self, tiny_codec, stream):
        container = read_container(stream)
        header = stream[:13]
        section = bytes([3, 4]) + b"Exif"
        assert stream[13:23] == section + crc32c(header, section).to_bytes(4, "little")
        damaged = bytearray(stream)
        damaged[16] ^= 1
        for read in (tiny_codec.verify, read_metadata, inspect):
            with pytest.raises(CorruptStream, match="section 3"):
                read(bytes(damaged))
        assert container.get(SectionType.EXIF) == b"Exif"


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """One to four changes: bytes overwritten, bits flipped, pieces put in, left out or copied elsewhere."""
    out = bytearray(data)
    for _ in range(random.integers(1, 5)):
        at = int(random.integers(0, len(out) + 1))
        length = int(random.integers(1, 9))
        kind = random.integers(0, 5)
        if kind == 0:
            out[at : at + length] = random.bytes(min(length, max(len(out) - at, 0)))
        elif kind == 1 and at < len(out):
            out[at] ^= 1 << int(random.integers(0, 8))
        elif kind == 2:
            out[at:at] = random.bytes(length)
        elif kind == 3:
            del out[at : at + length]
        else:
            start = int(random.integers(0, len(out) + 1))
            out[at : at + length] = out[start : start + length]
    return bytes(out)
