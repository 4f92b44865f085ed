"""Streams of models with several parts, whole and cut off."""

import pytest
import torch

from latentpress.codecs import inspect
from latentpress.codecs.bitstream import (
    CorruptStream,
    LimitExceeded,
    StreamError,
    TruncatedStream,
    UnknownModel,
    read_container,
    write_container,
)
from latentpress.codecs.image_payload import join_parts, read_image_header, read_parts

METADATA = {"icc": b"profile"}


@pytest.fixture(scope="module")
def pixels(picture):
    return picture(70, 90)


@pytest.fixture(scope="module")
def stream(tiny_max_codec, pixels):
    return tiny_max_codec.compress(pixels, quality=60, metadata=METADATA)


@pytest.fixture(scope="module")
def core(tiny_max_codec, stream):
    return tiny_max_codec.cut_points(stream)[0]


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).square().mean())


def test_a_stream_has_two_cut_points(tiny_max_codec, tiny_codec, pixels, stream):
    core, end = tiny_max_codec.cut_points(stream)
    assert 0 < core < end == len(stream) - 4
    (end,) = tiny_codec.cut_points(tiny_codec.compress(pixels))
    assert end == len(tiny_codec.compress(pixels)) - 4


def test_core_alone_is_a_picture(tiny_max_codec, pixels, stream, core):
    whole = tiny_max_codec.decompress(stream)
    cut = tiny_max_codec.decompress(stream[:core], partial=True)
    assert cut.shape == whole.shape == pixels.shape
    grey = torch.full_like(pixels, int(pixels.float().mean()))
    assert error(whole, pixels) < error(cut, pixels) < error(grey, pixels)


def test_whatever_follows_the_core_is_ignored_until_it_is_complete(tiny_max_codec, stream, core):
    """A download that goes on shows the core's picture first, then the whole one."""
    whole = tiny_max_codec.decompress(stream)
    cut = tiny_max_codec.decompress(stream[:core], partial=True)
    for end in (core + 1, core + 5, (core + len(stream)) // 2, len(stream) - 5):
        assert torch.equal(tiny_max_codec.decompress(stream[:end], partial=True), cut)
    # Without its last four bytes the container cannot be verified, but the parts can.
    for end in range(len(stream) - 4, len(stream) + 1):
        assert torch.equal(tiny_max_codec.decompress(stream[:end], partial=True), whole)


def test_a_cut_stream_is_not_taken_for_a_whole_one(tiny_max_codec, stream, core):
    for end in (core, len(stream) - 1):
        with pytest.raises(TruncatedStream):
            tiny_max_codec.decompress(stream[:end])
        with pytest.raises(TruncatedStream):
            tiny_max_codec.verify(stream[:end])


def test_without_a_complete_core(tiny_max_codec, stream, core):
    for end in range(core):
        with pytest.raises(TruncatedStream):
            tiny_max_codec.decompress(stream[:end], partial=True)


def test_models_with_one_part(tiny_codec, pixels):
    stream = tiny_codec.compress(pixels)
    assert torch.equal(tiny_codec.decompress(stream, partial=True), tiny_codec.decompress(stream))
    with pytest.raises(TruncatedStream):
        tiny_codec.decompress(stream[:-5], partial=True)


def test_flipped_bytes_of_a_cut_stream_are_noticed(tiny_max_codec, stream, core):
    """The container's checksums are not there; those of the core cover header and symbols."""
    for place in (*range(50), *range(50, core, 11)):
        damaged = bytearray(stream[:core])
        damaged[place] ^= 0x04
        try:
            found = tiny_max_codec.decompress(bytes(damaged), partial=True)
        except StreamError:
            continue
        # All that may go unnoticed is the length of the whole, which says nothing of the core.
        payload = stream.index(b"profile") + len(b"profile") + 4
        assert payload < place <= payload + 3, place
        assert torch.equal(found, tiny_max_codec.decompress(stream[:core], partial=True))


def test_another_model(tiny_codec, stream, core):
    with pytest.raises(UnknownModel):
        tiny_codec.decompress(stream[:core], partial=True)


def test_header_is_where_it_always_is(stream, pixels):
    header = inspect(stream)
    assert header.codec == "image"
    assert (header.parameters["height"], header.parameters["width"]) == tuple(pixels.shape[1:])


def repacked(codec, stream: bytes, change) -> bytes:
    """The stream with another payload and right checksums of the container."""
    container = read_container(stream)
    payload = change(container.payload)
    return write_container(container.codec_id, codec.fingerprint, [(1, payload)])


def test_parts_that_do_not_fit(tiny_max_codec, stream):
    payload = read_container(stream).payload
    from latentpress.codecs.bitstream import Limits

    header, offset = read_image_header(payload, Limits())
    first, second = read_parts(payload, offset - 4, 2)
    assert join_parts(header.fields, [part[:2] for part in (first, second)]) == payload

    def swapped(_: bytes) -> bytes:
        return join_parts(header.fields, [second[:2], first[:2]])

    def shorter(_: bytes) -> bytes:
        return join_parts(header.fields, [first[:2], (second.data[:-4], second.checksum)])

    def longer(found: bytes) -> bytes:
        return found + bytes(4)

    def misaligned(_: bytes) -> bytes:
        return join_parts(header.fields, [(first.data[:-1], first.checksum), second[:2]])

    def beyond(found: bytes) -> bytes:
        return found[: first.end]

    for change in (swapped, shorter, longer, misaligned, beyond):
        data = repacked(tiny_max_codec, stream, change)
        with pytest.raises((CorruptStream, TruncatedStream)):
            tiny_max_codec.decompress(data)


def test_pictures_too_large_for_the_proofs(tiny_max_codec, pixels, stream, monkeypatch):
    monkeypatch.setattr(tiny_max_codec.network.context, "max_positions", 29)
    with pytest.raises(ValueError, match="too large"):
        tiny_max_codec.compress(pixels)
    with pytest.raises(LimitExceeded):
        tiny_max_codec.decompress(stream)
    monkeypatch.setattr(tiny_max_codec.network.context, "max_positions", 30)
    tiny_max_codec.verify(stream)


def test_threads(tiny_max_codec, picture):
    large = picture(200, 300)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(tiny_max_codec.compress(large, quality=40))
        torch.set_num_threads(1)
        tiny_max_codec.verify(found[1])
    finally:
        torch.set_num_threads(before)
    # The transforms run in floating point, so streams may differ; here they are too small to.
    assert found[0] == found[1]


def test_effort(patient_max_codec, picture):
    """Refinement goes through the slice-wise model as well."""
    small = picture(64, 96)
    plain, refined = (patient_max_codec.compress(small, quality=60, effort=effort) for effort in (0, 2))
    before, after = (patient_max_codec.decompress(data) for data in (plain, refined))
    assert len(refined) <= len(plain)
    assert error(after, small) < error(before, small)


def test_selective_compression_codes_fewer_symbols(tiny_max_codec, pixels):
    counted = 0

    def count(observation) -> None:
        nonlocal counted
        counted += len(observation.symbols)

    tiny_max_codec.encode_payload(pixels.float() / 255, 600, observe=count)
    positions = 5 * 6
    elements = positions * tiny_max_codec.network.latent_channels + 2 * 2 * 4
    assert positions < counted < elements
