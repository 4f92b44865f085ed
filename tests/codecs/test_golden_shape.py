"""Shape streams of format version 1 decode to the same codes for ever.

Imports only core dependencies: this also runs where nothing else is installed. The decoder below is a second
one, written from docs/bitstream.md with numpy's integers and without torch; it shares the container, the
tables and the range coder with the library.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from latentpress.codecs.bitstream import SymbolDecoder, TableSet, crc32c, read_container
from latentpress.codecs.registry import inspect, load
from latentpress.codecs.shape_payload import read_shape_header
from latentpress.codecs.weights import read_weight_file

FOLDER = Path(__file__).parents[1] / "golden" / "v1"
EXPECTED = json.loads((FOLDER / "shape.json").read_text(encoding="utf-8"))
# Streams of what came later are in files of their own.
SMOOTHED = json.loads((FOLDER / "shape_smoothed.json").read_text(encoding="utf-8"))
STREAMS = EXPECTED["streams"] | SMOOTHED["streams"]
LIMIT = 2**20 - 1
UNIT = 2**10

names = pytest.mark.parametrize("name", STREAMS)


def stream(name: str) -> bytes:
    return (FOLDER / f"shape_{name}.lpz").read_bytes()


@pytest.fixture(scope="module")
def weights():
    return read_weight_file(FOLDER / "shape_tiny.safetensors")


@pytest.fixture(scope="module")
def codec():
    return load(FOLDER / "shape_tiny.safetensors")


class SecondPrior:
    """One of the two priors, in numpy's integers."""

    def __init__(self, weights, name: str) -> None:
        self.tensors = weights.tensors
        self.name = f"bridge.{name}"
        config = weights.config["bridge"]
        prefix = "colour_" if name == "colour_prior" else ""
        self.channels = config[f"{prefix}code_channels"]
        self.groups = config[f"{prefix}code_groups"]
        self.depth = config["prior_depth"]

    def array(self, name: str) -> np.ndarray:
        return self.tensors[f"{self.name}.{name}"].astype(np.int64)

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        shift = int(self.array(f"{name}.shift")[0])
        sums = x.clip(-LIMIT, LIMIT) @ self.array(f"{name}.weight").T
        return (sums + (self.array(f"{name}.bias") << shift) + (1 << shift - 1)) >> shift

    def by_quality(self, name: str, tenths: int) -> np.ndarray:
        knots = self.array(f"{name}.knots")
        position = tenths * (len(knots) - 1)
        index = min(position // 1000, len(knots) - 2)
        fraction = position - index * 1000
        return (knots[index] * (1000 - fraction) + knots[index + 1] * fraction + 500) // 1000

    def predict(self, code, known, context, tenths: int, context_tenths: int):
        given = [code, known] if context is None else [context, code, known]
        x = self.linear("stem", np.concatenate(given, axis=1))
        x = (
            x
            + self.by_quality("bias", tenths).reshape(64, -1)
            + self.by_quality("context_bias", context_tenths)
        )
        for block in (f"blocks.{k}" for k in range(self.depth)):
            hidden = self.linear(f"{block}.expand", x)
            hidden = np.maximum(hidden, hidden >> 3)
            mixed = self.linear(f"{block}.mix", hidden.T).T
            x = x + self.linear(f"{block}.project", mixed)
            value = self.linear(f"{block}.value", x).clip(-LIMIT, LIMIT)
            gate = self.linear(f"{block}.gate", x).clip(0, 8 * UNIT)
            x = x + self.linear(f"{block}.output", (value * gate + UNIT // 2) >> 10)
        return np.split(self.linear("head", x), 2, axis=1)

    def decode(self, decoder, tables, symbols: list, sent: int, context, tenths: int, context_tenths: int):
        code = np.zeros((64, self.channels), np.int64)
        known = np.zeros_like(code)
        size = self.channels // self.groups
        for group in range(sent):
            mean, scale = self.predict(code, known, context, tenths, context_tenths)
            part = slice(group * size, (group + 1) * size)
            index = ((scale[:, part] * 8 + 24 * UNIT + UNIT // 2) >> 10).clip(0, 63)
            found = decoder.get(index.ravel().astype(np.uint8), tables)
            symbols.append(found)
            code[:, part] = found.reshape(64, size).astype(np.int64) * UNIT + mean[:, part]
            known[:, part] = UNIT
        if sent < self.groups:
            mean, _ = self.predict(code, known, context, tenths, context_tenths)
            code[:, sent * size :] = mean[:, sent * size :]
        return code


def second_decode(weights, data: bytes) -> list[np.ndarray]:
    """The codes of a stream, in units, ``(64, K)`` each."""
    payload = read_container(data).payload
    header, offset = read_shape_header(payload)
    packed = payload[offset:]
    words = np.frombuffer(packed + bytes(-len(packed) % 4), ">u4").astype("<u4")
    decoder = SymbolDecoder(words.tobytes())
    arrays = {k.removeprefix("tables."): v for k, v in weights.tensors.items() if k.startswith("tables.")}
    tables = TableSet.from_arrays(arrays)
    symbols: list[np.ndarray] = []
    tenths = 4 * header.geometry_quality
    prior = SecondPrior(weights, "geometry_prior")
    codes = [prior.decode(decoder, tables, symbols, header.geometry_groups, None, tenths, tenths)]
    if header.colour_quality is not None:
        prior = SecondPrior(weights, "colour_prior")
        own = 4 * header.colour_quality
        codes.append(prior.decode(decoder, tables, symbols, header.colour_groups, codes[0], own, tenths))
    decoder.finish()
    assert crc32c(*[s.astype("<i4").tobytes() for s in symbols]) & 0xFFFF == header.checksum
    return codes


def digest(codes: list[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(code.astype("<i8").tobytes() for code in codes)).hexdigest()


def test_weights_are_those_of_the_streams(weights) -> None:
    assert weights.fingerprint().hex() == EXPECTED["fingerprint"] == SMOOTHED["fingerprint"]


@names
def test_header(name) -> None:
    expected, data = STREAMS[name], stream(name)
    assert len(data) == expected["bytes"]
    assert inspect(data).parameters["kind"] == expected["kind"]
    header, _ = read_shape_header(read_container(data).payload)
    assert header.unit == expected["unit"]
    assert header.pose.scale == pytest.approx(expected["scale"], rel=1e-12)
    assert list(header.pose.centre) == pytest.approx(expected["centre"], rel=1e-12)
    assert [header.geometry_groups, header.colour_groups] == expected["groups"]
    assert header.smoothing == expected.get("smoothing", 0)


@names
def test_the_library_decodes_the_same_code(codec, name) -> None:
    from latentpress.codecs.bitstream import DEFAULT_LIMITS

    _, code = codec.decode_payload(codec.payload_of(stream(name), DEFAULT_LIMITS))
    units = [np.rint(part[0].double().numpy() * UNIT) for part in code if part is not None]
    assert digest(units) == STREAMS[name]["code_sha256"]


@names
def test_a_second_decoder_finds_the_same_code(weights, name) -> None:
    assert digest(second_decode(weights, stream(name))) == STREAMS[name]["code_sha256"]


@names
def test_fields_come_without_the_extra(codec, name) -> None:
    field = codec.decompress(stream(name), as_="field")
    with torch.inference_mode():
        values = field.signed_distance(field.centre[None] + torch.eye(3) * field.scale)
    assert torch.isfinite(values).all()
