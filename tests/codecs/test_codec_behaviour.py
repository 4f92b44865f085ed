"""What codecs/base.py promises of every codec, asked of every codec there is."""

import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from latentpress.codecs import Codec, inspect, load
from latentpress.codecs.bitstream import (
    CodecId,
    CorruptStream,
    Limits,
    SectionType,
    StreamError,
    TruncatedStream,
    UnknownModel,
    read_container,
    write_container,
)
from latentpress.codecs.weights import shipped_weights


@dataclass(frozen=True)
class Subject:
    """A codec under test.

    Attributes:
        codec: It.
        item: Makes an item from a seed; items of different seeds differ in size.
        close: Whether an item came back well enough.
        parameters: What the header must say of an item.
        small: Limits that no item is within.
    """

    codec: Codec
    item: Callable[[int], torch.Tensor]
    close: Callable[[torch.Tensor, torch.Tensor], bool]
    parameters: Callable[[torch.Tensor], dict[str, Any]]
    small: Limits


def close_pictures(a: torch.Tensor, b: torch.Tensor) -> bool:
    error = float((a.double() - b.double()).square().mean())
    return b.dtype == torch.uint8 and 10 * math.log10(255**2 / max(error, 1e-9)) > 20


def image_subject(codec: Codec, picture) -> Subject:
    return Subject(
        codec,
        lambda seed: picture(40 + 7 * seed, 56 - 5 * seed, (3, 1)[seed % 2], seed),
        close_pictures,
        lambda x: {"height": x.shape[1], "width": x.shape[2], "channels": x.shape[0]},
        Limits(max_pixels=100),
    )


SUBJECTS = [
    "tiny image",
    "tiny image-max",
    *(f"shipped {name}" for name in shipped_weights() if name.startswith("image")),
]


@pytest.fixture(scope="module", params=SUBJECTS)
def subject(request, tiny_codec, tiny_max_codec, picture) -> Subject:
    if request.param == "tiny image-max":
        return image_subject(tiny_max_codec, picture)
    if request.param == "tiny image":
        return image_subject(tiny_codec, picture)
    return image_subject(load(request.param.removeprefix("shipped ")), picture)


@pytest.fixture(scope="module")
def stream(subject) -> bytes:
    return subject.codec.compress(subject.item(0))


def test_identity(subject):
    codec = subject.codec
    assert isinstance(codec, Codec)
    assert CodecId[codec.name.upper()]
    assert isinstance(codec.fingerprint, bytes)
    assert len(codec.fingerprint) == 8


@pytest.mark.parametrize("seed", range(4))
def test_round_trip(subject, seed):
    x = subject.item(seed)
    data = subject.codec.compress(x)
    assert type(data) is bytes
    y = subject.codec.decompress(data)
    assert isinstance(y, torch.Tensor)
    assert y.shape == x.shape
    assert subject.close(x, y)
    assert subject.codec.verify(data) is None


def test_streams_and_decoding_are_deterministic(subject, stream):
    assert subject.codec.compress(subject.item(0)) == stream
    assert torch.equal(subject.codec.decompress(stream), subject.codec.decompress(stream))


def test_header(subject, stream):
    header = inspect(stream)
    assert header.codec == subject.codec.name
    assert header.codec_id == CodecId[subject.codec.name.upper()]
    assert header.fingerprint == subject.codec.fingerprint.hex()
    assert header.total_bytes == len(stream)
    assert header.sections[-1].name == "payload"
    assert subject.parameters(subject.item(0)).items() <= header.parameters.items()


@pytest.mark.parametrize("quality", [0, 37.5, 100])
def test_quality(subject, quality):
    data = subject.codec.compress(subject.item(1), quality=quality)
    assert inspect(data).parameters["quality"] == quality
    subject.codec.verify(data)


def test_target_bytes(subject):
    x = subject.item(0)
    low, high = (len(subject.codec.compress(x, quality=quality)) for quality in (0, 100))
    target = (low + high) // 2
    assert low <= len(subject.codec.compress(x, target_bytes=target)) <= target
    with pytest.raises(ValueError, match="cannot be met"):
        subject.codec.compress(x, target_bytes=1)


def test_progress(subject, stream):
    for call in (
        lambda report: subject.codec.compress(subject.item(0), progress=report),
        lambda report: subject.codec.decompress(stream, progress=report),
    ):
        seen = []
        call(lambda fraction, stage, seen=seen: seen.append(fraction))
        assert seen == sorted(seen)
        assert (seen[0], seen[-1]) == (0, 1)


def test_batch(subject):
    items = [subject.item(seed) for seed in range(3)]
    streams = subject.codec.compress_batch(items, quality=30)
    assert streams == [subject.codec.compress(x, quality=30) for x in items]
    restored = subject.codec.decompress_batch(iter(streams))
    for data, y in zip(streams, restored, strict=True):
        assert torch.equal(y, subject.codec.decompress(data))
    assert subject.codec.compress_batch(iter(())) == []
    assert subject.codec.decompress_batch([]) == []
    with pytest.raises(StreamError):
        subject.codec.decompress_batch([streams[0], b""])


@pytest.mark.parametrize("kind", [bytearray, memoryview, lambda data: pickle.loads(pickle.dumps(data))])
def test_bytes_likes(subject, stream, kind):
    subject.codec.verify(kind(stream))
    assert torch.equal(subject.codec.decompress(kind(stream)), subject.codec.decompress(stream))
    assert inspect(kind(stream)) == inspect(stream)


@pytest.mark.parametrize("other", [None, 3, "text", [1, 2]])
def test_other_types(subject, other):
    for read in (subject.codec.decompress, subject.codec.verify, inspect):
        with pytest.raises(TypeError):
            read(other)
    with pytest.raises(TypeError):
        subject.codec.compress(other)


def test_empty(subject):
    for read in (subject.codec.decompress, subject.codec.verify, inspect):
        with pytest.raises(TruncatedStream):
            read(b"")


def test_garbage(subject, stream):
    random = np.random.default_rng(0)
    for length in (1, 3, 12, 13, 14, 40, 1000):
        for data in (
            random.bytes(length),
            stream[:13] + random.bytes(length),
            stream[:4] + random.bytes(length),
        ):
            for read in (subject.codec.decompress, subject.codec.verify):
                with pytest.raises(StreamError):
                    read(data)
    for read in (subject.codec.decompress, subject.codec.verify, inspect):
        with pytest.raises(CorruptStream):
            read(stream + b"\0")


def test_truncated(subject, stream):
    for end in {*range(0, len(stream), max(1, len(stream) // 60)), *range(30), len(stream) - 1}:
        with pytest.raises(StreamError):
            subject.codec.decompress(stream[:end])


def test_damage_under_right_checksums(subject, stream):
    container = read_container(stream)
    random = np.random.default_rng(0)
    for _ in range(20):
        payload = bytearray(container.payload)
        # Past the codec's own header, whose sizes would only make this slow.
        payload[int(random.integers(20, len(payload)))] ^= 1 << int(random.integers(0, 8))
        data = write_container(container.codec_id, container.fingerprint, [(SectionType.PAYLOAD, payload)])
        with pytest.raises(StreamError):
            subject.codec.verify(data)


def test_payload_of_nothing(subject):
    header = CodecId[subject.codec.name.upper()], subject.codec.fingerprint
    for payload in (b"", b"\0", b"\xff" * 30):
        with pytest.raises(StreamError):
            subject.codec.decompress(write_container(*header, [(SectionType.PAYLOAD, payload)]))


def test_another_model(subject, stream):
    container = read_container(stream)
    data = write_container(container.codec_id, b"8 bytes.", container.sections)
    for read in (subject.codec.decompress, subject.codec.verify):
        with pytest.raises(UnknownModel, match=b"8 bytes.".hex()):
            read(data)


def test_another_codec(subject, stream):
    container = read_container(stream)
    for codec_id in set(CodecId) - {container.codec_id}:
        data = write_container(codec_id, container.fingerprint, container.sections)
        with pytest.raises(CorruptStream, match=codec_id.name.lower()):
            subject.codec.decompress(data)


def test_limits(subject, stream):
    for read in (subject.codec.decompress, subject.codec.verify):
        with pytest.raises(StreamError, match="limit"):
            read(stream, limits=subject.small)
    with pytest.raises(StreamError, match="limit"):
        subject.codec.decompress_batch([stream], limits=subject.small)


def test_use_from_several_threads(subject):
    from concurrent.futures import ThreadPoolExecutor

    items = [subject.item(seed) for seed in range(4)]
    with ThreadPoolExecutor(2) as pool:
        streams = list(pool.map(subject.codec.compress, items))
        restored = list(pool.map(subject.codec.decompress, streams))
    for x, data, y in zip(items, streams, restored, strict=True):
        subject.codec.verify(data)
        assert subject.close(x, y)
