"""Streams of the family image-max, of format version 1, decode to the same symbols for ever.

Imports only core dependencies: this also runs where nothing else is installed. The second decoder, in
second_image_max_decoder.py, is written from docs/bitstream.md; the container, the tables and the range coder
that it shares with the library have golden tests of their own in tests/codecs/bitstream.
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

from latentpress.codecs.bitstream import (
    Limits,
    SectionType,
    StreamError,
    TruncatedStream,
    read_container,
    read_cut_container,
    write_container,
)
from latentpress.codecs.image import ImageCodec
from latentpress.codecs.registry import inspect, load, read_metadata
from latentpress.codecs.symbol_coders import InProcessCoders
from latentpress.codecs.weights import WeightFile, read_weight_file

FOLDER = Path(__file__).parents[1] / "golden" / "v1"
EXPECTED = json.loads((FOLDER / "image-max.json").read_text(encoding="utf-8"))
STREAMS = EXPECTED["streams"]
MODELS = EXPECTED["fingerprints"]

names = pytest.mark.parametrize("name", STREAMS)
models = pytest.mark.parametrize("model", MODELS)


def load_beside(name: str) -> ModuleType:
    """A module beside this file, which is in no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


second = load_beside("second_image_max_decoder")


@pytest.fixture(scope="module")
def weights() -> dict[str, WeightFile]:
    return {model: read_weight_file(FOLDER / f"image-max_{model}.safetensors") for model in MODELS}


@pytest.fixture(scope="module")
def codecs() -> dict[str, ImageCodec]:
    return {model: load(FOLDER / f"image-max_{model}.safetensors") for model in MODELS}


def stream(name: str) -> bytes:
    return (FOLDER / f"image-max_{name}.lpz").read_bytes()


def picture(name: str) -> np.ndarray:
    with Image.open(FOLDER / f"image-max_{name}.png") as image:
        return np.array(image).reshape(image.height, image.width, -1).transpose(2, 0, 1).astype(int)


def digest(tiles: list[np.ndarray]) -> str:
    """Of y_hat in units, tile after tile."""
    return hashlib.sha256(b"".join(units.astype("<f8").tobytes() for units in tiles)).hexdigest()


def latents(codec: ImageCodec, data: bytes) -> list[np.ndarray]:
    """y_hat in units of every tile of a stream, which may be cut."""
    parsed, _ = codec._read(data, Limits(), partial=True)
    decoder = codec._decoder(parsed, InProcessCoders())
    found = []
    for tile in range(parsed.header.grid.count):
        for _, y_hat in decoder._decode_tiles([tile]):
            found.append((y_hat[0].double() * 1024).numpy() + 0.0)
    return found


def second_reading(decoder, data: bytes):
    """A stream, which may be cut, as the second decoder takes it apart."""
    container = read_cut_container(data, Limits())
    index = container.get(SectionType.TILES)
    return second.read_stream(container.payload, index, decoder.part_count, container.missing)


def check_header(parsed, facts: dict) -> None:
    """Of a stream as the second decoder takes it apart."""
    for key in ("height", "width", "channels", "quality_tenths", "tile_size"):
        assert getattr(parsed, key) == facts[key]
    checksums = [[f"{part.checksum:08x}" for part in tile] for tile in parsed.tiles]
    assert checksums == facts["symbols_crc32c"]


def check_encoding_again(codec: ImageCodec, decoder, data: bytes, monkeypatch) -> None:
    """The symbols of a stream without tiles give the same bytes."""
    parsed = second_reading(decoder, data)
    (tile,) = decoder.decode_stream(parsed)
    symbols = torch.from_numpy(np.concatenate(tile.symbols)[tile.z.size :].astype(np.float64))

    def next_symbols(residual: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        nonlocal symbols
        found, symbols = symbols.split([len(residual), len(symbols) - len(residual)])
        return found.clone()

    monkeypatch.setattr(codec._coder, "rounding", next_symbols)
    y = torch.zeros((1, *tile.y_hat.shape), dtype=torch.float64)
    quality = torch.tensor([parsed.quality_tenths / 10])
    covered = parsed.fields if decoder.part_count > 1 else b""
    coded = codec._coder.encode(y, torch.from_numpy(tile.z)[None].double(), quality, prefix=covered)
    found = [(part.checksum, part.data) for part in coded.parts]
    assert found == [tuple(part) for part in parsed.tiles[0]]
    assert np.array_equal(coded.y_hat[0].double().numpy() * 1024, tile.y_hat)


@models
def test_fingerprint(weights, codecs, model):
    assert weights[model].family == "image-max"
    assert weights[model].fingerprint().hex() == codecs[model].fingerprint.hex() == MODELS[model]


@names
def test_bytes_are_those_that_were_made(name):
    assert hashlib.sha256(stream(name)).hexdigest() == STREAMS[name]["stream_sha256"]


@names
def test_header(codecs, weights, name):
    facts = STREAMS[name]
    parsed = second_reading(second.SecondMaxDecoder(weights[facts["model"]]), stream(name))
    check_header(parsed, facts)
    container = read_container(stream(name))
    assert len(container.payload) == facts["payload_bytes"]
    assert len(container.get(SectionType.TILES) or b"") == facts["tiles_bytes"]
    assert list(codecs[facts["model"]].cut_points(stream(name))) == facts["cut_points"]
    found = inspect(stream(name))
    assert (found.codec, found.version, found.fingerprint) == ("image", 1, MODELS[facts["model"]])
    assert {key: value.hex() for key, value in read_metadata(stream(name)).items()} == facts["metadata"]


@names
def test_symbols(codecs, weights, name):
    """Symbol for symbol, with the library and with the second decoder, whole and cut behind each part.

    Both check the symbols by the checksums of the parts, which are those of test_header.
    """
    facts = STREAMS[name]
    codec = codecs[facts["model"]]
    decoder = second.SecondMaxDecoder(weights[facts["model"]])
    codec.verify(stream(name))
    assert len(facts["cut_points"]) == len(facts["y_hat_sha256"]) == decoder.part_count
    for end, expected in zip(facts["cut_points"], facts["y_hat_sha256"], strict=True):
        cut = stream(name)[:end]
        assert digest(latents(codec, cut)) == expected
        assert (
            digest([tile.y_hat for tile in decoder.decode_stream(second_reading(decoder, cut))]) == expected
        )


@names
def test_pixels(codecs, weights, name):
    """Transforms are floating point, so the last bit may differ; of cut streams too."""
    facts = STREAMS[name]
    codec = codecs[facts["model"]]
    decoder = second.SecondMaxDecoder(weights[facts["model"]])
    for end in facts["cut_points"]:
        decoded = codec.decompress(stream(name)[:end], partial=True)
        assert decoded.dtype == torch.uint8
        parsed = second_reading(decoder, stream(name)[:end])
        y_hat = decoder.joined(parsed, decoder.decode_stream(parsed))
        assert int(np.abs(decoder.synthesise(y_hat, facts) - decoded.numpy().astype(int)).max()) <= 1
    assert tuple(decoded.shape) == picture(name).shape
    assert int(np.abs(decoded.numpy().astype(int) - picture(name)).max()) <= 1


@names
def test_what_is_cut_is_asked_for(codecs, name):
    facts = STREAMS[name]
    codec = codecs[facts["model"]]
    with pytest.raises(TruncatedStream):
        codec.decompress(stream(name)[: facts["cut_points"][0]])
    with pytest.raises(TruncatedStream):
        codec.decompress(stream(name)[: facts["cut_points"][0] - 1], partial=True)


@names
def test_mutations_raise_stream_errors_only(codecs, name):
    """Of the payload, under checksums of the container that are right again: the parts' checksums find them.

    Those of a model with a single part do not cover the fields, so there a forged one may go unnoticed.
    """
    codec = codecs[STREAMS[name]["model"]]
    container = read_container(stream(name))
    random = np.random.default_rng(len(name))
    for _ in range(20):
        payload = bytearray(container.payload)
        for _ in range(random.integers(1, 4)):
            payload[random.integers(len(payload))] ^= 1 << random.integers(8)
        sections = [*container.sections[:-1], (SectionType.PAYLOAD, bytes(payload))]
        data = write_container(container.codec_id, container.fingerprint, sections)
        try:
            codec.decompress(data, limits=Limits(max_pixels=2**16))
        except StreamError:
            continue
        assert STREAMS[name]["model"] == "bare" or bytes(payload) == container.payload


@pytest.mark.parametrize("name", [name for name in STREAMS if not STREAMS[name]["tile_size"]])
def test_encoding_the_symbols_again_gives_the_same_bytes(codecs, weights, name, monkeypatch):
    model = STREAMS[name]["model"]
    check_encoding_again(codecs[model], second.SecondMaxDecoder(weights[model]), stream(name), monkeypatch)


class Recorder(second.SecondMaxDecoder):
    """Keeps the tables and symbols of all batches, and how many elements were skipped and coded."""

    def __init__(self, weights: WeightFile) -> None:
        super().__init__(weights)
        self.indexes: list[np.ndarray] = []
        self.symbols: list[np.ndarray] = []
        self.shares: list[float] = []

    def decode_symbols(self, coder, raw_scale, coded):
        found = super().decode_symbols(coder, raw_scale, coded)
        self.indexes.append(self.table_index(raw_scale[coded]))
        self.symbols.append(found)
        self.shares.append(float(coded.mean()))
        return found


@models
def test_what_the_streams_cover(weights, model):
    """Escapes, many tables, means between the integers; some elements are skipped, but not all."""
    fractions: set[int] = set()
    recorder = Recorder(weights[model])
    for name, facts in STREAMS.items():
        if facts["model"] == model:
            for tile in recorder.decode_stream(second_reading(recorder, stream(name))):
                fractions.update((tile.y_hat % 1024).ravel().tolist())
    indexes, symbols = np.concatenate(recorder.indexes), np.concatenate(recorder.symbols)
    lowest = recorder.tables.minimums[indexes]
    assert int(((symbols < lowest) | (symbols >= lowest + recorder.tables.lengths[indexes] - 1)).sum()) > 20
    assert len(set(indexes.tolist())) > 30
    assert len(fractions) > 300
    if recorder.design["selective"]:
        assert np.quantile(recorder.shares, 0.1) < 0.8
        assert 0.4 < np.mean(recorder.shares) < 0.9


def test_which_streams_there_are():
    for values, key in (({1, 3}, "channels"), ({0, 1000}, "quality_tenths"), ({0, 64}, "tile_size")):
        assert values <= {facts[key] for facts in STREAMS.values()}
    assert {facts["width"] % 32 for facts in STREAMS.values()} & set(range(1, 17))  # an odd number of columns


def zeros(width: int):
    """In the place of a method with so many channels."""
    return lambda self, name, x, *_: np.zeros((x.shape[0], -(-x.shape[1] // 2), width), np.int64)


MUTED = {
    "inter_slice": lambda self, name, seen: np.zeros((*seen.shape[:2], 8), np.int64),
    "intra_slice": zeros(8),
    "hyper_correlation": zeros(8),
    "reweighting": lambda self, name, x: x,
    "local_attention": lambda self, name, known, *_: np.zeros((*known.shape[:2], 16), np.int64),
    "pointwise_block": lambda self, name, x: x,
}
"""What a method of the second decoder would return if its part of the network did nothing."""


@pytest.mark.parametrize("part", [*MUTED, "residual_prediction", "selective"])
def test_every_part_acts(weights, monkeypatch, part):
    """Without any of them another latent comes out, or none."""
    decoder = second.SecondMaxDecoder(weights["tiny"])
    data = stream("rgb_160x144_q100")
    (expected,) = decoder.decode_stream(second_reading(decoder, data))
    if part in MUTED:
        monkeypatch.setattr(second.SecondMaxDecoder, part, MUTED[part])
    else:
        decoder.design = {**decoder.design, part: None}
    try:
        (found,) = decoder.decode_stream(second_reading(decoder, data))
    except (AssertionError, StreamError):
        return
    assert not np.array_equal(found.y_hat, expected.y_hat)


@pytest.mark.parametrize(("model", "part"), [("tiny", "mixed"), ("tiny", "normalised"), ("plain", "limited")])
def test_every_part_of_the_synthesis_acts(weights, monkeypatch, model, part):
    name = {"tiny": "rgb_160x144_q100", "plain": "plain_rgb_100x70_q65"}[model]
    decoder = second.SecondMaxDecoder(weights[model])
    parsed = second_reading(decoder, stream(name))
    y_hat = decoder.joined(parsed, decoder.decode_stream(parsed))
    expected = decoder.synthesise(y_hat, STREAMS[name])
    if part == "limited":
        decoder.config = {**decoder.config, "branch_limits": None}
    else:
        monkeypatch.setattr(second.SecondMaxDecoder, part, lambda self, name, x: x)
    assert np.abs(decoder.synthesise(y_hat, STREAMS[name]) - expected).max() > 2
