"""What is fuzzed: each decoder as a function of bytes that raises only for a fault of the library.

`scripts/fuzz.py` feeds them with what coverage-guided search comes up with, and a test with the inputs that
once made one fail (``tests/fuzz/``). The codecs' own targets are in `scripts/fuzz_codecs.py`.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from latentpress.codecs.bitstream import (
    CodecId,
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
from latentpress.scripts.fuzz_codecs import (
    FAMILIES,
    LIMITS,
    Target,
    only,
    payload_target,
    symbols_target,
)
from latentpress.scripts.fuzz_fields import field_blocks_target, field_energies_target
from latentpress.scripts.fuzz_pictures import alpha_symbols_target, alpha_target, picture_target

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

_SHAPE_CONFIG = {
    **{part: {"width": 8} for part in ("autoencoder", "bridge", "prior")},
    "encoder": {"channels": 8},
    **{price: [1e-4, 1e-6] for price in ("geometry_price", "colour_price")},
}


def make_target(name: str, weights: str | None = None) -> Target:
    """Makes a target.

    Args:
        name: One of `TARGETS`.
        weights: Of the codec that the target is for, by name or path; None for those that ship. Small ones
            are fast.

    Raises:
        ValueError: The target needs weights, and none ship.

    Example:
        >>> target = make_target("container")
        >>> target.run(target.seeds[0])
    """
    return TARGETS[name](weights)


def _container(weights: str | None) -> Target:
    """Container, header and metadata, with the checksums as they come and with right ones."""

    def run(data: bytes) -> None:
        for stream in (data, with_right_checksums(data)):
            readers: tuple[Callable[[bytes], Any], ...] = (read_preamble, inspect, read_metadata)
            for read in readers:
                only(StreamError, partial(read, stream))
            found = only(StreamError, partial(read_container, stream, LIMITS))
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


def _symbols(weights: str | None) -> Target:
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
            only(StreamError, partial(decode, data))

    def seed(count: int, number: int) -> bytes:
        encoder = SymbolEncoder()
        of = indexes(count, number)
        symbols = np.where(of == 0, np.arange(count) % 5 - 2, np.where(of == 1, 5, 2**31 - 1))
        encoder.put(symbols.astype(np.int32), of, tables)
        return bytes([count, number]) + encoder.finish()

    return Target(run, [seed(0, 0), seed(40, 3), seed(255, 100)])


def _weights(weights: str | None) -> Target:
    """Weight files, from the safetensors header to the codec that is made of them."""

    def run(data: bytes) -> None:
        with tempfile.NamedTemporaryFile(prefix="latentpress-fuzz-", suffix=".safetensors") as file:
            file.write(data)
            file.flush()
            found = only(ValueError, partial(read_weight_file, file.name))
            if found is not None:
                only(ValueError, partial(load, file.name))

    tables = _table_set([2**23, 2**23], [2], [0]).to_arrays()
    arrays = {f"tables.{name}": array for name, array in tables.items()}
    seeds = [
        WeightFile("image", SMALL_CONFIG, arrays).to_bytes(),
        WeightFile("harp", {}, {}).to_bytes(),
        WeightFile("index", {"codes": 8, "code_channels": 4}, arrays).to_bytes(),
        WeightFile("field", {"networks": {"8": {"channels": 8, "latent_channels": 8}}}, arrays).to_bytes(),
        WeightFile("shape", _SHAPE_CONFIG, arrays).to_bytes(),
    ]
    # The first networks take seconds to build, which would count for the first input.
    for seed in seeds:
        run(seed)
    return Target(run, seeds)


def _card(weights: str | None) -> Target:
    """Model cards."""

    def run(data: bytes) -> None:
        card = only(ValueError, lambda: ModelCard.from_json(data.decode()))
        assert card is None or ModelCard.from_json(card.to_json()) == card

    card = ModelCard("a", "image", {}, "0" * 16, 1, 1, "2025-01-01", "MIT", "noise", "a step", (0.1, 1.0))
    return Target(run, [card.to_json().encode()])


def _pillow(weights: str | None) -> Target:
    """The Pillow plugin, up to the header: decoding is the target ``image``."""
    from PIL import Image

    from latentpress.codecs import pillow

    pillow.register()

    def run(data: bytes) -> None:
        for stream in (data, with_right_checksums(data)):
            image = only(OSError, partial(Image.open, io.BytesIO(stream), formats=["LATENTPRESS"]))
            assert image is None or min(image.size) > 0

    return Target(run, _container(None).seeds)


TARGETS: dict[str, Callable[[str | None], Target]] = {
    "container": _container,
    "symbols": _symbols,
    "weights": _weights,
    "card": _card,
    "pillow": _pillow,
    "alpha": alpha_target,
    "alpha-symbols": alpha_symbols_target,
    "picture": picture_target,
    "field-blocks": field_blocks_target,
    "field-energies": field_energies_target,
    **{family: partial(payload_target, family) for family in FAMILIES},
    **{f"{family}-symbols": partial(symbols_target, family) for family in FAMILIES},
}
"""What there is to fuzz, by name; each is made for weights."""


def _table_set(frequencies: list[int], lengths: list[int], minimums: list[int]) -> TableSet:
    return TableSet.from_arrays({"frequencies": frequencies, "lengths": lengths, "minimums": minimums})
