"""What is fuzzed: each decoder as a function of bytes that raises only for a fault of the library.

`scripts/fuzz.py` feeds them with what coverage-guided search comes up with, and a test with the inputs that
once made one fail (``tests/fuzz/``).
"""

from __future__ import annotations

import io
import json
import re
import struct
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from latentpress.codecs.alpha_coder import Region, decode_alpha, encode_alpha
from latentpress.codecs.base import Codec
from latentpress.codecs.bitstream import (
    CodecId,
    Limits,
    SectionType,
    StreamError,
    SymbolDecoder,
    SymbolEncoder,
    TableSet,
    read_container,
    read_preamble,
    write_container,
)
from latentpress.codecs.card import ModelCard
from latentpress.codecs.extension import write_extension
from latentpress.codecs.registry import inspect, load, read_metadata
from latentpress.codecs.testing import with_right_checksums
from latentpress.codecs.weights import WeightFile, read_weight_file

T = TypeVar("T")

_SIZE = struct.Struct("<HH")

SMALL_CONFIG = {
    "channels": 8,
    "deep_channels": 8,
    "latent_channels": 8,
    "depth": 1,
    "deep_depth": 1,
    "hyper_channels": 4,
    "hyper_width": 8,
    "context_channels": 8,
    "context_depth": 1,
}
"""Of an image network that is quick to build."""

LIMITS = Limits(max_pixels=2**13, max_sections=16, max_section_bytes=2**16)
"""Far below the defaults: allocations that the limits do not stop stand out, and inputs stay fast."""


class Target(NamedTuple):
    """A decoder to fuzz.

    Attributes:
        run: Decodes an input; raises only for what is a fault of the library.
        seeds: Inputs to start from, which decode.
    """

    run: Callable[[bytes], None]
    seeds: Sequence[bytes]


def make_target(name: str, weights: str = "image") -> Target:
    """Makes a target.

    Args:
        name: One of `TARGETS`.
        weights: Of the image codec, by name or path, for the targets that need them. Small ones are fast.

    Example:
        >>> target = make_target("container")
        >>> target.run(target.seeds[0])
    """
    return TARGETS[name](weights)


def _container(weights: str) -> Target:
    """Container, header and metadata, with the checksums as they come and with right ones."""

    def run(data: bytes) -> None:
        for stream in (data, with_right_checksums(data)):
            readers: tuple[Callable[[bytes], Any], ...] = (read_preamble, inspect, read_metadata)
            for read in readers:
                _only(StreamError, partial(read, stream))
            found = _only(StreamError, partial(read_container, stream, LIMITS))
            if found is not None:
                assert write_container(found.codec_id, found.fingerprint, found.sections) == stream

    payload = (SectionType.PAYLOAD, bytes.fromhex("0203e807") + bytes(4))
    metadata = [(SectionType.ICC, b"icc"), (SectionType.XMP, b""), (SectionType.ALPHA, b"a"), (200, b"note")]
    return Target(
        run,
        [
            write_container(CodecId.IMAGE, bytes(8), [payload]),
            write_container(CodecId.SHAPE, b"\xff" * 8, [*metadata, payload]),
            write_extension("harp", bytes(8), b"tones"),
        ],
    )


def _image(weights: str) -> Target:
    """Payloads of the image codec: header, entropy coding, transforms."""
    import torch

    torch.set_num_threads(1)
    codec: Codec = load(weights)

    def run(data: bytes) -> None:
        stream = write_container(CodecId.IMAGE, codec.fingerprint, [(SectionType.PAYLOAD, data)])
        picture = _only(StreamError, lambda: codec.decompress(stream, limits=LIMITS))
        verified = _only(StreamError, lambda: codec.verify(stream, limits=LIMITS) or True)
        assert (picture is not None) == (verified is not None), "decoding and verifying disagree"

    slope = torch.arange(3 * 20 * 33).reshape(3, 20, 33).remainder(256).to(torch.uint8)
    pictures = (slope, slope[:1], slope[:, :1, :1])
    return Target(
        run,
        [
            read_container(codec.compress(picture, quality=quality)).payload
            for picture in pictures
            for quality in (0, 60, 100)
        ],
    )


def _alpha(weights: str) -> Target:
    """ALPHA sections of a picture whose size is in the first four bytes, whole and in part."""

    def run(data: bytes) -> None:
        if len(data) < _SIZE.size:
            return
        height, width = (1 + size for size in _SIZE.unpack_from(data))
        section = data[_SIZE.size :]
        whole = _only(StreamError, lambda: decode_alpha(section, height, width, LIMITS))
        if whole is not None:
            y, x = height // 3, width // 2
            part = decode_alpha(section, height, width, LIMITS, Region(y, x, height - y, width - x))
            assert np.array_equal(part, whole[y:, x:]), "a part is not that of the whole"

    def seed(alpha: np.ndarray, error: int) -> bytes:
        return _SIZE.pack(alpha.shape[0] - 1, alpha.shape[1] - 1) + encode_alpha(alpha, error)

    slope = (np.arange(9 * 600).reshape(9, 600) % 600 - 170).clip(0, 255)
    deep = (np.arange(40 * 30).reshape(40, 30) % 31 * 2500).clip(0, 65535)
    return Target(
        run,
        [
            seed(slope.astype(np.uint8), 0),
            seed(slope.astype(np.uint8), 3),
            seed(np.repeat(slope // 128 * 255, 3, axis=0).astype(np.uint8), 0),
            seed(deep.astype(np.uint16), 0),
            seed(np.full((5, 7), 200, np.uint8), 0),
        ],
    )


def _picture(weights: str) -> Target:
    """Whole streams of the image codec: alpha, depth and metadata around a payload."""
    import torch

    torch.set_num_threads(1)
    codec: Codec = load(weights)

    def run(data: bytes) -> None:
        stream = with_right_checksums(data)
        picture = _only(StreamError, lambda: codec.decompress(stream, limits=LIMITS))
        verified = _only(StreamError, lambda: codec.verify(stream, limits=LIMITS) or True)
        assert (picture is not None) == (verified is not None), "decoding and verifying disagree"
        if picture is not None:
            assert inspect(stream).parameters["channels"] == len(picture), "the header has other channels"

    slope = torch.arange(4 * 20 * 33).reshape(4, 20, 33).remainder(256)
    layers = slope.to(torch.uint8)
    deep = (slope * 257).to(torch.uint16)
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


def _symbols(weights: str) -> Target:
    """The range decoder: two bytes say how many symbols of which tables are expected."""
    tables = _table_set([2**23, 2**22, 2**22, 1, 2**24 - 2, 1, 2**24 - 1, 1], [3, 3, 2], [-1, 5, 2**31 - 1])

    def indexes(count: int, seed: int) -> np.ndarray:
        return (np.arange(count) * (seed + 1) // 7 % 3).astype(np.uint8)

    def decode(data: bytes) -> None:
        decoder = SymbolDecoder(data[2:])
        decoder.get(indexes(data[0], data[1]), tables)
        decoder.finish()

    def run(data: bytes) -> None:
        if len(data) >= 2:
            _only(StreamError, partial(decode, data))

    def seed(count: int, number: int) -> bytes:
        encoder = SymbolEncoder()
        of = indexes(count, number)
        symbols = np.where(of == 0, np.arange(count) % 5 - 2, np.where(of == 1, 5, 2**31 - 1))
        encoder.put(symbols.astype(np.int32), of, tables)
        return bytes([count, number]) + encoder.finish()

    return Target(run, [seed(0, 0), seed(40, 3), seed(255, 100)])


def _weights(weights: str) -> Target:
    """Weight files, from the safetensors header to the codec that is made of them."""
    import latentpress.codecs.image  # noqa: F401 - takes seconds, which would count for the first input

    def run(data: bytes) -> None:
        with tempfile.NamedTemporaryFile(prefix="latentpress-fuzz-", suffix=".safetensors") as file:
            file.write(data)
            file.flush()
            found = _only(ValueError, partial(read_weight_file, file.name))
            # A large network takes the memory it takes: SECURITY.md promises nothing else of weights.
            if found is not None and not re.search(r"\d{3}", json.dumps(dict(found.config))):
                _only(ValueError, partial(load, file.name))

    tables = _table_set([2**23, 2**23], [2], [0]).to_arrays()
    arrays = {f"tables.{name}": array for name, array in tables.items()}
    return Target(
        run,
        [
            WeightFile("image", SMALL_CONFIG, arrays).to_bytes(),
            WeightFile("harp", {}, {}).to_bytes(),
        ],
    )


def _card(weights: str) -> Target:
    """Model cards."""

    def run(data: bytes) -> None:
        card = _only(ValueError, lambda: ModelCard.from_json(data.decode()))
        assert card is None or ModelCard.from_json(card.to_json()) == card

    card = ModelCard("a", "image", {}, "0" * 16, 1, 1, "2025-01-01", "MIT", "noise", "a step", (0.1, 1.0))
    return Target(run, [card.to_json().encode()])


def _pillow(weights: str) -> Target:
    """The Pillow plugin, up to the header: decoding is the target ``image``."""
    from PIL import Image

    from latentpress.codecs import pillow

    pillow.register()

    def run(data: bytes) -> None:
        for stream in (data, with_right_checksums(data)):
            image = _only(OSError, partial(Image.open, io.BytesIO(stream), formats=["LATENTPRESS"]))
            assert image is None or min(image.size) > 0

    return Target(run, _container(weights).seeds)


TARGETS: dict[str, Callable[[str], Target]] = {
    "container": _container,
    "image": _image,
    "alpha": _alpha,
    "picture": _picture,
    "symbols": _symbols,
    "weights": _weights,
    "card": _card,
    "pillow": _pillow,
}
"""What there is to fuzz, by name; each is made for the weights of an image codec."""


def _only(expected: type[Exception], read: Callable[[], T]) -> T | None:
    """What a call returns; None if it raises what it may."""
    try:
        return read()
    except expected:
        return None


def _table_set(frequencies: list[int], lengths: list[int], minimums: list[int]) -> TableSet:
    return TableSet.from_arrays({"frequencies": frequencies, "lengths": lengths, "minimums": minimums})
