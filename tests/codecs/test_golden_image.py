"""Image streams of format version 1 decode to the same symbols for ever.

Imports only core dependencies: this also runs where nothing else is installed. The second decoder, in
second_image_decoder.py, is written from docs/bitstream.md; the container, the tables and the range coder that
it shares with the library have golden tests of their own in tests/codecs/bitstream.
"""

import hashlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from latentpress.codecs.bitstream import Limits, crc32c, read_container
from latentpress.codecs.image import ImageCodec
from latentpress.codecs.image_payload import read_image_header
from latentpress.codecs.registry import inspect, load, read_metadata
from latentpress.codecs.weights import WeightFile, read_weight_file

FOLDER = Path(__file__).parents[1] / "golden" / "v1"
EXPECTED = json.loads((FOLDER / "image.json").read_text(encoding="utf-8"))
STREAMS = EXPECTED["streams"]

names = pytest.mark.parametrize("name", STREAMS)


def stream(name: str) -> bytes:
    return (FOLDER / f"image_{name}.lpz").read_bytes()


@pytest.fixture(scope="module")
def weights() -> WeightFile:
    return read_weight_file(FOLDER / "image_tiny.safetensors")


@pytest.fixture(scope="module")
def codec() -> ImageCodec:
    return load(FOLDER / "image_tiny.safetensors")


def load_beside(name: str) -> ModuleType:
    """A module beside this file, which is in no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SecondDecoder = load_beside("second_image_decoder").SecondDecoder


def second_decoding(weights: WeightFile, name: str) -> tuple[np.ndarray, ...]:
    facts = STREAMS[name]
    payload = read_container(stream(name)).payload
    return SecondDecoder(weights).decode(
        payload[facts["coded_offset"] :], facts["height"], facts["width"], facts["quality_tenths"]
    )


def test_fingerprint(weights, codec):
    assert weights.fingerprint().hex() == codec.fingerprint.hex() == EXPECTED["fingerprint"]


def test_changed_weights_have_another_fingerprint(weights, codec):
    for name in ("context.heads.2.bias", "tables.minimums", "synthesis.head.weight"):
        changed = weights.tensors[name].copy()
        changed.reshape(-1)[0] += 1
        other = WeightFile(weights.family, weights.config, {**weights.tensors, name: changed})
        assert other.fingerprint().hex() != EXPECTED["fingerprint"]


@names
def test_bytes_are_those_that_were_made(name):
    assert hashlib.sha256(stream(name)).hexdigest() == STREAMS[name]["stream_sha256"]


@names
def test_header(name):
    facts = STREAMS[name]
    payload = read_container(stream(name)).payload
    header, offset = read_image_header(payload, Limits())
    assert (header.height, header.width, header.channels) == (
        facts["height"],
        facts["width"],
        facts["channels"],
    )
    assert header.quality_tenths == facts["quality_tenths"]
    assert f"{header.checksum:08x}" == facts["symbols_crc32c"]
    assert (offset, len(payload)) == (facts["coded_offset"], facts["payload_bytes"])
    assert header.to_bytes() == payload[:offset]
    found = inspect(stream(name))
    assert (found.codec, found.version, found.fingerprint) == ("image", 1, EXPECTED["fingerprint"])
    assert {key: value.hex() for key, value in read_metadata(stream(name)).items()} == facts["metadata"]


@names
def test_symbols(codec, weights, name):
    """Symbol for symbol, with the library and with the second decoder."""
    facts = STREAMS[name]
    codec.verify(stream(name))
    _, y_hat = codec._decode_latent(stream(name), Limits())
    units = (y_hat[0].double() * 1024).numpy().astype("<f8") + 0.0
    assert list(units.shape) == facts["y_hat_shape"]
    assert hashlib.sha256(units.tobytes()).hexdigest() == facts["y_hat_sha256"]
    _, second, symbols = second_decoding(weights, name)
    assert np.array_equal(second, units)
    assert f"{crc32c(symbols.astype('<i4').tobytes()):08x}" == facts["symbols_crc32c"]


@names
def test_pixels(codec, weights, name):
    """Transforms are floating point, so the last bit may differ."""
    with Image.open(FOLDER / f"image_{name}.png") as image:
        expected = np.array(image).reshape(image.height, image.width, -1).transpose(2, 0, 1).astype(int)
    decoded = codec.decompress(stream(name))
    assert decoded.dtype == torch.uint8
    assert tuple(decoded.shape) == expected.shape
    assert int(np.abs(decoded.numpy().astype(int) - expected).max()) <= 1
    _, y_hat, _ = second_decoding(weights, name)
    assert int(np.abs(SecondDecoder(weights).synthesise(y_hat, STREAMS[name]) - expected).max()) <= 1


@names
def test_encoding_the_symbols_again_gives_the_same_bytes(codec, weights, name, monkeypatch):
    facts = STREAMS[name]
    monkeypatch.setattr(codec._coder.rounding, "multiplier", 0.0)
    z, y_hat, _ = second_decoding(weights, name)
    y = torch.from_numpy(y_hat)[None].double() / 1024
    quality = torch.tensor([facts["quality_tenths"] / 10])
    coded = codec._coder.encode(y, torch.from_numpy(z)[None].double(), quality)
    assert coded.data == read_container(stream(name)).payload[facts["coded_offset"] :]
    assert f"{coded.checksum:08x}" == facts["symbols_crc32c"]


def test_what_the_streams_cover(weights):
    """Escapes, many tables, means between the integers, both colours and the ends of the quality scale."""
    used: set[int] = set()
    fractions: set[int] = set()
    escapes = 0

    class Recorder(SecondDecoder):
        def table_index(self, raw):
            found = super().table_index(raw)
            indexes.append(found.ravel())
            return found

    for name, facts in STREAMS.items():
        indexes: list[np.ndarray] = []
        payload = read_container(stream(name)).payload
        decoder = Recorder(weights)
        z, y_hat, symbols = decoder.decode(
            payload[facts["coded_offset"] :], facts["height"], facts["width"], facts["quality_tenths"]
        )
        found = np.concatenate([np.tile(indexes[0], z[:, :, 0].size), *indexes[1:]])
        lowest = decoder.tables.minimums[found]
        escapes += int(((symbols < lowest) | (symbols >= lowest + decoder.tables.lengths[found] - 1)).sum())
        used.update(found.tolist())
        fractions.update((y_hat % 1024).ravel().tolist())
    assert len(used) > 30
    assert len(fractions) > 500
    assert escapes > 20
    assert {facts["channels"] for facts in STREAMS.values()} == {1, 3}
    assert {0, 1000} <= {facts["quality_tenths"] for facts in STREAMS.values()}
