"""Fuzz targets of what a picture has besides its colours: alpha, depth and metadata."""

from __future__ import annotations

import struct
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.alpha_coder import Region, decode_alpha, encode_alpha
from latentpress.codecs.bitstream import StreamError
from latentpress.codecs.registry import inspect, load
from latentpress.codecs.testing import with_right_checksums
from latentpress.scripts.fuzz_codecs import LIMITS, Target, only
from latentpress.scripts.fuzz_symbols import hostile_symbols

_SIZE = struct.Struct("<HH")


def alpha_target(weights: str | None) -> Target:
    """ALPHA sections of a picture whose size is in the first four bytes, whole and in part."""

    def run(data: bytes) -> None:
        if len(data) < _SIZE.size:
            return
        height, width, section = _alpha_of(data)
        whole = only(StreamError, partial(decode_alpha, section, height, width, LIMITS))
        if whole is not None:
            y, x = height // 3, width // 2
            part = decode_alpha(section, height, width, LIMITS, Region(y, x, height - y, width - x))
            assert np.array_equal(part, whole[y:, x:]), "a part is not that of the whole"

    return Target(run, _alpha_seeds())


def alpha_symbols_target(weights: str | None) -> Target:
    """The same sections, with hostile symbols in the place of their own."""

    def run(data: bytes) -> None:
        if len(data) < _SIZE.size:
            return
        height, width, section = _alpha_of(data)
        with hostile_symbols():
            only(StreamError, partial(decode_alpha, section, height, width, LIMITS))

    seeds = _alpha_seeds()
    run(seeds[0])  # imports what takes a second, which would count for the first input
    return Target(run, seeds)


def picture_target(weights: str | None) -> Target:
    """Whole streams of the image codec: alpha, depth and metadata around a payload."""
    import torch

    torch.set_num_threads(1)
    codec: Any = load(weights or "image")

    def run(data: bytes) -> None:
        stream = with_right_checksums(data)
        picture = only(StreamError, lambda: codec.decompress(stream, limits=LIMITS))
        verified = only(StreamError, lambda: codec.verify(stream, limits=LIMITS) or True)
        assert (picture is not None) == (verified is not None), "decoding and verifying disagree"
        if picture is not None:
            assert inspect(stream).parameters["channels"] == len(picture), "the header has other channels"

    slope = torch.arange(4 * 20 * 33).reshape(4, 20, 33).remainder(256)
    layers, deep = slope.to(torch.uint8), (slope * 257).to(torch.uint16)
    metadata = {"icc": b"profile", "exif": b"II*", "xmp": b""}
    return Target(
        run,
        [
            codec.compress(layers, metadata=metadata),
            codec.compress(layers[2:], alpha_max_error=0),
            codec.compress(deep, quality=0),
            codec.compress(deep[:3]),
        ],
    )


def _alpha_of(data: bytes) -> tuple[int, int, bytes]:
    """Rows, columns and section of an input."""
    height, width = (1 + size for size in _SIZE.unpack_from(data))
    return height, width, data[_SIZE.size :]


def _alpha_seeds() -> list[bytes]:
    slope = (np.arange(9 * 600).reshape(9, 600) % 600 - 170).clip(0, 255)
    deep = (np.arange(40 * 30).reshape(40, 30) % 31 * 2500).clip(0, 65535)
    alphas: list[tuple[NDArray[Any], int]] = [
        (slope.astype(np.uint8), 0),
        (slope.astype(np.uint8), 3),
        (np.repeat(slope // 128 * 255, 3, axis=0).astype(np.uint8), 0),
        (deep.astype(np.uint16), 0),
        (np.full((5, 7), 200, np.uint8), 0),
    ]
    return [
        _SIZE.pack(alpha.shape[0] - 1, alpha.shape[1] - 1) + encode_alpha(alpha, error)
        for alpha, error in alphas
    ]
