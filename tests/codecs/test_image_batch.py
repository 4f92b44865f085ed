"""Batches of pictures: what each would be alone, together."""

import threading

import numpy as np
import pytest
import torch

from latentpress.codecs.bitstream import CorruptStream, LimitExceeded, Limits, read_container
from latentpress.codecs.coding_processes import close_shared
from latentpress.codecs.image_transforms import ImageTransforms
from latentpress.codecs.registry import inspect, read_metadata

SIZES = [(40, 56), (33, 20), (40, 56), (1, 1), (40, 56), (33, 20), (40, 56)]


@pytest.fixture(scope="module", autouse=True)
def no_processes_are_left():
    yield
    close_shared()


@pytest.fixture(scope="module")
def pictures(picture):
    return [
        picture(height, width, channels=1 if number == 2 else 3, seed=number)
        for number, (height, width) in enumerate(SIZES)
    ]


@pytest.fixture(params=["four steps", "slices"])
def codec(request):
    return request.getfixturevalue("tiny_codec" if request.param == "four steps" else "tiny_max_codec")


class TestCompress:
    @pytest.mark.parametrize("processes", [0, 2])
    def test_quality(self, codec, pictures, processes):
        alone = [codec.compress(x, quality=70) for x in pictures]
        assert codec.compress_batch(pictures, quality=70, processes=processes) == alone

    @pytest.mark.parametrize(
        "options",
        [{}, {"target_bytes": 600}, {"target_bpp": 3.0}, {"target_psnr": 24.0}],
        ids=lambda options: next(iter(options), "default"),
    )
    def test_targets(self, tiny_codec, picture, options):
        """Searches of all pictures at a time end where each would end alone."""
        pictures = [picture(40, 56, seed=0), picture(40, 56, seed=1), picture(48, 40, seed=2)]
        alone = [tiny_codec.compress(x, **options) for x in pictures]
        assert tiny_codec.compress_batch(pictures, **options) == alone
        if "target_bytes" in options:
            assert len({inspect(data).parameters["quality"] for data in alone}) > 1

    @pytest.mark.parametrize("target", ["target_bytes", "target_psnr"])
    def test_target_that_one_cannot_meet(self, tiny_codec, picture, target):
        flat = torch.full((3, 40, 56), 128, dtype=torch.uint8)
        noise = torch.randint(0, 256, (3, 40, 56), dtype=torch.uint8, generator=torch.Generator())
        other = picture(40, 56) if target == "target_bytes" else noise
        value = len(tiny_codec.compress(other, quality=0)) - 1 if target == "target_bytes" else 22
        with pytest.raises(ValueError, match="cannot be met") as alone:
            tiny_codec.compress(other, **{target: value})
        with pytest.raises(ValueError, match="cannot be met") as caught:
            tiny_codec.compress_batch([flat, other, flat], **{target: value})
        assert str(caught.value) == f"picture 1: {alone.value}"

    def test_efforts_and_tiles(self, tiny_codec, picture):
        pictures = [picture(70, 90), picture(20, 30), picture(70, 90, seed=1)]
        for options in ({"effort": 1}, {"tile_size": 64}):
            alone = [tiny_codec.compress(x, **options) for x in pictures]
            assert tiny_codec.compress_batch(pictures, **options) == alone
            assert len({len(read_container(data).sections) for data in alone}) == (
                2 if "tile_size" in options else 1
            )

    def test_any_pictures(self, tiny_codec, picture):
        """What compress takes: floats, grey, alpha, 16 bits, arrays."""
        x = picture(30, 40)
        alpha = torch.cat([x, (x[:1] > 90).to(torch.uint8) * 200])
        deep = x.numpy().astype(np.uint16) * 257
        pictures = [x, x.float() / 255, x[:1], alpha, deep]
        assert tiny_codec.compress_batch(pictures) == [tiny_codec.compress(one) for one in pictures]

    def test_metadata(self, tiny_codec, picture):
        pictures = [picture(20, 30), picture(20, 30, seed=1)]
        for data in tiny_codec.compress_batch(pictures, metadata={"icc": b"both"}):
            assert read_metadata(data) == {"icc": b"both"}
        each = [{"xmp": b"first"}, None]
        first, second = tiny_codec.compress_batch(pictures, metadata=each)
        assert (read_metadata(first), read_metadata(second)) == ({"xmp": b"first"}, {})
        with pytest.raises(ValueError, match="2 pictures, but metadata for 3"):
            tiny_codec.compress_batch(pictures, metadata=[{}] * 3)

    def test_nothing(self, tiny_codec):
        assert tiny_codec.compress_batch([]) == []
        assert tiny_codec.decompress_batch([]) == []

    def test_wrong_arguments(self, tiny_codec, picture):
        with pytest.raises(TypeError, match="speed"):
            tiny_codec.compress_batch([picture()], speed=3)
        with pytest.raises(ValueError, match="shape"):
            tiny_codec.compress_batch([picture(), torch.zeros(5, 4, 4)])
        with pytest.raises(ValueError, match="negative"):
            tiny_codec.compress_batch([picture()], processes=-1)

    def test_many_batches(self, tiny_codec, picture, monkeypatch):
        """More batches than may wait for coders."""
        monkeypatch.setattr(type(tiny_codec._transforms), "windows_at_once", lambda *_: 1)
        pictures = [picture(20, 20, seed=number) for number in range(9)]
        alone = [tiny_codec.compress(x) for x in pictures]
        assert tiny_codec.compress_batch(iter(pictures)) == alone
        assert len(tiny_codec.decompress_batch(alone, processes=2)) == 9


class TestDecompress:
    @pytest.mark.parametrize("processes", [0, 2])
    def test_the_same_pictures(self, codec, pictures, processes):
        streams = [
            codec.compress(x, quality=10 * number, tile_size=64 if number == 4 else 0)
            for number, x in enumerate(pictures)
        ]
        found = codec.decompress_batch(streams, processes=processes)
        for data, decoded in zip(streams, found, strict=True):
            assert torch.equal(decoded, codec.decompress(data))

    def test_alpha_and_depth(self, tiny_codec, picture):
        x = picture(30, 40)
        pictures = [torch.cat([x, x[:1]]), x.numpy().astype(np.uint16) * 257]
        streams = tiny_codec.compress_batch(pictures)
        found = tiny_codec.decompress_batch(streams)
        assert [(len(one), one.dtype) for one in found] == [(4, torch.uint8), (3, torch.uint16)]
        for data, decoded in zip(streams, found, strict=True):
            assert torch.equal(decoded, tiny_codec.decompress(data))

    @pytest.mark.parametrize("processes", [0, 2])
    def test_one_is_damaged(self, tiny_codec, tiny_weights, picture, processes):
        """Its container is right, so that it is the symbols that are wrong; the next call is as ever."""
        from latentpress.codecs.testing import with_right_checksums

        streams = [tiny_codec.compress(picture(40, 56, seed=seed)) for seed in range(3)]
        damaged = bytearray(streams[1])
        damaged[-12] ^= 1
        with pytest.raises(CorruptStream):
            tiny_codec.decompress_batch(
                [streams[0], with_right_checksums(bytes(damaged)), streams[2]], processes=processes
            )
        assert len(tiny_codec.decompress_batch(streams, processes=processes)) == 3

    @pytest.mark.parametrize("enabled", [False, True])
    def test_lanes_take_autocast_over(self, tiny_codec, picture, monkeypatch, enabled):
        """Autocast is of a thread, and lanes are other threads."""
        streams = [tiny_codec.compress(picture(40, 56, seed=seed)) for seed in range(2)]
        synthesise, seen = ImageTransforms.synthesise, []

        def watched(*arguments):
            seen.append((torch.is_autocast_enabled("cpu"), threading.current_thread()))
            return synthesise(*arguments)

        monkeypatch.setattr(ImageTransforms, "synthesise", watched)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            tiny_codec.decompress_batch(streams, processes=2)
        assert [on for on, _ in seen] == [enabled] * 2
        assert threading.current_thread() not in {thread for _, thread in seen}

    def test_limits(self, tiny_codec, picture):
        streams = [tiny_codec.compress(picture(height, 30)) for height in (20, 21)]
        with pytest.raises(LimitExceeded):
            tiny_codec.decompress_batch(streams, limits=Limits(max_pixels=20 * 30))


def test_progress(tiny_codec, pictures):
    streams = tiny_codec.compress_batch(pictures)
    seen = []

    def note(*report) -> None:
        seen.append(report)

    for run in (
        lambda: tiny_codec.compress_batch(pictures, progress=note),
        lambda: tiny_codec.compress_batch(pictures, target_bytes=3000, progress=note),
        lambda: tiny_codec.decompress_batch(streams, progress=note),
    ):
        seen.clear()
        run()
        fractions = [fraction for fraction, _ in seen]
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1
        assert all(stage for _, stage in seen)
