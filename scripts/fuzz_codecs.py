"""Fuzz targets of the codecs: hostile payloads in containers that are right, then hostile symbols."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from latentpress.codecs.bitstream import (
    CodecId,
    Limits,
    SectionType,
    StreamError,
    read_container,
    write_container,
)
from latentpress.codecs.index_payload import describe as describe_index
from latentpress.codecs.registry import available, load
from latentpress.scripts.fuzz_symbols import hostile_symbols

T = TypeVar("T")

LIMITS = Limits(
    max_pixels=2**13,
    max_voxels=2**13,
    max_vertices=2**14,
    max_faces=2**14,
    max_sections=16,
    max_section_bytes=2**16,
)
"""Far below the defaults: allocations that the limits do not stop stand out, and inputs stay fast."""

_SHAPE_RESOLUTION = 12


class Target(NamedTuple):
    """A decoder to fuzz.

    Attributes:
        run: Decodes an input; raises only for what is a fault of the library.
        seeds: Inputs to start from, which decode.
    """

    run: Callable[[bytes], None]
    seeds: Sequence[bytes]


class _Decoders(NamedTuple):
    """A codec under test.

    Attributes:
        codec: The codec.
        codec_id: In its streams.
        decode: From a stream to what it holds.
        others: Further ways to read a stream.
        streams: Streams to start from.
    """

    codec: Any
    codec_id: CodecId
    decode: Callable[[bytes], Any]
    others: tuple[Callable[[bytes], Any], ...]
    streams: Sequence[bytes]


def only(expected: type[Exception], read: Callable[[], T]) -> T | None:
    """What a call returns; None if it raises what it may."""
    try:
        return read()
    except expected:
        return None


def payload_target(family: str, weights: str | None) -> Target:
    """Payloads of a codec: header, entropy coding, and the networks for what comes through.

    Args:
        family: One of :data:`FAMILIES`.
        weights: Name or path; None for those that ship.
    """
    made = FAMILIES[family](weights or family)

    def run(data: bytes) -> None:
        stream = write_container(made.codec_id, _fingerprint(made, data), [(SectionType.PAYLOAD, data)])
        # One way of reading for each input, or the search would take as much longer.
        ways = (made.decode, *made.others)
        decoded = only(StreamError, partial(ways[zlib.crc32(data) % len(ways)], stream))
        if decoded is not None and len(ways) == 1:
            made.codec.verify(stream, limits=LIMITS)

    return Target(run, [read_container(stream).payload for stream in made.streams])


def symbols_target(family: str, weights: str | None) -> Target:
    """What a codec does with any symbols at all, from a header on that is right or hostile."""
    made = FAMILIES[family](weights or family)

    def run(data: bytes) -> None:
        stream = write_container(made.codec_id, _fingerprint(made, data), [(SectionType.PAYLOAD, data)])
        with hostile_symbols():
            only(StreamError, partial(made.decode, stream))

    return Target(run, [read_container(stream).payload for stream in made.streams])


def _fingerprint(made: _Decoders, payload: bytes) -> bytes:
    """Of the stream: field streams without networks have none, index streams with residuals another."""
    if made.codec_id == CodecId.INDEX:
        said = only(StreamError, partial(describe_index, payload, LIMITS)) or {}
        if "residual_level" in said:
            return bytes(made.codec.extended_fingerprint)
    without = made.codec_id == CodecId.FIELD and payload[:1] and payload[0] & 3 != 2
    return bytes(8) if without else bytes(made.codec.fingerprint)


def _pictures() -> tuple[Any, ...]:
    import torch

    torch.set_num_threads(1)
    slope = torch.arange(3 * 20 * 33).reshape(3, 20, 33).remainder(256).to(torch.uint8)
    return slope, slope[:1], slope[:, :1, :1]


def _image(weights: str) -> _Decoders:
    codec: Any = load(weights)
    return _Decoders(
        codec,
        CodecId.IMAGE,
        partial(codec.decompress, limits=LIMITS),
        (
            partial(codec.decompress, limits=LIMITS, partial=True),
            partial(codec.decompress, limits=LIMITS, region=(0, 0, 1, 1)),
        ),
        [codec.compress(picture, quality=q) for picture in _pictures() for q in (0, 60, 100)],
    )


def _index(weights: str) -> _Decoders:
    codec: Any = load(weights)
    saturated = _pictures()[0].clone()
    saturated[:, :, :20] = saturated.new_tensor([0, 0, 255])[:, None, None]
    pictures = (*_pictures(), saturated)
    streams = [codec.compress(picture, quality=q) for picture in pictures for q in (0, 40, 100)]
    return _Decoders(
        codec,
        CodecId.INDEX,
        partial(codec.decompress, limits=LIMITS),
        (partial(codec.decompress, limits=LIMITS, repair=True),),
        [*streams, *(codec.compress(_pictures()[0], quality=q, packets=5) for q in (70, 95))],
    )


def _field(weights: str) -> _Decoders:
    """With networks if there are any, and always what needs none."""
    import torch

    from latentpress.codecs.field import FieldCodec

    torch.set_num_threads(1)
    codec = FieldCodec() if weights == "field" and weights not in available() else load(weights)
    assert isinstance(codec, FieldCodec)
    codec.refuses = False
    x = np.linspace(0, 6, 9)
    waves = np.stack([np.sin(x[:, None, None] * k + x[:, None] - x) for k in (1, 2, 3)]).astype(np.float32)
    holes = waves.copy()
    holes[0, 1:3] = np.nan
    bounds = [
        codec.compress(field, max_error=bound)
        for field in (waves, holes, waves[:, 0].astype(np.float64), waves[:1, :1])
        for bound in (0.0, 0.01, 0.5)
    ]
    networks = [codec.compress(waves, ratio=ratio, periodic=ratio == 8) for ratio in codec.ratios]
    decode = partial(codec.decompress, limits=LIMITS)
    return _Decoders(codec, CodecId.FIELD, decode, (), [*bounds, *networks])


def _shape(weights: str) -> _Decoders:
    import torch
    import trimesh

    torch.set_num_threads(1)
    codec: Any = load(weights)
    ball = trimesh.creation.icosphere(1)
    coloured = ball.copy()
    coloured.visual.vertex_colors = ((ball.vertices + 1) * 127).astype(np.uint8)
    return _Decoders(
        codec,
        CodecId.SHAPE,
        partial(codec.decompress, limits=LIMITS, resolution=_SHAPE_RESOLUTION),
        (partial(codec.decompress, limits=LIMITS, as_="field"),),
        [codec.compress(mesh, quality=q) for mesh in (ball, coloured) for q in (0, 60)],
    )


FAMILIES: dict[str, Callable[[str], _Decoders]] = {
    "image": _image,
    "image-max": _image,
    "index": _index,
    "field": _field,
    "shape": _shape,
}
"""Codec families, each made with weights of a name or path."""
