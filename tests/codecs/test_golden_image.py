"""Image streams of format version 1 decode to the same symbols for ever.

Imports only core dependencies: this also runs where nothing else is installed. The decoder below is a second
one, written from docs/bitstream.md with numpy's integers and without torch; it shares the container, the
tables and the range coder with the library, whose own golden tests are in tests/codecs/bitstream.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentpress.codecs.bitstream import Limits, SymbolDecoder, TableSet, crc32c, read_container
from latentpress.codecs.image import ImageCodec
from latentpress.codecs.image_payload import read_image_header
from latentpress.codecs.registry import inspect, load, read_metadata
from latentpress.codecs.weights import WeightFile, read_weight_file

FOLDER = Path(__file__).parents[1] / "golden" / "v1"
EXPECTED = json.loads((FOLDER / "image.json").read_text(encoding="utf-8"))
STREAMS = EXPECTED["streams"]
LIMIT = 2**20 - 1

names = pytest.mark.parametrize("name", STREAMS)


def stream(name: str) -> bytes:
    return (FOLDER / f"image_{name}.lpz").read_bytes()


@pytest.fixture(scope="module")
def weights() -> WeightFile:
    return read_weight_file(FOLDER / "image_tiny.safetensors")


@pytest.fixture(scope="module")
def codec() -> ImageCodec:
    return load(FOLDER / "image_tiny.safetensors")


class SecondDecoder:
    """Decodes image streams."""

    def __init__(self, weights: WeightFile) -> None:
        self.weights = weights.tensors
        self.config = weights.config
        arrays = {k.removeprefix("tables."): v for k, v in self.weights.items() if k.startswith("tables.")}
        self.tables = TableSet.from_arrays(arrays)

    def array(self, name: str) -> np.ndarray:
        return self.weights[name].astype(np.int64)

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        shift = int(self.array(f"{name}.shift")[0])
        sums = x.clip(-LIMIT, LIMIT) @ self.array(f"{name}.weight").T
        return (sums + (self.array(f"{name}.bias") << shift) + (1 << shift - 1)) >> shift

    def depthwise(self, name: str, x: np.ndarray) -> np.ndarray:
        shift = int(self.array(f"{name}.shift")[0])
        height, width = x.shape[:2]
        padded = np.pad(x.clip(-LIMIT, LIMIT), ((1, 1), (1, 1), (0, 0)))
        weight = self.array(f"{name}.weight")[:, 0]
        sums = sum(
            padded[i : i + height, j : j + width] * weight[:, i, j] for i in range(3) for j in range(3)
        )
        return (sums + (self.array(f"{name}.bias") << shift) + (1 << shift - 1)) >> shift

    def block(self, name: str, x: np.ndarray) -> np.ndarray:
        hidden = self.linear(f"{name}.expand", x)
        hidden = np.where(hidden > 0, hidden, hidden >> 3)
        x = x + self.linear(f"{name}.project", self.depthwise(f"{name}.depthwise", hidden))
        value = self.linear(f"{name}.value", x).clip(-LIMIT, LIMIT)
        gate = self.linear(f"{name}.gate", x).clip(0, 2**13)
        return x + self.linear(f"{name}.output", (value * gate + 512) >> 10)

    def quality_vector(self, name: str, tenths: int) -> np.ndarray:
        knots = self.array(f"{name}.knots")
        position = tenths * (len(knots) - 1)
        index = min(position // 1000, len(knots) - 2)
        fraction = position - 1000 * index
        return (knots[index] * (1000 - fraction) + knots[index + 1] * fraction + 500) // 1000

    def upsample(self, name: str, x: np.ndarray) -> np.ndarray:
        return self.spread(self.linear(f"{name}.linear", x), 2)

    def table_index(self, raw: np.ndarray) -> np.ndarray:
        return ((8 * raw + 24 * 1024 + 512) >> 10).clip(0, 63).astype(np.uint8)

    def decode(self, data: bytes, height: int, width: int, tenths: int) -> tuple[np.ndarray, ...]:
        """z, y_hat in units, and all symbols in the order in which they are coded."""
        latents, hyper = self.config["latent_channels"], self.config["hyper_channels"]
        coder = SymbolDecoder(data)
        rows, columns = -(-height // 16), -(-width // 16)
        z_shape = (-(-rows // 4), -(-columns // 4), hyper)
        indexes = self.table_index(self.quality_vector("hyper_prior.raw_scale", tenths))
        symbols = [coder.get(np.tile(indexes, z_shape[0] * z_shape[1]), self.tables)]
        z = symbols[0].reshape(z_shape).astype(np.int64)

        x = self.upsample("hyper_synthesis.up_coarse", z * 1024)
        x = self.upsample("hyper_synthesis.up_fine", self.block("hyper_synthesis.coarse", x))
        x = x + self.quality_vector("hyper_synthesis.bias", tenths)
        features = self.block("hyper_synthesis.fine", x)[:rows, :columns]

        y_hat = np.zeros((rows, columns, latents), np.int64)
        row, column, channel = np.indices(y_hat.shape)
        quarter = channel // (latents // 4)
        for step, order in enumerate((0, 3, 2, 1)):
            x = features
            if step > 0:
                x = self.linear(f"context.adaptors.{step - 1}", np.concatenate([features, y_hat], axis=2))
                for number in range(self.config["context_depth"]):
                    x = self.block(f"context.blocks.{number}", x)
            x = self.linear(f"context.heads.{step}", x)
            mean, raw_scale = x[:, :, :latents], x[:, :, latents:]
            coded = (2 * (row % 2) + column % 2) ^ order == quarter
            symbols.append(coder.get(self.table_index(raw_scale[coded]), self.tables))
            y_hat[coded] = symbols[-1].astype(np.int64) * 1024 + mean[coded]
        coder.finish()
        return z, y_hat, np.concatenate(symbols)

    def synthesise(self, y_hat: np.ndarray, facts: dict) -> np.ndarray:
        """Pixels from y_hat, in float64."""
        tenths = facts["quality_tenths"]
        x = self.real_linear("synthesis.stem", y_hat / 1024 * self.gain("inverse_gain", tenths))
        for number in range(self.config["deep_depth"]):
            x = self.real_block(f"synthesis.deep_blocks.{number}", x)
        x = self.spread(self.real_linear("synthesis.up.linear", x), 2) * self.gain("synthesis.gain", tenths)
        for number in range(self.config["depth"]):
            x = self.real_block(f"synthesis.blocks.{number}", x)
        rgb = self.spread(self.real_linear("synthesis.head", x), 8) + 0.5
        rgb = rgb[: facts["height"], : facts["width"]]
        if facts["channels"] == 1:
            rgb = rgb.mean(axis=2, keepdims=True)
        return np.round(rgb.clip(0, 1) * 255).transpose(2, 0, 1)

    def real(self, name: str) -> np.ndarray:
        return self.weights[name].astype(np.float64)

    def real_linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.real(f"{name}.weight").T + self.real(f"{name}.bias")

    def real_block(self, name: str, x: np.ndarray) -> np.ndarray:
        def silu(values: np.ndarray) -> np.ndarray:
            return values / (1 + np.exp(-values))

        height, width = x.shape[:2]
        padded = np.pad(silu(self.real_linear(f"{name}.expand", x)), ((1, 1), (1, 1), (0, 0)))
        weight = self.real(f"{name}.depthwise.weight")[:, 0]
        hidden = sum(
            padded[i : i + height, j : j + width] * weight[:, i, j] for i in range(3) for j in range(3)
        )
        x = x + self.real_linear(f"{name}.project", hidden + self.real(f"{name}.depthwise.bias"))
        gated = self.real_linear(f"{name}.value", x) * silu(self.real_linear(f"{name}.gate", x))
        return x + self.real_linear(f"{name}.output", gated)

    def gain(self, name: str, tenths: int) -> np.ndarray:
        knots = self.real(f"{name}.knots")
        positions = np.arange(len(knots))
        at = tenths / 1000 * (len(knots) - 1)
        return np.exp([np.interp(at, positions, column) for column in knots.T])

    def spread(self, x: np.ndarray, side: int) -> np.ndarray:
        height, width, channels = x.shape
        x = x.reshape(height, width, side, side, -1).transpose(0, 2, 1, 3, 4)
        return x.reshape(side * height, side * width, channels // side**2)


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
    monkeypatch.setattr(codec._coder, "multiplier", 0.0)
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
