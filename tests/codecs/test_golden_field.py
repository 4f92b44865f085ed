"""Field streams of format version 1 decode to the same fields for ever.

Imports only core dependencies: this also runs where nothing else is installed.
"""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from latentpress.codecs.bitstream import CodecId, SectionType, StreamError, read_container, write_container
from latentpress.codecs.field import FieldCodec
from latentpress.codecs.registry import inspect, load

FOLDER = Path(__file__).parents[1] / "golden" / "v1"
EXPECTED = json.loads((FOLDER / "field.json").read_text(encoding="utf-8"))
STREAMS = EXPECTED["streams"]

names = pytest.mark.parametrize("name", STREAMS)


def stream(name: str) -> bytes:
    return (FOLDER / f"field_{name}.lpz").read_bytes()


@pytest.fixture(scope="module")
def codec():
    return load(FOLDER / "field_tiny.safetensors")


def check(name: str, values: np.ndarray) -> None:
    expected = STREAMS[name]
    assert list(values.shape) == expected["shape"]
    assert str(values.dtype) == expected["dtype"]
    if "sha256" in expected:
        assert hashlib.sha256(values.tobytes()).hexdigest() == expected["sha256"]
        return
    kept = np.load(FOLDER / f"field_{name}.npy")
    finite = np.isfinite(kept)
    assert np.array_equal(values[~finite], kept[~finite], equal_nan=True)
    np.testing.assert_allclose(values[finite], kept[finite], atol=1e-4 * float(np.ptp(kept[finite])), rtol=0)


def test_weights_are_those_of_the_streams(codec) -> None:
    assert codec.fingerprint.hex() == EXPECTED["fingerprint"]


@names
def test_values(codec, name) -> None:
    data = stream(name)
    assert len(data) == STREAMS[name]["bytes"]
    assert inspect(data).parameters == STREAMS[name]["parameters"]
    check(name, codec.decompress(data).numpy())
    codec.verify(data)


@names
def test_bounds_need_no_weights(name) -> None:
    if "sha256" not in STREAMS[name]:
        pytest.skip("a stream with a network")
    check(name, FieldCodec().decompress(stream(name)).numpy())


@pytest.mark.parametrize("name", [name for name in STREAMS if name.startswith("blocks")])
def test_blocks_one_by_one(codec, name) -> None:
    with codec.open(io.BytesIO(stream(name))) as field:
        values = np.empty(field.shape, field.dtype)
        field.copy_to(values)
    check(name, values)


@names
def test_mutations_raise_stream_errors_only(codec, name) -> None:
    """Of the payload, under checksums that are right again, so that everything behind them is reached."""
    container = read_container(stream(name))
    random = np.random.default_rng(len(name))
    refused = 0
    for _ in range(40):
        payload = bytearray(container.payload)
        for _ in range(random.integers(1, 4)):
            kind = random.integers(3)
            at = int(random.integers(len(payload)))
            if kind == 0:
                payload[at] ^= 1 << random.integers(8)
            elif kind == 1:
                del payload[at : at + int(random.integers(1, 9))]
            else:
                payload[at:at] = random.bytes(int(random.integers(1, 9)))
        data = write_container(CodecId.FIELD, container.fingerprint, [(SectionType.PAYLOAD, bytes(payload))])
        try:
            codec.decompress(data)
        except StreamError:
            refused += 1
    assert refused > 10


@names
def test_every_flipped_bit_of_a_file_is_noticed(codec, name) -> None:
    data = stream(name)
    random = np.random.default_rng(1)
    for _ in range(40):
        damaged = bytearray(data)
        damaged[random.integers(len(data))] ^= 1 << random.integers(8)
        with pytest.raises(StreamError):
            codec.decompress(bytes(damaged))
    for length in random.integers(0, len(data), 20):
        with pytest.raises(StreamError):
            codec.decompress(data[:length])
