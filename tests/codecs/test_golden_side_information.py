"""Image streams whose side information comes in four steps decode to the same symbols for ever.

Imports only core dependencies, like test_golden_image_max.py, from which it has the means to read streams.
"""

import hashlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from latentpress.codecs.bitstream import StreamError, TruncatedStream
from latentpress.codecs.image import ImageCodec
from latentpress.codecs.registry import inspect, load, read_metadata
from latentpress.codecs.weights import WeightFile, read_weight_file


def load_beside(name: str) -> ModuleType:
    """A module beside this file, which is in no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


others = load_beside("test_golden_image_max")
DECODERS = {"image": others.second.SecondTiledDecoder, "image-max": others.second.SecondMaxDecoder}

EXPECTED = json.loads((others.FOLDER / "side_information.json").read_text(encoding="utf-8"))
STREAMS = EXPECTED["streams"]
MODELS = EXPECTED["fingerprints"]

names = pytest.mark.parametrize("name", STREAMS)
models = pytest.mark.parametrize("model", MODELS)


def path(name: str) -> Path:
    return others.FOLDER / f"side_information_{name}"


def stream(name: str) -> bytes:
    return path(f"{name}.lpz").read_bytes()


@pytest.fixture(scope="module")
def weights() -> dict[str, WeightFile]:
    return {model: read_weight_file(path(f"{model}.safetensors")) for model in MODELS}


@pytest.fixture(scope="module")
def codecs() -> dict[str, ImageCodec]:
    return {model: load(path(f"{model}.safetensors")) for model in MODELS}


@pytest.fixture
def codec(codecs, name) -> ImageCodec:
    return codecs[STREAMS[name]["model"]]


@pytest.fixture
def decoder(weights, name):
    """The second decoder of a stream."""
    model = STREAMS[name]["model"]
    return DECODERS[model](weights[model])


@models
def test_weights(weights, codecs, model):
    assert weights[model].family == model
    assert weights[model].fingerprint().hex() == codecs[model].fingerprint.hex() == MODELS[model]
    assert weights[model].config["side_information"]["channels"] == 8


@names
def test_bytes_and_header(codec, decoder, name):
    facts = STREAMS[name]
    assert hashlib.sha256(stream(name)).hexdigest() == facts["stream_sha256"]
    parsed = others.second_reading(decoder, stream(name))
    others.check_header(parsed, facts)
    assert list(codec.cut_points(stream(name))) == facts["cut_points"]
    assert inspect(stream(name)).fingerprint == MODELS[facts["model"]]
    assert {key: value.hex() for key, value in read_metadata(stream(name)).items()} == facts["metadata"]


@names
def test_symbols_and_pixels(codec, decoder, name):
    """With the library and with the second decoder, whole and cut behind each part."""
    facts = STREAMS[name]
    codec.verify(stream(name))
    for end, expected in zip(facts["cut_points"], facts["y_hat_sha256"], strict=True):
        cut = stream(name)[:end]
        parsed = others.second_reading(decoder, cut)
        tiles = decoder.decode_stream(parsed)
        assert others.digest(others.latents(codec, cut)) == expected
        assert others.digest([tile.y_hat for tile in tiles]) == expected
        decoded = codec.decompress(cut, partial=True).numpy().astype(int)
        pixels = decoder.synthesise(decoder.joined(parsed, tiles), facts)
        assert int(np.abs(pixels - decoded).max()) <= 1
    with Image.open(path(f"{name}.png")) as image:
        kept = np.array(image).reshape(image.height, image.width, -1).transpose(2, 0, 1)
    assert int(np.abs(kept - decoded).max()) <= 1


@names
def test_streams_cut_too_early(codec, name):
    with pytest.raises(TruncatedStream):
        codec.decompress(stream(name)[: STREAMS[name]["cut_points"][0] - 1], partial=True)


@pytest.mark.parametrize("name", [name for name in STREAMS if not STREAMS[name]["tile_size"]])
def test_encoding_the_symbols_again_gives_the_same_bytes(codec, decoder, name, monkeypatch):
    others.check_encoding_again(codec, decoder, stream(name), monkeypatch)


@pytest.mark.parametrize("part", ["context.adaptors", "context.blocks", "context.heads", "bias", "raw_scale"])
@pytest.mark.parametrize("name", ["grey_200x230_q100", "max_rgb_37x83_q71.9_metadata"])
def test_every_part_acts(decoder, name, part):
    """Without any of them other symbols come out, or none."""
    kept = decoder.weights
    decoder.weights = {
        key: array * (not key.startswith(f"hyper_prior.{part}") or key.endswith("shift"))
        for key, array in kept.items()
    }
    with pytest.raises((AssertionError, StreamError)):
        decoder.decode_stream(others.second_reading(decoder, stream(name)))


@models
def test_what_the_streams_cover(weights, model):
    """Side information of many rows and columns, with escapes, many tables and means between the integers."""
    sizes, tables, fractions, escapes = set(), set(), set(), 0

    class Recorder(DECODERS[model]):
        def decode_z(self, *arguments):
            nonlocal escapes
            self.indexes = []
            z, batches = super().decode_z(*arguments)
            indexes, symbols = np.concatenate(self.indexes), np.concatenate(batches)
            lowest = self.tables.minimums[indexes]
            escapes += int(
                ((symbols < lowest) | (symbols >= lowest + self.tables.lengths[indexes] - 1)).sum()
            )
            sizes.add(z.shape[:2])
            tables.update(indexes.tolist())
            fractions.update((z % 1024).ravel().tolist())
            return z, batches

        def decode_symbols(self, coder, raw_scale, coded):
            self.indexes.append(self.table_index(raw_scale[coded]))
            return super().decode_symbols(coder, raw_scale, coded)

    recorder = Recorder(weights[model])
    for name, facts in STREAMS.items():
        if facts["model"] == model:
            recorder.decode_stream(others.second_reading(recorder, stream(name)))
    assert max(sizes) >= (4, 4)
    assert min(sizes) <= (1, 3)
    assert len(tables) > 20
    assert len(fractions) > 100
    assert escapes > 20


def test_which_streams_there_are():
    for values, key in (({1, 3}, "channels"), ({0, 333, 1000}, "quality_tenths"), ({0, 64}, "tile_size")):
        assert values <= {facts[key] for facts in STREAMS.values()}
    assert {len(facts["cut_points"]) for facts in STREAMS.values()} == {1, 2}
